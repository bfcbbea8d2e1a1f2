// dequantise.cpp - weight = scale (code - zero) + offset, or a widening of 16-bit and 8-bit floats.
#include "base/dequantise.h"

#include <algorithm>
#include <cstring>

#include "base/dtype.h"
#include "base/half.h"
#include "base/quant_block.h"
#include "minillm/error.h"

namespace minillm {
namespace {

template <typename Widen>
void widen_row(const uint8_t* row, float* out, int64_t n, Widen widen) {
  for (int64_t i = 0; i < n; ++i) {
    uint16_t bits;  // The row may lie at any address.
    std::memcpy(&bits, row + 2 * i, sizeof bits);
    out[i] = widen(bits);
  }
}

}  // namespace

void dequantise_row(Dtype dtype, const void* row, float* out, int64_t n) {
  const size_t bytes = row_bytes(dtype, n);  // Checks n.
  const uint8_t* at = static_cast<const uint8_t*>(row);
  if (n == 0) return;
  if (dtype == Dtype::kI32) throw Error(ErrorCode::kUnsupported, "dequantise: i32 holds no weights");
  if (dtype == Dtype::kF32) {
    std::memcpy(out, row, bytes);
    return;
  }
  if (dtype == Dtype::kF16) return widen_row(at, out, n, half_to_float);
  if (dtype == Dtype::kBF16) return widen_row(at, out, n, bfloat16_to_float);
  if (dtype == Dtype::kF8) return static_cast<void>(std::transform(at, at + n, out, f8_to_float));

  const QuantFormat format = quant_format(dtype);
  const int64_t block_size = block_elements(dtype);
  QuantBlock block;
  for (; n > 0; n -= block_size, at += block_bytes(dtype)) {
    read_block(dtype, at, block);
    for (int i = 0; i < block_size; i += format.group) {
      const float scale = group_scale(format, block, i / format.group), offset = group_offset(format, block, i / format.group);
      for (int j = i; j < i + format.group; ++j)
        *out++ = scale * static_cast<float>(block.codes[static_cast<size_t>(j)] - format.zero) + offset;
    }
  }
}

void narrow_row(Dtype dtype, void* row, const float* from, int64_t n) {
  if (!is_cache_dtype(dtype)) throw Error(ErrorCode::kUnsupported, "narrow_row: ", name_of(dtype), ": expected ", kCacheDtypes);
  auto* to = static_cast<std::byte*>(row);
  if (dtype == Dtype::kF32) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    if (dtype == Dtype::kF8) {
      to[i] = std::byte{float_to_f8(from[i])};
    } else {
      const uint16_t bits = dtype == Dtype::kF16 ? float_to_half(from[i]) : float_to_bfloat16(from[i]);
      std::memcpy(to + 2 * i, &bits, sizeof bits);
    }
  }
}

}  // namespace minillm
