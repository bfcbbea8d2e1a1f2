// amx_rows.cpp - activations as tiles of bfloat16 (kernels.h, RoundedRows), and the gates that make them (amx_gates.h).
#include "backend/cpu/isa/amx_gates.h"
#include "backend/cpu/isa/amx_tables.h"

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

template <Floats (*Activation)(Floats)>
void gate_row(float* out, const float* gate, const float* up, int64_t n) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(out + i, mul(Activation(load(gate + i)), load(up + i)));
  if (i < n) store_first(out + i, mul(Activation(load_first(gate + i, n - i)), load_first(up + i, n - i)), n - i);
}

template <Floats (*Activation)(Floats)>
void gate_rounded(const GateTask& task, const RoundedRows& to) {
  const float *gate = task.gate, *up = task.up;
  for (int64_t t = task.row; t < task.row + task.n_rows; ++t, gate += task.stride, up += task.stride)
    put_gated<Activation>(gate, up, to, t, task.column);
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
