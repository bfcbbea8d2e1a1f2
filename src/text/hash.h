// hash.h - one fast hash for the text layer's tables. Not keyed: a collision costs compares, never a wrong answer.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace minillm {

/// Multiply, then fold the high half in: every input bit reaches the low bits.
inline uint64_t mix_bits(uint64_t x) noexcept {
  x *= 0x9E3779B97F4A7C15u;
  return x ^ (x >> 32);
}

inline uint64_t hash_bytes(std::string_view bytes) noexcept {
  uint64_t hash = bytes.size();
  const char* at = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; at += 8, left -= 8) {
    uint64_t word = 0;
    std::memcpy(&word, at, 8);
    hash = mix_bits(hash ^ word);
  }
  uint64_t word = 0;
  for (size_t i = 0; i < left; ++i) word = (word << 8) | static_cast<uint8_t>(at[i]);
  return mix_bits(mix_bits(hash ^ word));
}

}  // namespace minillm
