// table.cpp - the table of this instruction set.
#include "backend/cpu/isa/tables.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

Kernels make_table() {
  Kernels table;
  add_row_kernels(table);
  add_quantise_kernels(table);
  add_gemv_kernels(table);
  add_gemm_kernels(table);
  add_gemm_packed_kernels(table);
  add_float_kernels(table);
  add_probes(table);
  return table;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels table = make_table();
  return table;
}

}  // namespace minillm::cpu::MINILLM_ISA
