// amx_tables.h - each file of tile kernels puts its own into the table.
#pragma once

#include "backend/cpu/isa/vec.h"
#include "backend/cpu/kernels.h"

namespace minillm::cpu::MINILLM_ISA {

void add_tile_rows(Kernels& table);
void add_tile_unpacking(Kernels& table);
void add_tile_products(Kernels& table);

/// Quarter i of 8 n: those of the first panel, then those of the second.
MINILLM_INLINE void unpack_one(const UnpackTask& task, int64_t i) {
  const int64_t panel = i >= 4 * task.n ? 1 : 0;
  task.unpack[panel](task.panels[panel], 4 * (task.first - panel * task.n) + i, task.k, task.ahead,
                     task.to + i * RoundedRows::kTileValues / 4);
}

}  // namespace minillm::cpu::MINILLM_ISA
