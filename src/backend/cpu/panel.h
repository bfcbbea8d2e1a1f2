// panel.h - how packed weights lie in memory: 16 rows side by side, so that one vector load serves 16 outputs and nothing is
// summed across lanes. Every instruction set reads this one layout.
//
//   panel   = 16 consecutive rows over the whole K (missing rows are zeros): its blocks in order of k.
//   block   = [header] [unit] ... : one unit for the formats of 32, a header and 8 units for those of 256.
//   unit    = 32 values of k: [codes] [upper bits] [scales].
//   codes   4-bit part, 256 bytes: byte 64 j + 4 r + i = code(r, 8 j + i) | code(r, 8 j + 4 + i) << 4     (r row, i < 4, j < 4)
//           q8_0, 512 bytes: byte 64 q + 4 r + i = code(r, 4 q + i)                                          (q < 8)
//   upper   5-bit formats, 64 bytes: bit q of byte 4 r + i = bit 4 of code(r, 4 q + i)
//           q6_k, 128 bytes: bits 2 q, 2 q + 1 of byte 64 v + 4 r + i = bits 4, 5 of code(r, 16 v + 4 q + i)  (v < 2, q < 4)
//   scales  q4_0 q5_0 q8_0: d f16[16];  q4_1 q5_1: d f16[16], m f16[16];  q4_k q5_k: s u8[16], m u8[16];  q6_k: s i8[2][16]
//   header  q4_k q5_k: d f16[16], dmin f16[16];  q6_k: d f16[16]
// Floats: f32 [K][16], f16 and bf16 [K][16] as stored.
// Codes are unsigned and four values of k adjacent because vpdpbusd multiplies 4 unsigned by 4 signed bytes a lane.
#pragma once

#include <cstdint>

#include "minillm/types.h"

namespace minillm::cpu {

inline constexpr int kPanelRows = 16;
inline constexpr int kUnit = 32;  ///< Values of k that share an activation scale.

struct PanelFormat {
  int units;       ///< Units a block.
  int header;      ///< Bytes.
  int codes;       ///< Bytes of codes in a unit; the upper bits follow.
  int upper;       ///< Bytes of upper bits.
  int unit_bytes;  ///< Codes, upper bits, scales.
  constexpr int block_bytes() const { return header + units * unit_bytes; }
};

/// The layout of a block format; all zeros for other types.
constexpr PanelFormat panel_format(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::kQ4_0:
      return {1, 0, 256, 0, 288};
    case Dtype::kQ4_1:
      return {1, 0, 256, 0, 320};
    case Dtype::kQ5_0:
      return {1, 0, 256, 64, 352};
    case Dtype::kQ5_1:
      return {1, 0, 256, 64, 384};
    case Dtype::kQ8_0:
      return {1, 0, 512, 0, 544};
    case Dtype::kQ4_K:
      return {8, 64, 256, 0, 288};
    case Dtype::kQ5_K:
      return {8, 64, 256, 64, 352};
    case Dtype::kQ6_K:
      return {8, 32, 256, 128, 416};
    case Dtype::kF32:
    case Dtype::kF16:
    case Dtype::kBF16:
    case Dtype::kI32:
    case Dtype::kF8:
      break;
  }
  return {};
}

}  // namespace minillm::cpu
