// functions.h - exp and tanh on 16 lanes.
#pragma once

#include "backend/cpu/isa/vec.h"

namespace minillm::cpu::MINILLM_ISA {

/// e^x within 2 units in the last place for x in [-87, 88], clamped there; NaN stays NaN.
/// x = n ln 2 + r with |r| <= ln(2) / 2; e^r by its series to r^7 (the rest is below 2^-27); 2^n by the exponent.
MINILLM_INLINE Floats exp_of(Floats x) {
  constexpr float kLog2e = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;  // High: 9 bits, n * High is exact.
  x = min(splat(88.0f), max(splat(-87.0f), x));
  const Ints n = to_ints(mul(x, splat(kLog2e)));
  const Floats n_float = to_floats(n);
  const Floats r = fma(n_float, splat(-kLn2Low), fma(n_float, splat(-kLn2High), x));
  Floats p = splat(1.0f / 5040.0f);
  p = fma(p, r, splat(1.0f / 720.0f));
  p = fma(p, r, splat(1.0f / 120.0f));
  p = fma(p, r, splat(1.0f / 24.0f));
  p = fma(p, r, splat(1.0f / 6.0f));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r, splat(1.0f));
  p = fma(p, r, splat(1.0f));
  return mul(p, from_bits(shift_left(add(n, splat_int(127)), 23)));
}

/// 1 / (1 + e^-x) times `by`.
MINILLM_INLINE Floats times_sigmoid(Floats by, Floats x) { return div(by, add(splat(1.0f), exp_of(sub(zeros(), x)))); }

/// tanh x. Below 1/2: x + x^3 P(x^2), P through the Chebyshev nodes (relative error 2e-9 before rounding); else (1 - e^-2|x|) / (1 +
/// e^-2|x|).
MINILLM_INLINE Floats tanh_of(Floats x) {
  const Floats size = abs(x), one = splat(1.0f);
  const Floats e = exp_of(mul(size, splat(-2.0f)));
  const Floats magnitude = div(sub(one, e), add(one, e));
  const Floats large = select_less(x, zeros(), sub(zeros(), magnitude), magnitude);
  const Floats z = mul(x, x);
  Floats p = splat(-0.0069429418f);
  p = fma(p, z, splat(0.021470683f));
  p = fma(p, z, splat(-0.053933468f));
  p = fma(p, z, splat(0.13333225f));
  p = fma(p, z, splat(-0.33333331f));
  return select_less(size, splat(0.5f), fma(mul(mul(p, z), x), one, x), large);
}

}  // namespace minillm::cpu::MINILLM_ISA
