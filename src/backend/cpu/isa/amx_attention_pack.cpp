// amx_attention_pack.cpp - queries, keys and values in bfloat16 as the tile products take them: two elements of the summed
// dimension side by side. Each function also tells the largest magnitude it met, by which the caller knows that all is finite.
// Cost: one conversion and one permutation for 32 elements (float16: three more), once for all rows of a tile.
#include "backend/cpu/isa/amx_attention.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

/// [a0 .. a15 b0 .. b15] to [a0 b0 a1 b1 ...].
MINILLM_INLINE __m512i interleave_halves(__m512i words) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3,
                                         18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, words);
}

/// 32 stored elements as bfloat16, to nearest even.
MINILLM_INLINE __m512i to_bf16(__m512i words, BF16*) { return words; }
MINILLM_INLINE __m512i to_bf16(__m512i words, F16*) {
  const __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(words)), high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(words, 1));
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

MINILLM_INLINE __m512i magnitude(__m512i bf16) { return _mm512_and_si512(bf16, _mm512_set1_epi16(0x7FFF)); }

/// The largest of 32 magnitudes as a float; infinity for a NaN.
MINILLM_INLINE float largest_magnitude(__m512i magnitudes) {
  const __m512i odd = _mm512_srli_epi32(magnitudes, 16), even = _mm512_and_si512(magnitudes, _mm512_set1_epi32(0xFFFF));
  const uint32_t bits = static_cast<uint32_t>(_mm512_reduce_max_epi32(_mm512_max_epi32(odd, even))) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value <= 3.4e38f ? value : __builtin_inff();
}

/// n ones from the lowest bit on, n from 0 to 32.
MINILLM_INLINE __mmask32 low_mask(int64_t n) { return n >= 32 ? 0xFFFFFFFFu : (1u << n) - 1u; }

template <typename Element>
float pack_keys(uint16_t* to, const void* panel, int64_t n_keys, int64_t head_dim) {
  const uint16_t* from = static_cast<const uint16_t*>(panel);
  const __mmask32 one_row = low_mask(n_keys), looked_at = one_row | one_row << kKeyPanel;
  __m512i most = _mm512_setzero_si512();
  int64_t d = 0;
  for (; d < head_dim; d += 2, to += 32) {  // A head's width is even: a pair is one line of the panel.
    const __m512i pair = to_bf16(_mm512_loadu_si512(from + d * kKeyPanel), static_cast<Element*>(nullptr));
    most = _mm512_max_epu16(most, _mm512_maskz_mov_epi16(looked_at, magnitude(pair)));
    _mm512_store_si512(to, interleave_halves(pair));
  }
  for (; d % 32 != 0; d += 2, to += 32) _mm512_store_si512(to, _mm512_setzero_si512());
  return largest_magnitude(most);
}

/// Where the pair `pair` of a tile of 32 keys starts: the order in which weights_of() leaves them.
MINILLM_INLINE int64_t first_key_of_pair(int64_t pair) { return pair / 4 * 4 + pair % 2 * 2 + pair % 4 / 2 * kKeyPanel; }

template <typename Element>
float pack_values(uint16_t* to, const void* const* panels, int64_t stride, int64_t n_keys, int64_t head_dim) {
  __m512i most = _mm512_setzero_si512();
  const int64_t n_tiles = (head_dim + 31) / 32 * 2;
  for (int64_t pair = 0; pair < 16; ++pair) {
    const int64_t key = first_key_of_pair(pair);
    const __mmask32 first = low_mask(key < n_keys ? 16 : 0), second = low_mask(key + 1 < n_keys ? 16 : 0) << 16;
    const uint16_t* row = static_cast<const uint16_t*>(panels[key / kKeyPanel]) + key % kKeyPanel * stride;
    for (int64_t tile = 0; tile < n_tiles; ++tile) {
      const int64_t left = head_dim - tile * 16;
      const __mmask32 columns = low_mask(left < 0 ? 0 : left > 16 ? 16 : left);
      const __mmask32 read = (columns | columns << 16) & (first | second);
      // The second row's elements into the upper half: its address lies 16 elements before them.
      const uint16_t* at = row + tile * 16;
      const __m512i a = _mm512_maskz_loadu_epi16(read & 0xFFFFu, at);
      const __m512i both = _mm512_mask_loadu_epi16(a, read & 0xFFFF0000u, at + stride - 16);
      const __m512i converted = to_bf16(both, static_cast<Element*>(nullptr));
      most = _mm512_max_epu16(most, magnitude(converted));
      _mm512_store_si512(to + tile * kHalfTile + pair * 32, interleave_halves(converted));
    }
  }
  return largest_magnitude(most);
}

void pack_query(uint16_t* group, int64_t row, const float* q, float factor, int64_t head_dim, uint16_t* met) {
  uint16_t* to = group + row / 16 * kHalfTile + row % 16 * 32;
  const __m512 by = _mm512_set1_ps(factor);
  __m512i most = _mm512_load_si512(met);
  for (int64_t d = 0; d < head_dim; d += 32, to += 2 * kHalfTile) {
    const __mmask32 read = low_mask(head_dim - d);
    const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(read), q + d);
    const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(read >> 16), q + d + 16);
    const __m512i packed = (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(high, by), _mm512_mul_ps(low, by));
    most = _mm512_max_epu16(most, magnitude(packed));
    _mm512_store_si512(to, packed);
  }
  _mm512_store_si512(met, most);
}

float largest_of(const uint16_t* met) { return largest_magnitude(_mm512_load_si512(met)); }

}  // namespace

void add_packing(MatrixKernels& kernels) noexcept {
  kernels.pack_query = pack_query;
  kernels.largest = largest_of;
  kernels.pack_keys[static_cast<int>(KvElement::kF16)] = pack_keys<F16>;
  kernels.pack_keys[static_cast<int>(KvElement::kBF16)] = pack_keys<BF16>;
  kernels.pack_values[static_cast<int>(KvElement::kF16)] = pack_values<F16>;
  kernels.pack_values[static_cast<int>(KvElement::kBF16)] = pack_values<BF16>;
}

}  // namespace minillm::cpu::MINILLM_ISA
