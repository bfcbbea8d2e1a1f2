// amx_unpack.cpp - two panels unpacked with nothing beside it: the first of a run (amx_unpack.h).
#include "backend/cpu/isa/amx_unpack.h"

#include "backend/cpu/isa/amx_tables.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

template <Dtype D>
void unpack_tiles(const UnpackTask& task) {
  for (Unpacking<D> unpacking(task); unpacking.left() > 0;) unpacking.step();
}

template <Dtype... D>
void add_formats(Kernels& table) {
  ((table.unpack_tiles[static_cast<int>(D)] = unpack_tiles<D>), ...);
}

}  // namespace

void add_tile_unpacking(Kernels& table) { add_formats<MINILLM_TILE_FORMATS>(table); }

}  // namespace minillm::cpu::MINILLM_ISA
