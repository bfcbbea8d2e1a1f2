// amx_config.h - how the tile registers are used by every kernel on them: eight tiles of 16 rows of 64 bytes.
#pragma once

#include <cstdint>

#ifndef MINILLM_ISA
#define MINILLM_ISA amx  // Only so that the header compiles alone.
#endif

namespace minillm::cpu::MINILLM_ISA {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);
inline constexpr TileConfig kTileConfig;

/// Not _tile_loadconfig: GCC 12 tells its optimiser that only 8 of the 64 bytes are read.
[[gnu::always_inline]] static inline void configure_tiles() { asm volatile("ldtilecfg %0" : : "m"(kTileConfig)); }

}  // namespace minillm::cpu::MINILLM_ISA
