// attention_math.h - 2^x and tanh on vectors, and the unrolled loops that register tiles are written with.
#pragma once

#include <utility>

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/isa/attention_vec.h"

namespace minillm::cpu {
namespace {

constexpr int kVecsPerPanel = static_cast<int>(kKeyPanel) / kWidth;

template <typename F, int... I>
MINILLM_INLINE void unroll_over(F&& f, std::integer_sequence<int, I...>) {
  (f(std::integral_constant<int, I>{}), ...);
}
/// f(0), ..., f(N - 1) with constant arguments. A loop over an array of accumulators would be kept in memory by GCC 12.
template <int N, typename F>
MINILLM_INLINE void unroll(F&& f) {
  unroll_over(static_cast<F&&>(f), std::make_integer_sequence<int, N>{});
}

/// Asks for `Bytes` (a multiple of 64) from `at` on; any address will do.
template <int Bytes>
MINILLM_INLINE void prefetch(const char* at) {
  unroll<Bytes / 64>([&](auto line) __attribute__((always_inline)) { __builtin_prefetch(at + line * 64, 0, 2); });
}

/// 2^f by a minimax polynomial of degree 6: relative error 2e-9 before rounding, exactly 1 at 0.
MINILLM_INLINE Vec exp2_fraction(Vec f) {
#if defined(__AVX512F__)  // For 0 <= f <= 1.
  constexpr float kTerms[] = {0.00021613652643281966f, 0.0012467628112062812f, 0.009675475768744946f,
                              0.05548526719212532f,    0.2402293086051941f,    0.6931470632553101f};
#else  // For |f| <= 1/2.
  constexpr float kTerms[] = {0.00015353361959569156f, 0.0013398875016719103f, 0.00961843691766262f,
                              0.055503323674201965f,   0.24022647738456726f,   0.6931471824645996f};
#endif
  Vec p = broadcast(kTerms[0]);
  unroll<5>([&](auto i) __attribute__((always_inline)) { p = fma(p, f, broadcast(kTerms[i + 1])); });
  return fma(p, f, broadcast(1.0f));
}

/// 2^x for x <= 0 (or a rounding error above), within 1.5 ulp (attention_exp_test.cpp); exactly 1 at 0; 0 below -126 where
/// subnormals are flushed, as they are wherever attention runs (thread_pool.h). x = n + f with integer n.
MINILLM_INLINE Vec exp2_nonpositive(Vec x) {
#if defined(__AVX512F__)
  return _mm512_scalef_ps(exp2_fraction(fraction(x)), x);  // It rounds x down itself; at -inf the fraction is 0 and the result, too.
#else
  const Vec lowest = broadcast(-126.0f);
  const Vec clamped = max(lowest, x);  // In this order a NaN stays a NaN.
  const Vec n = round(clamped);
  return select_below(x, lowest, zero(), scale_by_power(exp2_fraction(sub(clamped, n)), n));
#endif
}

/// tanh(x). Near 0 an odd polynomial (relative error 4e-9 before rounding up to 0.625), elsewhere (1 - e) / (1 + e) with e = exp(-2 |x|).
MINILLM_INLINE Vec tanh(Vec x) {
  const Vec size = abs(x), square = mul(x, x);
  Vec p = broadcast(-0.005704984534531832f);
  p = fma(p, square, broadcast(0.0206390842795372f));
  p = fma(p, square, broadcast(-0.05373971536755562f));
  p = fma(p, square, broadcast(0.13331441581249237f));
  p = fma(p, square, broadcast(-0.3333328068256378f));
  const Vec near = fma(mul(p, square), x, x);
  const Vec e = exp2_nonpositive(mul(size, broadcast(-2.8853900817779268f)));  // -2 log2(e)
  const Vec far = copy_sign(div(sub(broadcast(1.0f), e), add(broadcast(1.0f), e)), x);
  return select_below(size, broadcast(0.625f), near, far);
}

}  // namespace
}  // namespace minillm::cpu
