// vec_avx512.h - vec.h on zmm registers (AVX-512 F, BW, DQ, VL, VNNI).
#pragma once

#include <immintrin.h>

namespace minillm::cpu::MINILLM_ISA {

using Floats = __m512;
using Ints = __m512i;
using Bytes = __m512i;

inline constexpr int kGemvPanels = 4;  // Streams of weights at once: docs/SPEED.md.
inline constexpr int kTilePanels = 3;  // Rows of a register tile in panels, and tokens.
inline constexpr int kTileTokens = 4;
inline constexpr int kHalvesTileTokens = 4;
inline constexpr bool kFewRegisters = false;
inline constexpr bool kDotsInShorts = false;
inline constexpr int kPackedPanels = 2;  // The same for a few tokens and packed weights: gemm_packed.cpp.
inline constexpr int kProbeChains = 12;
inline constexpr int kFloatTileTokens = 8;
inline constexpr bool kWideIsSigned = false;  // add_wide_products multiplies code, not code - 128.

MINILLM_INLINE Floats zeros() { return _mm512_setzero_ps(); }
MINILLM_INLINE Floats splat(float x) { return _mm512_set1_ps(x); }
MINILLM_INLINE Floats load(const float* p) { return _mm512_loadu_ps(p); }
MINILLM_INLINE void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
MINILLM_INLINE __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
/// The first n < 16 lanes; the others are zero.
MINILLM_INLINE Floats load_first(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
MINILLM_INLINE void store_first(float* p, Floats v, int64_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
MINILLM_INLINE Floats load_half(const void* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p))); }
MINILLM_INLINE Floats load_bfloat16(const void* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
MINILLM_INLINE Floats load_u8(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
MINILLM_INLINE Floats load_i8(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

MINILLM_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
MINILLM_INLINE Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
MINILLM_INLINE Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
MINILLM_INLINE Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
MINILLM_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
/// b where a or b is NaN, as the instruction does: clamp with the constant first.
MINILLM_INLINE Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
MINILLM_INLINE Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
MINILLM_INLINE Floats abs(Floats a) { return _mm512_abs_ps(a); }
MINILLM_INLINE Floats select_less(Floats a, Floats b, Floats if_less, Floats otherwise) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), otherwise, if_less);
}
MINILLM_INLINE float sum_lanes(Floats a) { return _mm512_reduce_add_ps(a); }
MINILLM_INLINE float square_root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

MINILLM_INLINE Ints splat_int(int32_t x) { return _mm512_set1_epi32(x); }
MINILLM_INLINE Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
MINILLM_INLINE Ints max(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
MINILLM_INLINE Ints shift_left(Ints a, int n) { return _mm512_sll_epi32(a, _mm_cvtsi32_si128(n)); }
MINILLM_INLINE Ints bits_of(Floats a) { return _mm512_castps_si512(a); }
MINILLM_INLINE Floats from_bits(Ints a) { return _mm512_castsi512_ps(a); }
MINILLM_INLINE Floats to_floats(Ints a) { return _mm512_cvtepi32_ps(a); }
/// To nearest, ties to even; INT_MIN where it does not fit.
MINILLM_INLINE Ints to_ints(Floats a) { return _mm512_cvtps_epi32(a); }
MINILLM_INLINE int32_t sum_lanes(Ints a) { return _mm512_reduce_add_epi32(a); }
MINILLM_INLINE int32_t max_lanes(Ints a) { return _mm512_reduce_max_epi32(a); }
/// The 32 values of two vectors as signed bytes; they must fit.
using ShortCodes = __m256i;
MINILLM_INLINE ShortCodes narrow(Ints a, Ints b) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm512_cvtepi32_epi8(a)), _mm512_cvtepi32_epi8(b), 1);
}
MINILLM_INLINE void store_codes(int8_t* p, ShortCodes codes) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), codes); }
/// Sums of the first and of the last 16.
MINILLM_INLINE void sum_halves(ShortCodes codes, int32_t* first, int32_t* last) {
  __m256i sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), codes);
  sums = _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0x4E));
  sums = _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0xB1));
  *first = _mm256_cvtsi256_si32(sums);
  *last = _mm_cvtsi128_si32(_mm256_extracti128_si256(sums, 1));
}

MINILLM_INLINE Bytes load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
MINILLM_INLINE void store_bytes(uint8_t* p, Bytes v) { _mm512_storeu_si512(p, v); }
MINILLM_INLINE Bytes splat_byte(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }
MINILLM_INLINE Bytes bit_and(Bytes a, Bytes b) { return _mm512_and_si512(a, b); }
MINILLM_INLINE Bytes bit_or(Bytes a, Bytes b) { return _mm512_or_si512(a, b); }
MINILLM_INLINE Bytes bit_xor(Bytes a, Bytes b) { return _mm512_xor_si512(a, b); }
/// Bits move across byte borders in pairs of bytes: mask afterwards.
template <int N>
MINILLM_INLINE Bytes shift_right(Bytes a) {
  return _mm512_srli_epi16(a, N);
}
template <int N>
MINILLM_INLINE Bytes shift_left(Bytes a) {
  return _mm512_slli_epi16(a, N);
}

/// Four adjacent signed codes in every lane.
using FourCodes = __m512i;
MINILLM_INLINE FourCodes four_codes(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}
/// A dot under way: the sums themselves.
using Dot = Ints;
MINILLM_INLINE Dot begin_dot(Ints sums) { return sums; }
/// Adds the products of four unsigned weights and signed codes a lane.
MINILLM_INLINE Dot add_products(Dot dot, Bytes weights, FourCodes codes) { return _mm512_dpbusd_epi32(dot, weights, codes); }
MINILLM_INLINE Dot add_wide_products(Dot dot, Bytes weights, FourCodes codes) { return add_products(dot, weights, codes); }
MINILLM_INLINE Ints end_dot(Ints, Dot dot) { return dot; }
/// sums + 128 high + low; `low` was begun with the sums.
MINILLM_INLINE Ints end_dots(Ints, Dot high, Dot low) { return add(shift_left(high, 7), low); }

}  // namespace minillm::cpu::MINILLM_ISA
