// types.h - element types and devices.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace minillm {

/// Element type of a tensor. The block formats (kQ...) pack 32 or 256 weights of a row with their scales, as in GGUF. kF8 is for caches
/// of keys and values only: E4M3, 1 sign bit, 4 of exponent, 3 of fraction, numbers up to 448, no infinities.
enum class Dtype : uint8_t { kF32, kF16, kBF16, kI32, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ4_K, kQ5_K, kQ6_K, kF8 };

/// "f32", "bf16", "q4_k", ...
std::string_view name_of(Dtype dtype) noexcept;

/// The inverse of name_of, also accepting "float32", "float16", "bfloat16" and "float8_e4m3fn".
/// Throws Error{kInvalidArgument} naming `name` and what is accepted.
Dtype parse_dtype(std::string_view name);

/// Where a model computes. `reference` is the oracle: plain loops in double precision, slow and exact.
struct Device {
  enum class Kind : uint8_t { kCpu, kReference, kCuda };
  Kind kind = Kind::kCpu;
  int index = 0;  ///< Which GPU; 0 elsewhere.

  friend bool operator==(const Device&, const Device&) = default;
};

/// "cpu", "reference", "cuda:0".
std::string name_of(const Device& device);

/// Parses "cpu", "reference", "cuda" or "cuda:N". Throws Error{kInvalidArgument} naming what was met.
Device parse_device(std::string_view name);

/// Id of a token in a model's vocabulary.
using TokenId = int32_t;

}  // namespace minillm
