// quantised.h - random rows in the block formats: valid bytes, scales of a sensible size. Not what a quantiser would choose:
// every code and every scale bit is exercised.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "base/dtype.h"
#include "base/half.h"
#include "support/random.h"

namespace minillm::test {

inline constexpr Dtype kBlockFormats[] = {Dtype::kQ4_0, Dtype::kQ4_1, Dtype::kQ5_0, Dtype::kQ5_1,
                                          Dtype::kQ8_0, Dtype::kQ4_K, Dtype::kQ5_K, Dtype::kQ6_K};

/// `n_rows` rows of `k` weights in any type but kI32.
inline std::vector<uint8_t> random_rows(Dtype dtype, uint64_t seed, int64_t n_rows, int64_t k) {
  Random random(seed);
  std::vector<uint8_t> bytes(static_cast<size_t>(n_rows) * row_bytes(dtype, k));
  const auto put_u16 = [&bytes](size_t at, uint16_t value) { std::memcpy(bytes.data() + at, &value, 2); };
  if (!is_quantised(dtype)) {
    for (size_t at = 0; at < bytes.size(); at += block_bytes(dtype)) {
      const float value = static_cast<float>(random.normal());
      if (dtype == Dtype::kF32)
        std::memcpy(bytes.data() + at, &value, 4);
      else
        put_u16(at, dtype == Dtype::kF16 ? float_to_half(value) : float_to_bfloat16(value));
    }
    return bytes;
  }
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.bits());
  const bool has_m = dtype == Dtype::kQ4_1 || dtype == Dtype::kQ5_1 || dtype == Dtype::kQ4_K || dtype == Dtype::kQ5_K;
  for (size_t at = 0; at < bytes.size(); at += block_bytes(dtype)) {
    put_u16(at + (dtype == Dtype::kQ6_K ? 208 : 0), float_to_half(static_cast<float>(0.01 * random.normal())));
    if (has_m) put_u16(at + 2, float_to_half(static_cast<float>(0.05 * random.normal())));
  }
  return bytes;
}

}  // namespace minillm::test
