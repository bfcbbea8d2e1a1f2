// types.cpp - names of element types and devices.
#include "minillm/types.h"

#include <array>
#include <charconv>

#include "minillm/error.h"

namespace minillm {
namespace {

struct Named {
  Dtype dtype;
  std::string_view name, long_name;
};
constexpr std::array<Named, 13> kDtypes{{{Dtype::kF32, "f32", "float32"},
                                         {Dtype::kF16, "f16", "float16"},
                                         {Dtype::kBF16, "bf16", "bfloat16"},
                                         {Dtype::kI32, "i32", "int32"},
                                         {Dtype::kQ4_0, "q4_0", ""},
                                         {Dtype::kQ4_1, "q4_1", ""},
                                         {Dtype::kQ5_0, "q5_0", ""},
                                         {Dtype::kQ5_1, "q5_1", ""},
                                         {Dtype::kQ8_0, "q8_0", ""},
                                         {Dtype::kQ4_K, "q4_k", ""},
                                         {Dtype::kQ5_K, "q5_k", ""},
                                         {Dtype::kQ6_K, "q6_k", ""},
                                         {Dtype::kF8, "f8", "float8_e4m3fn"}}};

}  // namespace

std::string_view name_of(Dtype dtype) noexcept {
  for (const Named& known : kDtypes)
    if (known.dtype == dtype) return known.name;
  return "?";
}

Dtype parse_dtype(std::string_view name) {
  for (const Named& known : kDtypes)
    if (!name.empty() && (name == known.name || name == known.long_name)) return known.dtype;
  std::string accepted;
  for (const Named& known : kDtypes) (accepted += accepted.empty() ? "" : ", ") += known.name;
  throw Error(ErrorCode::kInvalidArgument, "dtype '", name, "': expected one of ", accepted);
}

std::string name_of(const Device& device) {
  switch (device.kind) {
    case Device::Kind::kCpu:
      return "cpu";
    case Device::Kind::kReference:
      return "reference";
    case Device::Kind::kCuda:
      return "cuda:" + std::to_string(device.index);
  }
  return "?";
}

Device parse_device(std::string_view name) {
  if (name == "cpu") return {Device::Kind::kCpu, 0};
  if (name == "reference") return {Device::Kind::kReference, 0};
  if (name == "cuda") return {Device::Kind::kCuda, 0};
  if (name.starts_with("cuda:")) {
    const std::string_view number = name.substr(5);
    int index = -1;
    const auto [end, status] = std::from_chars(number.data(), number.data() + number.size(), index);
    if (status == std::errc() && end == number.data() + number.size() && index >= 0) return {Device::Kind::kCuda, index};
  }
  throw Error(ErrorCode::kInvalidArgument, "device '", name, "': expected cpu, reference, cuda or cuda:N");
}

}  // namespace minillm
