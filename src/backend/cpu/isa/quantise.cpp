// quantise.cpp - activations to signed bytes, a scale every 32: high = round(127 x / amax), ties to even. The low term holds the
// rounding error in 1/128 of a step: x = amax / 127 (high + low / 128).
// Coarse: a unit's rounding errors grow with its largest value, and few units of a row hold nearly all of its large values. A unit
//   whose largest value is not above kFine times the root of the mean square of those of its row does without the low term: its
//   errors are small beside what the large units would have. docs/SPEED.md, "Quantised products", has fidelity and cost by kFine.
// Cost: once for each product's input, shared by every weight it meets.
#include "backend/cpu/isa/tables.h"
#include "backend/cpu/isa/vec.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

constexpr int32_t kInfinityBits = 0x7F800000;
constexpr float kSmallest = 1e-30f;  ///< Units below it become zeros: 127 / amax must be finite.

/// A unit is fine where its largest value exceeds kFine times the root of the mean square of those of its row.
constexpr double kFine = 1.0;

/// Codes of 32 steps, and their sums.
void store_term(const ActivationTerm& to, int64_t unit, Ints c0, Ints c1) {
  const ShortCodes codes = narrow(c0, c1);
  store_codes(to.codes + unit * kUnit, codes);
  int32_t sum0, sum1;
  sum_halves(codes, &sum0, &sum1);
  to.negative_sums[unit] = -(sum0 + sum1);
  to.negative_halves[2 * unit] = -sum0;
  to.negative_halves[2 * unit + 1] = -sum1;
}

void quantise_unit(const float* x, const QuantisedRows& to, int64_t unit, float amax, double limit) {
  const bool finite = __builtin_bit_cast(int32_t, amax) < kInfinityBits, usable = finite && amax >= kSmallest;
  const bool fine = static_cast<double>(amax) > limit;
  const Floats inverse = splat(usable ? 127.0f / amax : 0.0f);
  const Floats v0 = usable ? mul(load(x), inverse) : zeros(), v1 = usable ? mul(load(x + 16), inverse) : zeros();
  const Ints h0 = to_ints(v0), h1 = to_ints(v1);
  store_term(to.high, unit, h0, h1);
  const Floats steps = splat(fine ? 128.0f : 0.0f);
  store_term(to.low, unit, to_ints(mul(sub(v0, to_floats(h0)), steps)), to_ints(mul(sub(v1, to_floats(h1)), steps)));
  to.fine[unit] = fine;
  to.scales[unit] = finite ? (usable ? amax * (0x1p-7f / 127.0f) : 0.0f) : __builtin_nanf("");
  to.scaled_sums[unit] = -to.scales[unit] * static_cast<float>(128 * to.high.negative_sums[unit] + to.low.negative_sums[unit]);
}

void quantise_row(const float* x, const QuantisedRows& to, int64_t t) {
  const int64_t n_units = to.k / kUnit;
  float* const largest = to.scales + t * n_units;  // Until the scale takes its place.
  double energy = 0;
  for (int64_t u = 0; u < n_units; ++u) {
    // Bits of positive floats are ordered as they are, NaN last.
    const Ints bits = max(bits_of(abs(load(x + u * kUnit))), bits_of(abs(load(x + u * kUnit + 16))));
    largest[u] = __builtin_bit_cast(float, max_lanes(bits));
    energy += static_cast<double>(largest[u]) * static_cast<double>(largest[u]);
  }
  const double limit = kFine * __builtin_sqrt(energy / static_cast<double>(n_units));
  for (int64_t u = 0; u < n_units; ++u) quantise_unit(x + u * kUnit, to, t * n_units + u, largest[u], limit);
}

}  // namespace

void add_quantise_kernels(Kernels& table) { table.quantise_row = quantise_row; }

}  // namespace minillm::cpu::MINILLM_ISA
