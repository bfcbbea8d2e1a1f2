// quant_block.h - one block of a quantised row, taken apart: the only place that knows where the file formats keep which bit.
// Every format reads as   weight = scale[g] * (code - zero) + offset[g],   g = index / group:
//   format  block  bytes in order                                                     code bits  zero  group  scale      offset
//   q4_0     32    d f16, 16 x (code i | code i+16 << 4)                                  4        8     32    d          -
//   q4_1     32    d f16, m f16, as q4_0                                                  4        0     32    d          m
//   q5_0     32    d f16, u32 fifth bits, as q4_0                                         5       16     32    d          -
//   q5_1     32    d f16, m f16, u32 fifth bits, as q4_0                                  5        0     32    d          m
//   q8_0     32    d f16, 32 x i8                                                         8      128     32    d          -
//   q4_k    256    d f16, dmin f16, 12 bytes of 6-bit s[8] m[8], 128 nibbles              4        0     32    d s[g]     -dmin m[g]
//   q5_k    256    d f16, dmin f16, 12 bytes as q4_k, 32 fifth bits, 128 nibbles          5        0     32    d s[g]     -dmin m[g]
//   q6_k    256    128 nibbles, 64 x four 2-bit tops, i8 s[16], d f16                     6       32     16    d s[g]     -
// Source: GGUF specification and the block structs of ggml. A signed q8_0 code is stored here plus 128.
#pragma once

#include <array>
#include <cstdint>

#include "minillm/types.h"

namespace minillm {

struct QuantBlock {
  std::array<uint8_t, 256> codes;  ///< In element order; only the block's own are written.
  uint16_t d = 0, m = 0;           ///< float16 bits of d, and of m or dmin.
  std::array<int8_t, 16> scales;   ///< s[g] of the 256-element formats.
  std::array<uint8_t, 8> mins;     ///< m[g] of q4_k and q5_k.
};

/// What a format adds to the codes; see the table above.
struct QuantFormat {
  int code_bits = 0;
  int zero = 0;
  int group = 32;           ///< Elements that share a scale.
  bool has_offset = false;  ///< An offset a group.
  bool has_group_scales = false;
};

/// Throws Error{kInvalidArgument} for a dtype that is not a block format.
QuantFormat quant_format(Dtype dtype);

/// Takes apart the block at `bytes`, which holds block_bytes(dtype).
void read_block(Dtype dtype, const uint8_t* bytes, QuantBlock& block);

/// scale[g] and offset[g] in float32, rounded as the formats define them: one product each.
float group_scale(const QuantFormat& format, const QuantBlock& block, int g) noexcept;
/// -0 where the format has none, so that adding it changes nothing.
float group_offset(const QuantFormat& format, const QuantBlock& block, int g) noexcept;

}  // namespace minillm
