// quantise.cpp - activations to signed bytes, a scale every 32: high = round(127 x / amax), ties to even. The low term holds the
// rounding error in 1/128 of a step: x = amax / 127 (high + low / 128).
// Coarse: a unit's rounding errors grow with its largest value, and few units of a row hold nearly all of its large values. A unit
//   whose largest value is not above kFineAbove times the root of the mean square of those of its row does without the low term: its
//   errors are small beside what the large units would have. docs/SPEED.md, "Quantised products", has fidelity and cost by kFineAbove.
// Cost: once for each product's input, shared by every weight it meets.
#include "backend/cpu/isa/strips.h"
#include "backend/cpu/isa/tables.h"
#include "backend/cpu/isa/vec.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

constexpr int32_t kInfinityBits = 0x7F800000;
constexpr float kSmallest = 1e-26f;  ///< Units below it become zeros: 127 / amax must be finite, scales far from subnormal.

/// Codes of 32 steps, and their sums. `at` is the unit's place in a [S, U, R], `first_half` in a [S, U, 2, R].
void store_term(const ActivationTerm& to, int64_t at, int64_t first_half, int64_t half_step, Ints c0, Ints c1) {
  const ShortCodes codes = narrow(c0, c1);
  store_codes(to.codes + at * kUnit, codes);
  int32_t sum0, sum1;
  sum_halves(codes, &sum0, &sum1);
  to.negative_sums[at] = -(sum0 + sum1);
  to.negative_halves[first_half] = -sum0;
  to.negative_halves[first_half + half_step] = -sum1;
}

void quantise_unit(const float* x, const QuantisedRows& to, int64_t at, int64_t first_half, float amax, double limit) {
  const bool finite = __builtin_bit_cast(int32_t, amax) < kInfinityBits, usable = finite && amax >= kSmallest;
  const bool fine = static_cast<double>(amax) > limit;
  const Floats inverse = splat(usable ? 127.0f / amax : 0.0f);
  const Floats v0 = usable ? mul(load(x), inverse) : zeros(), v1 = usable ? mul(load(x + 16), inverse) : zeros();
  const Ints h0 = to_ints(v0), h1 = to_ints(v1);
  store_term(to.high, at, first_half, to.strip_rows, h0, h1);
  const Floats steps = splat(fine ? 128.0f : 0.0f);
  store_term(to.low, at, first_half, to.strip_rows, to_ints(mul(sub(v0, to_floats(h0)), steps)),
             to_ints(mul(sub(v1, to_floats(h1)), steps)));
  to.fine[at] = fine;
  to.scales[at] = finite ? (usable ? amax * (1.0f / 127.0f) : 0.0f) : __builtin_nanf("");
  to.scaled_sums[at] = -to.scales[at] * 0x1p-7f * static_cast<float>(128 * to.high.negative_sums[at] + to.low.negative_sums[at]);
}

void quantise_row(const float* x, const QuantisedRows& to, int64_t t) {
  const int64_t n_units = to.k / kUnit;
  const int64_t at = first_place(t, n_units, to.strip_rows), first_half = first_place(t, 2 * n_units, to.strip_rows);
  float* const largest = to.scales + at;  // Until the scale takes its place.
  double energy = 0;
  for (int64_t u = 0; u < n_units; ++u) {
    // Bits of positive floats are ordered as they are, NaN last.
    const Ints bits = max(bits_of(abs(load(x + u * kUnit))), bits_of(abs(load(x + u * kUnit + 16))));
    const float amax = __builtin_bit_cast(float, max_lanes(bits));
    largest[to.strip_rows * u] = amax;
    energy += static_cast<double>(amax) * static_cast<double>(amax);
  }
  const double limit = kFineAbove * __builtin_sqrt(energy / static_cast<double>(n_units));
  for (int64_t u = 0; u < n_units; ++u) {
    const int64_t step = to.strip_rows * u;
    quantise_unit(x + u * kUnit, to, at + step, first_half + 2 * step, largest[step], limit);
  }
}

}  // namespace

void add_quantise_kernels(Kernels& table) { table.quantise_row = quantise_row; }

}  // namespace minillm::cpu::MINILLM_ISA
