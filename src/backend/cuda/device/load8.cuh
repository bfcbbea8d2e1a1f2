// load8.cuh - eight neighbouring elements of a weight's row as float32, exactly as their format defines them.
#pragma once

#include "backend/cuda/device/element.cuh"
#include "backend/cuda/fragment.h"
#include "backend/cuda/operations.h"

namespace minillm::cuda {

__device__ __forceinline__ float scale_at(const void* scales, bool half, int64_t i) {
  return half ? __half2float(static_cast<const __half*>(scales)[i]) : static_cast<const float*>(scales)[i];
}

/// Elements [k, k + 8) of a row. k is a multiple of 8, so they share a scale.
template <DeviceTensor::Codes kCodes>
__device__ __forceinline__ void load8(float (&w)[8], const DeviceTensor& t, int64_t row, int64_t k) {
  using Codes = DeviceTensor::Codes;
  const int64_t at = row * t.stride + k;
  if constexpr (kCodes == Codes::kF32) {
    const float4 a = *reinterpret_cast<const float4*>(static_cast<const float*>(t.data) + at);
    const float4 b = *reinterpret_cast<const float4*>(static_cast<const float*>(t.data) + at + 4);
    w[0] = a.x, w[1] = a.y, w[2] = a.z, w[3] = a.w, w[4] = b.x, w[5] = b.y, w[6] = b.z, w[7] = b.w;
  } else if constexpr (kCodes == Codes::kF16 || kCodes == Codes::kBF16) {
    const uint4 raw = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(t.data) + at);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint16_t bits = static_cast<uint16_t>(words[i / 2] >> (16 * (i % 2)));
      w[i] = kCodes == Codes::kF16 ? __half2float(__ushort_as_half(bits)) : __uint_as_float(static_cast<uint32_t>(bits) << 16);
    }
  } else {
    const int64_t n_units = t.stride / kUnitColumns, g = scale_index(row, k, n_units, t.group);
    const float scale = scale_at(t.scale, t.half_scales, g), offset = t.offset == nullptr ? -0.0f : scale_at(t.offset, t.half_scales, g);
    uint32_t words[2];
    if constexpr (kCodes == Codes::kNibbles) {
      words[0] = words[1] = static_cast<const uint32_t*>(t.data)[nibble_word(row, k, n_units)];
    } else {
      words[0] = static_cast<const uint32_t*>(t.data)[code_byte(row, k, n_units) / 4];
      words[1] = static_cast<const uint32_t*>(t.data)[code_byte(row, k + 4, n_units) / 4];
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t code = kCodes == Codes::kNibbles ? words[0] >> (4 * i) & 15u : words[i / 4] >> (8 * (i % 4)) & 255u;
      w[i] = __fadd_rn(__fmul_rn(scale, static_cast<float>(code) - t.zero), offset);  // As the formats define it: two roundings.
    }
  }
}

/// Calls f.template operator()<codes>() for the tensor's codes.
template <typename F>
void visit_codes(DeviceTensor::Codes codes, F&& f) {
  using Codes = DeviceTensor::Codes;
  switch (codes) {
    case Codes::kF32:
      return f.template operator()<Codes::kF32>();
    case Codes::kF16:
      return f.template operator()<Codes::kF16>();
    case Codes::kBF16:
      return f.template operator()<Codes::kBF16>();
    case Codes::kNibbles:
      return f.template operator()<Codes::kNibbles>();
    case Codes::kBytes:
      return f.template operator()<Codes::kBytes>();
  }
}

}  // namespace minillm::cuda
