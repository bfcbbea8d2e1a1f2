// half.h - IEEE 754 binary16, bfloat16 and the 8-bit E4M3 as storage types: exact widening, narrowing to nearest even.
// Source of E4M3: Micikevicius et al. 2022, arXiv:2209.05433 (no infinities; all ones behind the sign is NaN).
// Not for files compiled per instruction set: those widen with their own instructions.
#pragma once

#include <bit>
#include <cstdint>

namespace minillm {

/// Exact for every input; a NaN stays a NaN.
inline float half_to_float(uint16_t h) noexcept {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 0x1Fu, mantissa = h & 0x3FFu;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // Subnormal: exact in float32.
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

/// To nearest, ties to even; above 65504 + half a step becomes infinity; NaN stays NaN.
inline uint16_t float_to_half(float f) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);
  if (magnitude < 0x38800000u) {  // Below 2^-14: the sum's unit in the last place is 2^-24, so the adder rounds for us.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3F000000u));
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xFFFu + odd) >> 13));
}

inline float bfloat16_to_float(uint16_t b) noexcept { return std::bit_cast<float>(static_cast<uint32_t>(b) << 16); }

/// To nearest, ties to even; NaN stays NaN.
inline uint16_t float_to_bfloat16(float f) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

/// Exact; a NaN stays a NaN.
inline float f8_to_float(uint8_t x) noexcept {
  const uint32_t sign = static_cast<uint32_t>(x & 0x80u) << 24, magnitude = x & 0x7Fu;
  if (magnitude == 0x7Fu) return std::bit_cast<float>(sign | 0x7FC00000u);
  if (magnitude >= 8u) return std::bit_cast<float>(sign | ((magnitude << 20) + (120u << 23)));
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-9f));
}

/// To nearest, ties to even; what is above 448, infinity too, becomes 448; NaN stays NaN.
inline uint8_t float_to_f8(float f) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(f), sign = (bits >> 24) & 0x80u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint8_t>(sign | 0x7Fu);
  if (magnitude >= 0x43E00000u) return static_cast<uint8_t>(sign | 0x7Eu);
  if (magnitude < 0x3C800000u)  // Below 2^-6: the sum's unit in the last place is 2^-9, so the adder rounds for us.
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 16384.0f) - 0x46800000u));
  return static_cast<uint8_t>(sign | ((magnitude - (120u << 23) + 0x7FFFFu + ((magnitude >> 20) & 1u)) >> 20));
}

}  // namespace minillm
