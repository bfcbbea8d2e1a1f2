// strips.h - where a row's activations lie (kernels.h, QuantisedRows).
#pragma once

#include "backend/cpu/isa/vec.h"
#include "backend/cpu/kernels.h"

namespace minillm::cpu::MINILLM_ISA {

/// The place of row t's unit 0 in a [S, U, R]; unit u is R u further, row t + 1 of the same strip is next to it.
MINILLM_INLINE int64_t first_place(int64_t t, int64_t n_units, int64_t strip_rows) {
  return t / strip_rows * n_units * strip_rows + t % strip_rows;
}

/// The low term's step beside the high one's. Products with it are exact: no scale is near the subnormal numbers.
inline constexpr float kLowStep = 0x1p-7f;

/// Whether any of N rows side by side is fine.
template <int N>
MINILLM_INLINE bool any_fine(const uint8_t* fine) {
  static_assert(N <= 8);
  uint64_t bytes = 0;
  __builtin_memcpy(&bytes, fine, N);
  return bytes != 0;
}

}  // namespace minillm::cpu::MINILLM_ISA
