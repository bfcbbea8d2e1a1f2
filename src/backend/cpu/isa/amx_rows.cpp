// amx_rows.cpp - activations as tiles of bfloat16 (kernels.h, RoundedRows).
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

}  // namespace

void add_tile_rows(Kernels& table) { table.round_row = round_row; }

}  // namespace minillm::cpu::MINILLM_ISA
