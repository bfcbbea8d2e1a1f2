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

/// What gemv fetches while it reads panels that end at `end`: what lies kFetchAhead further, and near the end the beginning of what is
/// read next, so that no group of panels begins at the latency of memory. Into L2: fetches into L1 wait for its few line buffers.
class FetchAhead {
 public:
  MINILLM_MEMBER FetchAhead(const uint8_t* end, const uint8_t* next)
      : near_end_(end - kFetchAhead), to_next_((next != nullptr ? next - end : 0) + kFetchAhead) {}
  /// From `at`, in the first of the panels, to what is fetched beside it.
  MINILLM_MEMBER int64_t distance(const uint8_t* at) const { return at < near_end_ ? kFetchAhead : to_next_; }
  MINILLM_MEMBER static void fetch(const uint8_t* p) { __builtin_prefetch(p, 0, 2); }

 private:
  static constexpr int64_t kFetchAhead = 3072;  ///< Bytes a panel.
  const uint8_t* near_end_;
  int64_t to_next_;
};

/// Whether any of N rows side by side is fine.
template <int N>
MINILLM_INLINE bool any_fine(const uint8_t* fine) {
  static_assert(N <= 8);
  uint64_t bytes = 0;
  __builtin_memcpy(&bytes, fine, N);
  return bytes != 0;
}

}  // namespace minillm::cpu::MINILLM_ISA
