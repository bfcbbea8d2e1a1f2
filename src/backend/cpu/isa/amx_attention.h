// amx_attention.h - what the files of attention on tiles share: the scale of scores and the tile registers' use.
#pragma once

#include "backend/cpu/isa/attention_math.h"
#include "backend/cpu/isa/attention_tables.h"

namespace minillm::cpu::MINILLM_ISA {

inline constexpr int64_t kTileElements = 256;  ///< Floats, or pairs of bfloat16, in a tile.
inline constexpr int64_t kHalfTile = 512;      ///< bfloat16 in a tile.

/// Scores are counted in 256ths of a power of two: with the offset, an unsigned 16-bit number with the exponent of a float in its
/// upper byte and 8 bits of fraction in its lower.
inline constexpr float kScoreScale = 256.0f;
/// A row's reference gets the weight 2^-31, so that weights stay below 2 until a score exceeds it by 32. The 1 rounds (weights_of).
inline constexpr float kReferenceOffset = 96 * kScoreScale + 1;

void add_packing(MatrixKernels& kernels) noexcept;

}  // namespace minillm::cpu::MINILLM_ISA
