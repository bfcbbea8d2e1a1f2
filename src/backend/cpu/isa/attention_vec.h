// attention_vec.h - the few vector operations that attention needs, for the instruction set this file is compiled for.
// Vec holds kWidth floats. Every function is internal to its file and always inlined: the linker must never keep a copy
// made for one instruction set to serve another (cmake/isa.cmake).
// Products and sums are fused only where fma() says so (the build turns contraction off): on one instruction set the same
// operations give the same bits in every kernel. Without FMA instructions fma() is a product, then a sum.
#pragma once

#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define MINILLM_INLINE inline __attribute__((always_inline))

namespace minillm::cpu {
namespace {

// Elements as they are stored; distinct types choose the conversion.
struct F16 {
  uint16_t bits;
};
struct BF16 {
  uint16_t bits;
};
struct F8 {  ///< E4M3
  uint8_t bits;
};

constexpr float kMinusInfinity = -__builtin_inff();

MINILLM_INLINE float as_float(uint32_t bits) {
  float f;
  __builtin_memcpy(&f, &bits, sizeof f);
  return f;
}
MINILLM_INLINE uint32_t as_bits(float f) {
  uint32_t bits;
  __builtin_memcpy(&bits, &f, sizeof bits);
  return bits;
}
/// To nearest even; too large, infinity too, becomes 448; NaN stays NaN.
MINILLM_INLINE uint8_t narrow_one(float f, F8*) {
  const uint32_t bits = as_bits(f), sign = (bits >> 24) & 0x80u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint8_t>(sign | 0x7Fu);
  if (magnitude >= 0x43E00000u) return static_cast<uint8_t>(sign | 0x7Eu);
  if (magnitude < 0x3C800000u)  // Below 2^-6: 16384 has a unit in the last place of 2^-9, so the adder rounds.
    return static_cast<uint8_t>(sign | (as_bits(as_float(magnitude) + 16384.0f) - 0x46800000u));
  return static_cast<uint8_t>(sign | ((magnitude - 0x3C000000u + 0x7FFFFu + ((magnitude >> 20) & 1u)) >> 20));
}

#if defined(__AVX512F__)

constexpr int kWidth = 16;
using Vec = __m512;

MINILLM_INLINE Vec zero() { return _mm512_setzero_ps(); }
MINILLM_INLINE Vec broadcast(float x) { return _mm512_set1_ps(x); }
MINILLM_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
MINILLM_INLINE Vec load(const F16* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
MINILLM_INLINE Vec load(const BF16* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
/// As a half of 1/256 of its size, whose conversion knows subnormals whatever the processor's mode; all ones is NaN.
MINILLM_INLINE Vec load(const F8* p) {
  const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i magnitude = _mm256_and_si256(wide, _mm256_set1_epi16(0x7F)), sign = _mm256_slli_epi16(_mm256_xor_si256(wide, magnitude), 8);
  const __m256i nan = _mm256_and_si256(_mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x7F)), _mm256_set1_epi16(0x7E00));
  const __m256i half = _mm256_or_si256(_mm256_or_si256(_mm256_slli_epi16(magnitude, 7), sign), nan);
  return _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0f));
}
MINILLM_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a); }
MINILLM_INLINE void store(F16* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
MINILLM_INLINE void store(BF16* p, Vec a) {  // To nearest even; NaN stays NaN (made quiet).
  const __m512i bits = _mm512_castps_si512(a);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
  const __m512i kept = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16)));
}
MINILLM_INLINE Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
MINILLM_INLINE Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
MINILLM_INLINE Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
MINILLM_INLINE Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
MINILLM_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
/// The larger; b where either is NaN.
MINILLM_INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
MINILLM_INLINE Vec abs(Vec a) { return _mm512_abs_ps(a); }
MINILLM_INLINE Vec copy_sign(Vec magnitude, Vec sign) {
  const __m512i bits =
      _mm512_ternarylogic_epi32(_mm512_set1_epi32(INT32_MIN), _mm512_castps_si512(sign), _mm512_castps_si512(magnitude), 0xCA);
  return _mm512_castsi512_ps(bits);
}
/// a minus the integer below; 0 for an infinity.
MINILLM_INLINE Vec fraction(Vec a) { return _mm512_reduce_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
/// x < bound ? below : other; a NaN in x takes `other`.
MINILLM_INLINE Vec select_below(Vec x, Vec bound, Vec below, Vec other) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, bound, _CMP_LT_OQ), other, below);
}
MINILLM_INLINE Vec lane_indices() { return _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }
MINILLM_INLINE float largest(Vec a) { return _mm512_reduce_max_ps(a); }
MINILLM_INLINE __m512 max_of_lanes(__m512 a, __m512 b) { return _mm512_max_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); }
MINILLM_INLINE __m512 max_of_pairs(__m512d a, __m512d b) {
  return _mm512_max_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
}
MINILLM_INLINE __m512 max_of_quarters(__m512 a, __m512 b) {
  return _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
}
/// out[r] = the largest of rows[r][0 .. kWidth) for 16 rows: halves the lanes of two rows at a time, 45 instructions in all.
MINILLM_INLINE void row_maxima(const float* rows, float* out) {
  const auto four = [rows](int r) __attribute__((always_inline)) {  // Lane i of each quarter: row r + i.
    const __m512 a = max_of_lanes(load(rows + r * 16), load(rows + (r + 1) * 16));
    const __m512 b = max_of_lanes(load(rows + (r + 2) * 16), load(rows + (r + 3) * 16));
    return max_of_pairs(_mm512_castps_pd(a), _mm512_castps_pd(b));
  };
  store(out, max_of_quarters(max_of_quarters(four(0), four(4)), max_of_quarters(four(8), four(12))));
}
/// a[0] + ... + a[15]: lanes i and i + 8 first, then i and i + 4, 2, 1.
MINILLM_INLINE float sum_tree(const float* a) {
  const __m256 b = _mm256_add_ps(_mm256_loadu_ps(a), _mm256_loadu_ps(a + 8));
  __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  c = _mm_add_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
/// a[0], b[0], a[1], b[1], ...: the first half and the second.
MINILLM_INLINE Vec interleave_first(Vec a, Vec b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
MINILLM_INLINE Vec interleave_last(Vec a, Vec b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
/// a[1], a[0], a[3], a[2], ...
MINILLM_INLINE Vec swap_neighbours(Vec a) { return __builtin_shufflevector(a, a, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14); }

#elif defined(__AVX2__)

constexpr int kWidth = 8;
using Vec = __m256;

MINILLM_INLINE Vec zero() { return _mm256_setzero_ps(); }
MINILLM_INLINE Vec broadcast(float x) { return _mm256_set1_ps(x); }
MINILLM_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
MINILLM_INLINE Vec load(const F16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
MINILLM_INLINE Vec load(const BF16* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
/// As a half of 1/256 of its size, whose conversion knows subnormals whatever the processor's mode; all ones is NaN.
MINILLM_INLINE Vec load(const F8* p) {
  const __m128i wide = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const __m128i magnitude = _mm_and_si128(wide, _mm_set1_epi16(0x7F)), sign = _mm_slli_epi16(_mm_xor_si128(wide, magnitude), 8);
  const __m128i nan = _mm_and_si128(_mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7F)), _mm_set1_epi16(0x7E00));
  const __m128i half = _mm_or_si128(_mm_or_si128(_mm_slli_epi16(magnitude, 7), sign), nan);
  return _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0f));
}
MINILLM_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a); }
MINILLM_INLINE void store(F16* p, Vec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
MINILLM_INLINE void store(BF16* p, Vec a) {  // To nearest even; NaN stays NaN (made quiet).
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  const __m256i kept = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(kept, kept), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
MINILLM_INLINE Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
MINILLM_INLINE Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
MINILLM_INLINE Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
MINILLM_INLINE Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
MINILLM_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
/// The larger; b where either is NaN.
MINILLM_INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
MINILLM_INLINE Vec abs(Vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
MINILLM_INLINE Vec copy_sign(Vec magnitude, Vec sign) {
  const Vec bit = _mm256_set1_ps(-0.0f);
  return _mm256_or_ps(_mm256_andnot_ps(bit, magnitude), _mm256_and_ps(bit, sign));
}
MINILLM_INLINE Vec round(Vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/// a 2^n for integer n from -126 to 0 and a in [0.7, 1.5].
MINILLM_INLINE Vec scale_by_power(Vec a, Vec n) {
  const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(a, _mm256_castsi256_ps(exponent));
}
/// x < bound ? below : other; a NaN in x takes `other`.
MINILLM_INLINE Vec select_below(Vec x, Vec bound, Vec below, Vec other) {
  return _mm256_blendv_ps(other, below, _mm256_cmp_ps(x, bound, _CMP_LT_OQ));
}
MINILLM_INLINE Vec lane_indices() { return _mm256_set_ps(7, 6, 5, 4, 3, 2, 1, 0); }
MINILLM_INLINE float largest(Vec a) {
  __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}
/// a[0] + ... + a[15]: lanes i and i + 8 first, then i and i + 4, 2, 1.
MINILLM_INLINE float sum_tree(const float* a) {
  const Vec b = add(load(a), load(a + 8));
  __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  c = _mm_add_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
/// a[0], b[0], a[1], b[1], ...: the first half and the second.
MINILLM_INLINE Vec interleave_first(Vec a, Vec b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
MINILLM_INLINE Vec interleave_last(Vec a, Vec b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
/// a[1], a[0], a[3], a[2], ...
MINILLM_INLINE Vec swap_neighbours(Vec a) { return __builtin_shufflevector(a, a, 1, 0, 3, 2, 5, 4, 7, 6); }

#else  // Any CPU: the vector types of GCC and clang, four wide.

constexpr int kWidth = 4;
typedef float Vec __attribute__((vector_size(16)));
typedef int32_t IntVec __attribute__((vector_size(16)));

MINILLM_INLINE Vec zero() { return Vec{0, 0, 0, 0}; }
MINILLM_INLINE Vec broadcast(float x) { return Vec{x, x, x, x}; }
/// Exact; a subnormal half is a normal float, so flushing subnormals does not matter.
MINILLM_INLINE float widen_one(F16 h) {
  const uint32_t sign = static_cast<uint32_t>(h.bits & 0x8000u) << 16, exponent = (h.bits >> 10) & 0x1Fu, mantissa = h.bits & 0x3FFu;
  if (exponent == 0x1F) return as_float(sign | 0x7F800000u | (mantissa << 13));
  if (exponent != 0) return as_float(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  return as_float(sign | as_bits(static_cast<float>(mantissa) * 0x1p-24f));
}
MINILLM_INLINE float widen_one(F8 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x80u) << 24, magnitude = x.bits & 0x7Fu;
  if (magnitude == 0x7Fu) return as_float(sign | 0x7FC00000u);
  if (magnitude >= 8u) return as_float(sign | ((magnitude << 20) + 0x3C000000u));
  return as_float(sign | as_bits(static_cast<float>(magnitude) * 0x1p-9f));
}
MINILLM_INLINE float widen_one(BF16 b) { return as_float(static_cast<uint32_t>(b.bits) << 16); }
/// To nearest even; too large becomes infinity; NaN stays NaN.
MINILLM_INLINE uint16_t narrow_one(float f, F16*) {
  const uint32_t bits = as_bits(f), magnitude = bits & 0x7FFFFFFFu;
  const uint32_t sign = (bits >> 16) & 0x8000u;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u | ((magnitude >> 13) & 0x3FFu));
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);
  if (magnitude < 0x38800000u)  // Below 2^-14: 0.5 has a unit in the last place of 2^-24, so the adder rounds.
    return static_cast<uint16_t>(sign | (as_bits(as_float(magnitude) + 0.5f) - 0x3F000000u));
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13));
}
MINILLM_INLINE uint16_t narrow_one(float f, BF16*) {
  const uint32_t bits = as_bits(f);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}
MINILLM_INLINE Vec load(const float* p) { return Vec{p[0], p[1], p[2], p[3]}; }
template <typename T>
MINILLM_INLINE Vec load(const T* p) {
  return Vec{widen_one(p[0]), widen_one(p[1]), widen_one(p[2]), widen_one(p[3])};
}
MINILLM_INLINE void store(float* p, Vec a) { __builtin_memcpy(p, &a, sizeof a); }
template <typename T>
MINILLM_INLINE void store(T* p, Vec a) {
  for (int i = 0; i < kWidth; ++i) p[i].bits = narrow_one(a[i], p);
}
MINILLM_INLINE Vec add(Vec a, Vec b) { return a + b; }
MINILLM_INLINE Vec sub(Vec a, Vec b) { return a - b; }
MINILLM_INLINE Vec mul(Vec a, Vec b) { return a * b; }
MINILLM_INLINE Vec div(Vec a, Vec b) { return a / b; }
MINILLM_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
MINILLM_INLINE Vec select(IntVec mask, Vec yes, Vec no) { return (Vec)((mask & (IntVec)yes) | (~mask & (IntVec)no)); }
/// The larger; b where either is NaN.
MINILLM_INLINE Vec max(Vec a, Vec b) { return select((IntVec)(a > b), a, b); }
MINILLM_INLINE Vec abs(Vec a) { return (Vec)((IntVec)a & INT32_MAX); }
MINILLM_INLINE Vec copy_sign(Vec magnitude, Vec sign) { return (Vec)(((IntVec)magnitude & INT32_MAX) | ((IntVec)sign & INT32_MIN)); }
MINILLM_INLINE Vec round(Vec a) {  // For |a| < 2^22: adding 1.5 * 2^23 leaves no fraction bits.
  const Vec shift = broadcast(12582912.0f);
  return (a + shift) - shift;
}
/// a 2^n for integer n from -126 to 0 and a in [0.7, 1.5].
MINILLM_INLINE Vec scale_by_power(Vec a, Vec n) {
  const IntVec exponent = ((IntVec)(n + broadcast(12582912.0f + 127.0f))) << 23;  // The low bits of the sum are n + 127.
  return a * (Vec)exponent;
}
/// x < bound ? below : other; a NaN in x takes `other`.
MINILLM_INLINE Vec select_below(Vec x, Vec bound, Vec below, Vec other) { return select((IntVec)(x < bound), below, other); }
MINILLM_INLINE Vec lane_indices() { return Vec{0, 1, 2, 3}; }
/// a[0] + ... + a[15]: lanes i and i + 8 first, then i and i + 4, 2, 1.
MINILLM_INLINE float sum_tree(const float* a) {
  const Vec b = add(add(load(a), load(a + 8)), add(load(a + 4), load(a + 12)));
  return (b[0] + b[2]) + (b[1] + b[3]);
}
MINILLM_INLINE float largest(Vec a) {
  float m = a[0];
  for (int i = 1; i < kWidth; ++i) m = a[i] > m ? a[i] : m;
  return m;
}
/// a[0], b[0], a[1], b[1], ...: the first half and the second.
MINILLM_INLINE Vec interleave_first(Vec a, Vec b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
MINILLM_INLINE Vec interleave_last(Vec a, Vec b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
/// a[1], a[0], a[3], a[2], ...
MINILLM_INLINE Vec swap_neighbours(Vec a) { return __builtin_shufflevector(a, a, 1, 0, 3, 2); }

#endif

MINILLM_INLINE void store(F8* p, Vec a) {
  float values[kWidth];
  store(values, a);
  for (int i = 0; i < kWidth; ++i) p[i].bits = narrow_one(values[i], p);
}

#if !defined(__AVX512F__)
/// out[r] = the largest of rows[r][0 .. kWidth) for 16 rows.
MINILLM_INLINE void row_maxima(const float* rows, float* out) {
  for (int r = 0; r < 16; ++r) out[r] = largest(load(rows + r * kWidth));
}
#endif

}  // namespace
}  // namespace minillm::cpu
