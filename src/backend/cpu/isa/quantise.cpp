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

/// Where a unit goes: its place in a [S, U, R], and that of its first half in a [S, U, 2, R].
struct Place {
  int64_t unit, half;
};

void store_sums(const QuantisedRows& to, const ActivationTerm& term, Place at, int32_t sum0, int32_t sum1) {
  if (to.has_sums) term.negative_sums[at.unit] = -(sum0 + sum1);
  if (to.has_halves) {
    term.negative_halves[at.half] = -sum0;
    term.negative_halves[at.half + to.strip_rows] = -sum1;
  }
}

/// Codes of 32 steps, and their sums; returns the sum of all.
int32_t store_term(const QuantisedRows& to, const ActivationTerm& term, Place at, Ints c0, Ints c1) {
  const ShortCodes codes = narrow(c0, c1);
  store_codes(term.codes + at.unit * kUnit, codes);
  int32_t sum0, sum1;
  sum_halves(codes, &sum0, &sum1);
  store_sums(to, term, at, sum0, sum1);
  return sum0 + sum1;
}

/// Zeros, written only where something else is: most are there since an earlier step, and a line that is not written need not be
/// taken from the other cores that have read it.
void store_no_low_term(const QuantisedRows& to, Place at) {
  int8_t* const codes = to.low.codes + at.unit * kUnit;
  uint64_t parts[kUnit / 8];
  __builtin_memcpy(parts, codes, kUnit);
  if ((parts[0] | parts[1] | parts[2] | parts[3]) != 0) __builtin_memset(codes, 0, kUnit);
  store_sums(to, to.low, at, 0, 0);
}

void quantise_unit(const float* x, const QuantisedRows& to, Place at, float amax, double limit) {
  const bool finite = __builtin_bit_cast(int32_t, amax) < kInfinityBits, usable = finite && amax >= kSmallest;
  const bool fine = usable && static_cast<double>(amax) > limit;
  const Floats inverse = splat(usable ? 127.0f / amax : 0.0f);
  const Floats v0 = usable ? mul(load(x), inverse) : zeros(), v1 = usable ? mul(load(x + 16), inverse) : zeros();
  const Ints h0 = to_ints(v0), h1 = to_ints(v1);
  int32_t sum = 128 * store_term(to, to.high, at, h0, h1);
  if (fine) {
    const Floats steps = splat(128.0f);
    sum += store_term(to, to.low, at, to_ints(mul(sub(v0, to_floats(h0)), steps)), to_ints(mul(sub(v1, to_floats(h1)), steps)));
  } else {
    store_no_low_term(to, at);
  }
  const float scale = finite ? (usable ? amax * (1.0f / 127.0f) : 0.0f) : __builtin_nanf("");
  to.fine[at.unit] = fine;
  to.scales[at.unit] = scale;
  to.scaled_sums[at.unit] = scale * kLowStep * static_cast<float>(sum);
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
    quantise_unit(x + u * kUnit, to, {at + step, first_half + 2 * step}, largest[step], limit);
  }
}

}  // namespace

void add_quantise_kernels(Kernels& table) { table.quantise_row = quantise_row; }

}  // namespace minillm::cpu::MINILLM_ISA
