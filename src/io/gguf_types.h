// gguf_types.h - ggml's numbers for the types of tensors. Source: ggml.h, enum ggml_type.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "minillm/types.h"

namespace minillm {

struct GgufTensorType {
  uint32_t id;
  std::optional<Dtype> dtype;  ///< None: known, but not read by us.
  std::string_view name;
};
/// Numbers that are missing were removed from ggml or belong to no file.
inline constexpr std::array<GgufTensorType, 35> kGgufTensorTypes{{
    {0, Dtype::kF32, "F32"},
    {1, Dtype::kF16, "F16"},
    {2, Dtype::kQ4_0, "Q4_0"},
    {3, Dtype::kQ4_1, "Q4_1"},
    {6, Dtype::kQ5_0, "Q5_0"},
    {7, Dtype::kQ5_1, "Q5_1"},
    {8, Dtype::kQ8_0, "Q8_0"},
    {9, {}, "Q8_1"},
    {10, {}, "Q2_K"},
    {11, {}, "Q3_K"},
    {12, Dtype::kQ4_K, "Q4_K"},
    {13, Dtype::kQ5_K, "Q5_K"},
    {14, Dtype::kQ6_K, "Q6_K"},
    {15, {}, "Q8_K"},
    {16, {}, "IQ2_XXS"},
    {17, {}, "IQ2_XS"},
    {18, {}, "IQ3_XXS"},
    {19, {}, "IQ1_S"},
    {20, {}, "IQ4_NL"},
    {21, {}, "IQ3_S"},
    {22, {}, "IQ2_S"},
    {23, {}, "IQ4_XS"},
    {24, {}, "I8"},
    {25, {}, "I16"},
    {26, Dtype::kI32, "I32"},
    {27, {}, "I64"},
    {28, {}, "F64"},
    {29, {}, "IQ1_M"},
    {30, Dtype::kBF16, "BF16"},
    {34, {}, "TQ1_0"},
    {35, {}, "TQ2_0"},
    {39, {}, "MXFP4"},
    {40, {}, "NVFP4"},
    {41, {}, "Q1_0"},
    {42, {}, "Q2_0"},
}};

}  // namespace minillm
