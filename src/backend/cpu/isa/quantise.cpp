// quantise.cpp - activations to signed bytes, a scale every 32: code = round(127 x / amax), ties to even.
// A second term holds the rounding error in 1/128 of a step: x = amax / 127 (code + low / 128).
// Cost: once for each product's input, shared by every weight it meets.
#include "backend/cpu/isa/tables.h"
#include "backend/cpu/isa/vec.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

constexpr int32_t kInfinityBits = 0x7F800000;
constexpr float kSmallest = 1e-30f;  ///< Units below it become zeros: 127 / amax must be finite.

void quantise_row(const float* x, const QuantisedRows& to, int64_t t) {
  const int64_t n_units = to.k / kUnit;
  for (int64_t u = 0; u < n_units; ++u) {
    const int64_t unit = t * n_units + u, at = t * to.k + u * kUnit;
    const Floats x0 = load(x + u * kUnit), x1 = load(x + u * kUnit + 16);
    const Ints a0 = bits_of(abs(x0)), a1 = bits_of(abs(x1));
    const int32_t bits = max_lanes(max(a0, a1));  // Bits of positive floats are ordered as they are, NaN last.
    const float amax = __builtin_bit_cast(float, bits);
    const bool usable = bits < kInfinityBits && amax >= kSmallest;
    const float inverse = usable ? 127.0f / amax : 0.0f;
    float scale = usable ? amax * (1.0f / 127.0f) : 0.0f;
    if (bits >= kInfinityBits) scale = __builtin_nanf("");

    const Floats v0 = usable ? mul(x0, splat(inverse)) : zeros(), v1 = usable ? mul(x1, splat(inverse)) : zeros();
    const Ints c0 = to_ints(v0), c1 = to_ints(v1);
    const ShortCodes codes = narrow(c0, c1);
    store_codes(to.codes + at, codes);
    int32_t sum0, sum1;
    sum_halves(codes, &sum0, &sum1);
    if (to.low != nullptr) {
      const Ints l0 = to_ints(mul(sub(v0, to_floats(c0)), splat(128.0f))), l1 = to_ints(mul(sub(v1, to_floats(c1)), splat(128.0f)));
      const ShortCodes low = narrow(l0, l1);
      store_codes(to.low + at, low);
      int32_t low0, low1;
      sum_halves(low, &low0, &low1);
      sum0 = 128 * sum0 + low0;
      sum1 = 128 * sum1 + low1;
      scale *= 0x1p-7f;
    }
    to.scales[unit] = scale;
    to.scaled_sums[unit] = scale * static_cast<float>(sum0 + sum1);
    to.negative_sums[unit] = -(sum0 + sum1);
    to.negative_halves[2 * unit] = -sum0;
    to.negative_halves[2 * unit + 1] = -sum1;
  }
}

}  // namespace

void add_quantise_kernels(Kernels& table) { table.quantise_row = quantise_row; }

}  // namespace minillm::cpu::MINILLM_ISA
