// vec_avx2.h - vec.h on pairs of ymm registers (AVX2, FMA, F16C), with or without the int8 dot product of AVX-VNNI.
#pragma once

#include <immintrin.h>

namespace minillm::cpu::MINILLM_ISA {

struct Floats {
  __m256 a, b;
};
struct Ints {
  __m256i a, b;
};
struct Bytes {
  __m256i a, b;
};

inline constexpr int kGemvPanels = 2;
inline constexpr int kTilePanels = 1;
#ifdef MINILLM_ISA_avx_vnni
inline constexpr int kTileTokens = 4;
inline constexpr bool kDotsInShorts = false;
inline constexpr bool kWideIsSigned = false;
#else
inline constexpr int kTileTokens = 2;
inline constexpr bool kDotsInShorts = true;  // A dot sums in 16 bits before it is widened.
inline constexpr bool kWideIsSigned = true;  // add_wide_products multiplies code - 128.
#endif
inline constexpr int kHalvesTileTokens = 2;
inline constexpr bool kFewRegisters = true;  // 16, and two of them for 16 lanes.
inline constexpr int kPackedPanels = 0;      // Too few registers: no gemm_packed.
inline constexpr int kProbeChains = 3;
inline constexpr int kFloatTileTokens = 6;

MINILLM_INLINE Floats zeros() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
MINILLM_INLINE Floats splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
MINILLM_INLINE Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
MINILLM_INLINE void store(float* p, Floats v) {
  _mm256_storeu_ps(p, v.a);
  _mm256_storeu_ps(p + 8, v.b);
}
/// The first n < 16 lanes; the others are zero.
MINILLM_INLINE Floats load_first(const float* p, int64_t n) {
  float lanes[16] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
MINILLM_INLINE void store_first(float* p, Floats v, int64_t n) {
  float lanes[16];
  store(lanes, v);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}
MINILLM_INLINE Floats load_half(const void* p) {
  const __m128i* at = static_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at + 1))};
}
MINILLM_INLINE Floats load_bfloat16(const void* p) {
  const __m128i* at = static_cast<const __m128i*>(p);
  const __m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128(at)), b = _mm256_cvtepu16_epi32(_mm_loadu_si128(at + 1));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}
MINILLM_INLINE __m128i load_8_bytes(const uint8_t* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); }
MINILLM_INLINE Floats load_u8(const uint8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_8_bytes(p))), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_8_bytes(p + 8)))};
}
MINILLM_INLINE Floats load_i8(const uint8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_8_bytes(p))), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_8_bytes(p + 8)))};
}

