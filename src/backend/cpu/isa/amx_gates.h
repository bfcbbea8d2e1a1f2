// amx_gates.h - the gates of rows.cpp as the kernels on tiles compute them: no division, and 2^x by scaling a polynomial, which together
// take 21 instructions instead of 30. In float32 and rounded to bfloat16 they are the same.
#pragma once

#include "backend/cpu/isa/vec.h"
#include "backend/cpu/kernels.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

/// by / (1 + e^-x), -x in [-87, 88]. e^-x = 2^(n + f), n the integer below -x log2(e), f what is left of it in two products: 2^f by a
/// minimax polynomial (relative error 2^-23), scaled by n. The estimate of the reciprocal (14 bits) and one step of Newton's give 2^-27.
MINILLM_INLINE Floats times_sigmoid_fast(Floats by, Floats x) {
  constexpr int kDown = 0x09;  // vrndscaleps: to the integer below, without exceptions.
  constexpr float kLog2e = 1.44269504f, kLog2eRest = 1.92596299e-8f;
  const Floats y = min(splat(88.0f), max(splat(-87.0f), sub(zeros(), x)));
  const Floats n = _mm512_roundscale_ps(mul(y, splat(kLog2e)), kDown);
  const Floats f = fma(y, splat(kLog2eRest), _mm512_fmsub_ps(y, splat(kLog2e), n));
  Floats p = splat(0.00186713f);
  p = fma(p, f, splat(0.009017031f));
  p = fma(p, f, splat(0.055799913f));
  p = fma(p, f, splat(0.24016444f));
  p = fma(p, f, splat(0.6931513f));
  p = fma(p, f, splat(1.0f));
  const Floats d = add(splat(1.0f), _mm512_scalef_ps(p, n)), estimate = _mm512_rcp14_ps(d);
  return mul(by, mul(estimate, _mm512_fnmadd_ps(d, estimate, splat(2.0f))));
}

MINILLM_INLINE Floats silu(Floats g) { return times_sigmoid_fast(g, g); }

/// As gate_gelu of rows.cpp.
MINILLM_INLINE Floats gelu(Floats g) {
  constexpr float kTwice = 1.59576912f;  // 2 sqrt(2 / pi)
  return times_sigmoid_fast(g, mul(g, fma(mul(g, g), splat(0.044715f * kTwice), splat(kTwice))));
}

/// act(gate) * up of 16 columns from `column` on, rounded to row t of `to`.
template <Floats (*Activation)(Floats)>
MINILLM_INLINE void put_gated(const float* gate, const float* up, const RoundedRows& to, int64_t t, int64_t column) {
  const Floats value = mul(Activation(load(gate)), load(up));
  uint16_t* const at = to.strip(t / 16) + column / 32 * RoundedRows::kTileValues + t % 16 * 32 + column % 32;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), (__m256i)_mm512_cvtneps_pbh(value));
}

}  // namespace
}  // namespace minillm::cpu::MINILLM_ISA
