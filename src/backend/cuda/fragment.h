// fragment.h - where the code of weight[row, k] lies: packed weights are stored in the order in which a warp's lanes feed them to
// mma.m16n8k16 as A, so that every load is 16 bytes a lane and 512 bytes a warp, one after the other.
//   tile = 16 rows, unit = 128 columns = 4 chunks of 32. Lane = 4 (row % 8) + t holds 8 elements of a chunk for each half of the tile.
//   nibbles  t = k%32 / 8; one 32-bit word a chunk, lowest nibble first; [tile][unit][half][lane][chunk 0..3]
//   bytes    t = k%16 / 4; bytes 0..3 are k%32 = 4t.., 4..7 are 16 + 4t..; [tile][unit][half][chunk pair][lane][2 chunks][8 bytes]
//   scales   [tile][unit][row of the tile][128 / group]
// Rows are padded to tiles and columns to units, with codes and scales of 0.
#pragma once

#include <cstdint>

#include "backend/cuda_sizes.h"

#if defined(__CUDACC__)
#define MINILLM_HOST_DEVICE __host__ __device__
#else
#define MINILLM_HOST_DEVICE
#endif

namespace minillm::cuda {

/// Index of the 32-bit word that holds elements k to k + 7 (k a multiple of 8).
MINILLM_HOST_DEVICE inline int64_t nibble_word(int64_t row, int64_t k, int64_t n_units) {
  const int64_t at = (row / kTileRows * n_units + k / kUnitColumns) * 2 + row % kTileRows / 8;
  return at * 128 + (row % 8 * 4 + k % 32 / 8) * 4 + k % kUnitColumns / 32;
}

/// Index of the byte of element k.
MINILLM_HOST_DEVICE inline int64_t code_byte(int64_t row, int64_t k, int64_t n_units) {
  const int64_t chunk = k % kUnitColumns / 32, e = k % 32;
  const int64_t at = ((row / kTileRows * n_units + k / kUnitColumns) * 2 + row % kTileRows / 8) * 2 + chunk / 2;
  return at * 512 + (row % 8 * 4 + e % 16 / 4) * 16 + chunk % 2 * 8 + e / 16 * 4 + e % 4;
}

MINILLM_HOST_DEVICE inline int64_t scale_index(int64_t row, int64_t k, int64_t n_units, int group) {
  return ((row / kTileRows * n_units + k / kUnitColumns) * kTileRows + row % kTileRows) * (kUnitColumns / group) + k % kUnitColumns / group;
}

}  // namespace minillm::cuda
