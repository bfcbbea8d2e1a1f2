// quant_block.cpp - the bit layouts of quant_block.h.
#include "base/quant_block.h"

#include <cstring>

#include "base/half.h"
#include "minillm/error.h"

namespace minillm {
namespace {

uint16_t read_u16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | (p[1] << 8)); }
uint32_t read_u32(const uint8_t* p) { return read_u16(p) | (static_cast<uint32_t>(read_u16(p + 2)) << 16); }

/// Low nibbles of `n` bytes, then their high nibbles.
void split_nibbles(const uint8_t* bytes, int n, uint8_t* codes) {
  for (int i = 0; i < n; ++i) {
    codes[i] = bytes[i] & 15;
    codes[i + n] = static_cast<uint8_t>(bytes[i] >> 4);
  }
}

void add_fifth_bits(uint32_t bits, QuantBlock& block) {
  for (size_t i = 0; i < 32; ++i) block.codes[i] = static_cast<uint8_t>(block.codes[i] | (((bits >> i) & 1u) << 4));
}

/// 6-bit scales and mins: four of each in the low six bits of bytes 0..3 and 4..7; the other four have their low nibbles
/// in bytes 8..11 and their top two bits above those of the first eight.
void read_six_bit_scales(const uint8_t* p, QuantBlock& block) {
  for (size_t i = 0; i < 4; ++i) {
    block.scales[i] = static_cast<int8_t>(p[i] & 63);
    block.mins[i] = p[i + 4] & 63;
    block.scales[i + 4] = static_cast<int8_t>((p[i + 8] & 15) | ((p[i] >> 6) << 4));
    block.mins[i + 4] = static_cast<uint8_t>((p[i + 8] >> 4) | ((p[i + 4] >> 6) << 4));
  }
}

/// Four runs of 32 bytes, each 32 low nibbles then 32 high ones.
void read_k_nibbles(const uint8_t* p, QuantBlock& block) {
  for (size_t run = 0; run < 4; ++run) split_nibbles(p + 32 * run, 32, block.codes.data() + 64 * run);
}

void read_q6_k(const uint8_t* p, QuantBlock& block) {
  const uint8_t *low = p, *high = p + 128;
  for (size_t half = 0; half < 2; ++half, low += 64, high += 32) {
    uint8_t* codes = block.codes.data() + 128 * half;
    for (size_t i = 0; i < 32; ++i) {
      codes[i] = static_cast<uint8_t>((low[i] & 15) | ((high[i] & 3) << 4));
      codes[i + 32] = static_cast<uint8_t>((low[i + 32] & 15) | (((high[i] >> 2) & 3) << 4));
      codes[i + 64] = static_cast<uint8_t>((low[i] >> 4) | (((high[i] >> 4) & 3) << 4));
      codes[i + 96] = static_cast<uint8_t>((low[i + 32] >> 4) | ((high[i] >> 6) << 4));
    }
  }
  std::memcpy(block.scales.data(), p + 192, 16);
  block.d = read_u16(p + 208);
}

}  // namespace

QuantFormat quant_format(Dtype dtype) {
  switch (dtype) {
    case Dtype::kQ4_0:
      return {4, 8, 32, false, false};
    case Dtype::kQ4_1:
      return {4, 0, 32, true, false};
    case Dtype::kQ5_0:
      return {5, 16, 32, false, false};
    case Dtype::kQ5_1:
      return {5, 0, 32, true, false};
    case Dtype::kQ8_0:
      return {8, 128, 32, false, false};
    case Dtype::kQ4_K:
      return {4, 0, 32, true, true};
    case Dtype::kQ5_K:
      return {5, 0, 32, true, true};
    case Dtype::kQ6_K:
      return {6, 32, 16, false, true};
    case Dtype::kF32:
    case Dtype::kF16:
    case Dtype::kBF16:
    case Dtype::kI32:
    case Dtype::kF8:
      break;
  }
  throw Error(ErrorCode::kInvalidArgument, name_of(dtype), " is not a block format");
}

void read_block(Dtype dtype, const uint8_t* p, QuantBlock& block) {
  block.d = read_u16(p);
  switch (dtype) {
    case Dtype::kQ4_0:
      return split_nibbles(p + 2, 16, block.codes.data());
    case Dtype::kQ4_1:
      block.m = read_u16(p + 2);
      return split_nibbles(p + 4, 16, block.codes.data());
    case Dtype::kQ5_0:
      split_nibbles(p + 6, 16, block.codes.data());
      return add_fifth_bits(read_u32(p + 2), block);
    case Dtype::kQ5_1:
      block.m = read_u16(p + 2);
      split_nibbles(p + 8, 16, block.codes.data());
      return add_fifth_bits(read_u32(p + 4), block);
    case Dtype::kQ8_0:
      for (size_t i = 0; i < 32; ++i) block.codes[i] = p[2 + i] ^ 0x80;
      return;
    case Dtype::kQ4_K:
      block.m = read_u16(p + 2);
      read_six_bit_scales(p + 4, block);
      return read_k_nibbles(p + 16, block);
    case Dtype::kQ5_K:
      block.m = read_u16(p + 2);
      read_six_bit_scales(p + 4, block);
      read_k_nibbles(p + 48, block);
      for (size_t i = 0; i < 256; ++i)  // Bit g of byte i % 32 belongs to group g.
        block.codes[i] = static_cast<uint8_t>(block.codes[i] | (((p[16 + i % 32] >> (i / 32)) & 1) << 4));
      return;
    case Dtype::kQ6_K:
      return read_q6_k(p, block);
    case Dtype::kF32:
    case Dtype::kF16:
    case Dtype::kBF16:
    case Dtype::kI32:
    case Dtype::kF8:
      break;
  }
  throw Error(ErrorCode::kInvalidArgument, name_of(dtype), " is not a block format");
}

float group_scale(const QuantFormat& format, const QuantBlock& block, int g) noexcept {
  const float d = half_to_float(block.d);
  return format.has_group_scales ? d * static_cast<float>(block.scales[static_cast<size_t>(g)]) : d;
}

float group_offset(const QuantFormat& format, const QuantBlock& block, int g) noexcept {
  if (!format.has_offset) return -0.0f;
  const float m = half_to_float(block.m);
  return format.has_group_scales ? -(m * static_cast<float>(block.mins[static_cast<size_t>(g)])) : m;
}

}  // namespace minillm