MINILLM_INLINE Floats add(Floats x, Floats y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
MINILLM_INLINE Floats sub(Floats x, Floats y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
MINILLM_INLINE Floats mul(Floats x, Floats y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
MINILLM_INLINE Floats div(Floats x, Floats y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
MINILLM_INLINE Floats fma(Floats x, Floats y, Floats z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
/// y where x or y is NaN, as the instruction does: clamp with the constant first.
MINILLM_INLINE Floats max(Floats x, Floats y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
MINILLM_INLINE Floats min(Floats x, Floats y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
MINILLM_INLINE Floats abs(Floats x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
MINILLM_INLINE Floats select_less(Floats x, Floats y, Floats if_less, Floats otherwise) {
  return {_mm256_blendv_ps(otherwise.a, if_less.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
          _mm256_blendv_ps(otherwise.b, if_less.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
}
MINILLM_INLINE float sum_lanes(Floats x) {
  const __m256 eight = _mm256_add_ps(x.a, x.b);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
MINILLM_INLINE float square_root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

MINILLM_INLINE Ints splat_int(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
MINILLM_INLINE Ints add(Ints x, Ints y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
MINILLM_INLINE Ints max(Ints x, Ints y) { return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)}; }
MINILLM_INLINE Ints shift_left(Ints x, int n) {
  const __m128i count = _mm_cvtsi32_si128(n);
  return {_mm256_sll_epi32(x.a, count), _mm256_sll_epi32(x.b, count)};
}
MINILLM_INLINE Ints bits_of(Floats x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
MINILLM_INLINE Floats from_bits(Ints x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
MINILLM_INLINE Floats to_floats(Ints x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
/// To nearest, ties to even; INT_MIN where it does not fit.
MINILLM_INLINE Ints to_ints(Floats x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
MINILLM_INLINE int32_t sum_lanes(Ints x) {
  const __m256i eight = _mm256_add_epi32(x.a, x.b);
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return _mm_cvtsi128_si32(two) + _mm_extract_epi32(two, 1);
}
MINILLM_INLINE int32_t max_lanes(Ints x) {
  const __m256i eight = _mm256_max_epi32(x.a, x.b);
  const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_max_epi32(four, _mm_unpackhi_epi64(four, four));
  const int32_t x0 = _mm_cvtsi128_si32(two), x1 = _mm_extract_epi32(two, 1);
  return x0 > x1 ? x0 : x1;
}
/// The 32 values of two vectors as signed bytes; they must fit.
using ShortCodes = __m256i;
MINILLM_INLINE ShortCodes narrow(Ints x, Ints y) {
  const __m256i words_x = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xD8);
  const __m256i words_y = _mm256_permute4x64_epi64(_mm256_packs_epi32(y.a, y.b), 0xD8);
  return _mm256_permute4x64_epi64(_mm256_packs_epi16(words_x, words_y), 0xD8);
}
MINILLM_INLINE void store_codes(int8_t* p, ShortCodes codes) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), codes); }
/// Sums of the first and of the last 16.
MINILLM_INLINE void sum_halves(ShortCodes codes, int32_t* first, int32_t* last) {
  __m256i sums = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), codes), _mm256_set1_epi16(1));
  sums = _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0x4E));
  sums = _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0xB1));
  *first = _mm256_cvtsi256_si32(sums);
  *last = _mm_cvtsi128_si32(_mm256_extracti128_si256(sums, 1));
}

MINILLM_INLINE Bytes load_bytes(const uint8_t* p) {
  const __m256i* at = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}
MINILLM_INLINE void store_bytes(uint8_t* p, Bytes v) {
  __m256i* at = reinterpret_cast<__m256i*>(p);
  _mm256_storeu_si256(at, v.a);
  _mm256_storeu_si256(at + 1, v.b);
}
MINILLM_INLINE Bytes splat_byte(int x) { return {_mm256_set1_epi8(static_cast<char>(x)), _mm256_set1_epi8(static_cast<char>(x))}; }
MINILLM_INLINE Bytes bit_and(Bytes x, Bytes y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
MINILLM_INLINE Bytes bit_or(Bytes x, Bytes y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
MINILLM_INLINE Bytes bit_xor(Bytes x, Bytes y) { return {_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)}; }
/// Bits move across byte borders in pairs of bytes: mask afterwards.
template <int N>
MINILLM_INLINE Bytes shift_right(Bytes x) {
  return {_mm256_srli_epi16(x.a, N), _mm256_srli_epi16(x.b, N)};
}
template <int N>
MINILLM_INLINE Bytes shift_left(Bytes x) {
  return {_mm256_slli_epi16(x.a, N), _mm256_slli_epi16(x.b, N)};
}

/// Four adjacent signed codes in every lane.
using FourCodes = __m256i;
MINILLM_INLINE FourCodes four_codes(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}
#ifdef MINILLM_ISA_avx_vnni
/// A dot under way: the sums themselves.
using Dot = Ints;
MINILLM_INLINE Dot begin_dot(Ints sums) { return sums; }
/// Adds the products of four unsigned weights and signed codes a lane.
MINILLM_INLINE Dot add_products(Dot dot, Bytes weights, FourCodes codes) {
  return {_mm256_dpbusd_avx_epi32(dot.a, weights.a, codes), _mm256_dpbusd_avx_epi32(dot.b, weights.b, codes)};
}
MINILLM_INLINE Dot add_wide_products(Dot dot, Bytes weights, FourCodes codes) { return add_products(dot, weights, codes); }
MINILLM_INLINE Ints end_dot(Ints, Dot dot) { return dot; }
/// sums + 128 high + low; `low` was begun with the sums.
MINILLM_INLINE Ints end_dots(Ints, Dot high, Dot low) { return add(shift_left(high, 7), low); }
#else
/// A dot under way: two sums of 16 bits for each lane.
struct Dot {
  __m256i a, b;
};
MINILLM_INLINE Dot begin_dot(Ints) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
/// Adds the products of four unsigned weights and signed codes a lane; how many fit into 16 bits is the caller's business.
MINILLM_INLINE Dot add_products(Dot dot, Bytes weights, FourCodes codes) {
  return {_mm256_add_epi16(dot.a, _mm256_maddubs_epi16(weights.a, codes)), _mm256_add_epi16(dot.b, _mm256_maddubs_epi16(weights.b, codes))};
}
MINILLM_INLINE Ints end_dot(Ints sums, Dot dot) {
  const __m256i ones = _mm256_set1_epi16(1);
  return {_mm256_add_epi32(sums.a, _mm256_madd_epi16(dot.a, ones)), _mm256_add_epi32(sums.b, _mm256_madd_epi16(dot.b, ones))};
}
/// sums + 128 high + low
MINILLM_INLINE Ints end_dots(Ints sums, Dot high, Dot low) {
  const __m256i steps = _mm256_set1_epi16(128);
  sums = {_mm256_add_epi32(sums.a, _mm256_madd_epi16(high.a, steps)), _mm256_add_epi32(sums.b, _mm256_madd_epi16(high.b, steps))};
  return end_dot(sums, low);
}
MINILLM_INLINE __m256i signed_pairs(__m256i weights, __m256i codes) {
  const __m256i w = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
  return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(codes, w));
}
/// The same for 8-bit weights less 128: |w| <= 128 times a code moved to its sign.
MINILLM_INLINE Dot add_wide_products(Dot dot, Bytes weights, FourCodes codes) {
  return {_mm256_add_epi16(dot.a, signed_pairs(weights.a, codes)), _mm256_add_epi16(dot.b, signed_pairs(weights.b, codes))};
}
#endif

}  // namespace minillm::cpu::MINILLM_ISA
