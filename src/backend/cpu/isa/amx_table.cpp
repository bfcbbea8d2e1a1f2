// amx_table.cpp - the kernels of processors with AMX: those of AVX-512 VNNI, and products of many rows on tiles of bf16.
#include "backend/cpu/isa/amx_tables.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

Kernels make_table() {
  Kernels table = avx512_vnni::kernels();
  add_tile_rows(table);
  add_tile_unpacking(table);
  add_tile_products(table);
  return table;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels table = make_table();
  return table;
}

}  // namespace minillm::cpu::MINILLM_ISA
