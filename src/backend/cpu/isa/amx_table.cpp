// amx_table.cpp - the kernels of processors with AMX: those of AVX-512 VNNI, and products of many rows on tiles of bf16.
#include "backend/cpu/kernels.h"

namespace minillm::cpu::MINILLM_ISA {

const Kernels& kernels() {
  static const Kernels table = avx512_vnni::kernels();
  return table;
}

}  // namespace minillm::cpu::MINILLM_ISA
