// amx_rows.cpp - activations as tiles of bfloat16 (kernels.h, RoundedRows), and the gates that make them.
// Gates: those of rows.cpp but for the division, which would take as long as everything else in them; in float32 and rounded they are the
// same.
#include "backend/cpu/isa/amx_tables.h"
#include "backend/cpu/isa/functions.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

/// To nearest, ties to even; subnormal numbers become zeros, which is what the products would take them for.
void round_row(const float* x, int64_t k, const RoundedRows& to, int64_t t) {
  uint16_t* at = to.strip(t / 16) + t % 16 * 32;
  int64_t i = 0;
  for (; i + 32 <= k; i += 32, at += RoundedRows::kTileValues)
    _mm512_storeu_si512(at, (__m512i)_mm512_cvtne2ps_pbh(load(x + i + 16), load(x + i)));
  if (i == k) return;
  const Floats lower = k - i >= 16 ? load(x + i) : load_first(x + i, k - i);
  const Floats upper = k - i > 16 ? load_first(x + i + 16, k - i - 16) : zeros();
  _mm512_storeu_si512(at, (__m512i)_mm512_cvtne2ps_pbh(upper, lower));
}

/// by / (1 + e^-x): the estimate of the reciprocal (14 bits) and one step of Newton's give 2^-27.
MINILLM_INLINE Floats times_sigmoid_fast(Floats by, Floats x) {
  const Floats d = add(splat(1.0f), exp_of(sub(zeros(), x))), estimate = _mm512_rcp14_ps(d);
  return mul(by, mul(estimate, _mm512_fnmadd_ps(d, estimate, splat(2.0f))));
}

MINILLM_INLINE Floats silu(Floats g) { return times_sigmoid_fast(g, g); }

/// As gate_gelu of rows.cpp.
MINILLM_INLINE Floats gelu(Floats g) {
  constexpr float kTwice = 1.59576912f;  // 2 sqrt(2 / pi)
  return times_sigmoid_fast(g, mul(g, fma(mul(g, g), splat(0.044715f * kTwice), splat(kTwice))));
}

template <Floats (*Activation)(Floats)>
void gate_row(float* out, const float* gate, const float* up, int64_t n) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(out + i, mul(Activation(load(gate + i)), load(up + i)));
  if (i < n) store_first(out + i, mul(Activation(load_first(gate + i, n - i)), load_first(up + i, n - i)), n - i);
}

template <Floats (*Activation)(Floats)>
void gate_rounded(const GateTask& task, const RoundedRows& to) {
  const float *gate = task.gate, *up = task.up;
  for (int64_t t = task.row; t < task.row + task.n_rows; ++t, gate += task.stride, up += task.stride) {
    const Floats value = mul(Activation(load(gate)), load(up));
    uint16_t* const at = to.strip(t / 16) + task.column / 32 * RoundedRows::kTileValues + t % 16 * 32 + task.column % 32;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), (__m256i)_mm512_cvtneps_pbh(value));
  }
}

}  // namespace

void add_tile_rows(Kernels& table) {
  table.round_row = round_row;
  table.gate_silu = gate_row<silu>;
  table.gate_gelu = gate_row<gelu>;
  table.gate_silu_rounded = gate_rounded<silu>;
  table.gate_gelu_rounded = gate_rounded<gelu>;
}

}  // namespace minillm::cpu::MINILLM_ISA
