// amx_tables.h - each file of tile kernels puts its own into the table.
#pragma once

#include "backend/cpu/isa/vec.h"
#include "backend/cpu/kernels.h"

/// The formats whose products run on tiles: those that bfloat16 does not coarsen more than activations are.
#define MINILLM_TILE_FORMATS \
  Dtype::kQ4_0, Dtype::kQ4_1, Dtype::kQ5_0, Dtype::kQ5_1, Dtype::kQ8_0, Dtype::kQ4_K, Dtype::kQ5_K, Dtype::kQ6_K, Dtype::kF16, Dtype::kBF16

namespace minillm::cpu::MINILLM_ISA {

void add_tile_rows(Kernels& table);
void add_tile_unpacking(Kernels& table);
void add_tile_products(Kernels& table);

}  // namespace minillm::cpu::MINILLM_ISA
