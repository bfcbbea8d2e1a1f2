// decode_tile.cuh - one warp's part of decode attention: 16 keys at a time against the query heads of their key head, on the matrix units.
// Keys and head elements are the 16 rows of the instruction and query heads its 8 columns (two sets where a group has more than 8):
//   S^T[16 keys, heads] = K q^T        running softmax over keys        O^T[D, heads] += V^T P^T
// so that K and V come from shared memory as they lie, and a group of up to 8 heads wastes little.
// Source: heads as columns ("swap A and B"): XQA, and 2.4 of FlashInfer's Hopper decode; Milakov & Gimelshein 2018, arXiv:1805.02867.
#pragma once

#include <cmath>

#include "backend/cuda/device/decode_items.cuh"
#include "backend/cuda/device/f8.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/device/softmax.cuh"

namespace minillm::cuda {

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

/// A tile in shared memory: 64 keys, then their values, in boxes of rows of 128 bytes swizzled as in tma.cuh.
template <typename T, int kDim>
constexpr int kBoxesOfRow = (kDim * static_cast<int>(sizeof(T)) + 127) / 128;
constexpr int kBoxBytes = kDecodeTile * 128;
template <typename T, int kDim>
constexpr int kPartBytes = kBoxesOfRow<T, kDim>* kBoxBytes;
template <typename T, int kDim>
constexpr int kTileBytes = 2 * kPartBytes<T, kDim>;
/// 16-byte chunks of a row.
template <typename T, int kDim>
constexpr int kChunksOfRow = kDim* static_cast<int>(sizeof(T)) / 16;
/// Where 16-byte chunk `chunk` of row `row` lies in a part.
__device__ __forceinline__ int place_of_chunk(int row, int chunk) {
  return chunk / 8 * kBoxBytes + row * 128 + ((chunk % 8) ^ (row % 8)) * 16;
}

/// Rows of queries in shared memory, padded by 16 bytes.
template <int kDim>
constexpr int kQueryBytes = kDim * 2 + 16;

/// Lane l holds, with g = l / 4 and t = l % 4: scores and weights of keys g, g + 8 and heads 2t, 2t + 1 of each set of 8;
/// sums of elements g, g + 8 of each 16 and the same heads; of 8-bit types those of elements 2g, 2g + 1 (f8.cuh).
/// kGroups: of 16 keys that are in work at once. Two hide each other's latency, but want more registers.
template <typename T, int kDim, int kSets, int kGroups>
struct DecodeWarp {
  static constexpr int kKeys = kGroups * kStepKeys;
  static constexpr bool kIsNarrow = sizeof(T) == 1;
  using M = Multiplied<T>;
  uint32_t query[kSets][kDim / 16][2];
  float out[kSets][kDim / 16][4];
  float max[kSets][2], sum[kSets][2];  ///< Base 2; sums of this lane's keys only.

  /// queries: [8 kSets][kDim] of M in shared memory, rows kQueryBytes apart, zeros past the group.
  __device__ __forceinline__ void load_query(const unsigned char* queries, int lane) {
#pragma unroll
    for (int set = 0; set < kSets; ++set) {
#pragma unroll
      for (int k = 0; k < kDim / 16; ++k)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int first = k * 16 + (kIsNarrow ? lane % 4 * 4 + i * 2 : i * 8 + lane % 4 * 2);
          query[set][k][i] = *reinterpret_cast<const uint32_t*>(queries + (8 * set + lane / 4) * kQueryBytes<kDim> + first * 2);
        }
    }
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int set = 0; set < kSets; ++set) {
      max[set][0] = max[set][1] = -INFINITY;
      sum[set][0] = sum[set][1] = 0.0f;
#pragma unroll
      for (auto& o : out[set]) o[0] = o[1] = o[2] = o[3] = 0.0f;
    }
  }

  /// Rows [row, row + kKeys) of a tile, which are slots [slot, slot + kKeys).
  __device__ __forceinline__ void step(uint32_t tile, int row, int slot, const Visible& visible, const AttentionScalars& a, int first_head,
                                       int group, int lane) {
    float c[kGroups][kSets][4];
#pragma unroll
    for (int i = 0; i < kGroups; ++i) scores(c[i], tile + (row + i * kStepKeys) * 128, lane);
    const bool all_plain = slot >= visible.first && slot + kKeys <= visible.last && a.softcap == 0.0f && a.alibi == nullptr;
    const float unit = all_plain && a.scale > 0.0f ? a.scale * kLog2E : 1.0f;  ///< Scores times this are exponents of 2.
    if (!(all_plain && a.scale > 0.0f))
#pragma unroll
      for (int i = 0; i < kGroups; ++i) mask(c[i], slot + i * kStepKeys, visible, a, first_head, group, lane);
    float keep[kSets][2];
    bool moved = false;
#pragma unroll
    for (int set = 0; set < kSets; ++set) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float top = -INFINITY;
#pragma unroll
        for (int i = 0; i < kGroups; ++i) top = fmaxf(top, fmaxf(c[i][set][j], c[i][set][2 + j]));
#pragma unroll
        for (int distance = 4; distance < 32; distance *= 2) top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, distance));
        top = fmaxf(max[set][j], top * unit);
        const float base = top == -INFINITY ? 0.0f : top;
        keep[set][j] = exp2_fast(max[set][j] - base);
        moved |= keep[set][j] != 1.0f;
        max[set][j] = top;
        float total = 0.0f;
#pragma unroll
        for (int i = 0; i < kGroups; ++i) {
          c[i][set][j] = exp2_fast(fmaf(c[i][set][j], unit, -base));
          c[i][set][2 + j] = exp2_fast(fmaf(c[i][set][2 + j], unit, -base));
          total += c[i][set][j] + c[i][set][2 + j];
        }
        sum[set][j] = fmaf(sum[set][j], keep[set][j], total);
      }
    }
    if (__any_sync(0xFFFFFFFFu, moved)) rescale(keep);
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
      uint32_t weights[kSets][2];
#pragma unroll
      for (int set = 0; set < kSets; ++set) {
        weights[set][0] = transposed(pack2<M>(c[i][set][0], c[i][set][1]));
        weights[set][1] = transposed(pack2<M>(c[i][set][2], c[i][set][3]));
      }
      add_values(tile + kPartBytes<T, kDim> + (row + i * kStepKeys + lane / 16 * 8 + lane % 8) * 128, weights, lane);
    }
  }

  /// values: the lane's row of the 16 keys' values.
  __device__ __forceinline__ void add_values(uint32_t values, const uint32_t (&weights)[kSets][2], int lane) {
#pragma unroll
    for (int n = 0; n < (kChunksOfRow<T, kDim> + 1) / 2; ++n) {  // Two chunks at a time, keys 0 to 7 and 8 to 15 of each.
      uint32_t v[4];
      load_tiles_transposed(v, values + n / 4 * kBoxBytes + ((2 * n % 8 + lane / 8 % 2) ^ (lane % 8)) * 16);
      if constexpr (kIsNarrow) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (2 * n + i >= kChunksOfRow<T, kDim>) continue;
          uint32_t low[2], high[2];
          widen4_across(low, v[i]);
          widen4_across(high, v[2 + i]);
#pragma unroll
          for (int set = 0; set < kSets; ++set)
            mma<M>(out[set][2 * n + i], low[0], low[1], high[0], high[1], weights[set][0], weights[set][1]);
        }
      } else {
#pragma unroll
        for (int set = 0; set < kSets; ++set) mma<M>(out[set][n], v[0], v[1], v[2], v[3], weights[set][0], weights[set][1]);
      }
    }
  }

  /// Two chains of sums, of even and odd k: a product waits for the one before it in its chain.
  __device__ __forceinline__ void scores(float (&c)[kSets][4], uint32_t keys, int lane) const {
    float odd[kSets][4] = {};
#pragma unroll
    for (auto& of_set : c) of_set[0] = of_set[1] = of_set[2] = of_set[3] = 0.0f;
    const uint32_t from = keys + lane % 16 * 128;
#pragma unroll
    for (int k = 0; k < (kChunksOfRow<T, kDim> + 1) / 2; ++k) {
      uint32_t b[4];
      load_tiles(b, from + k / 4 * kBoxBytes + ((2 * k % 8 + lane / 16) ^ (lane % 8)) * 16);
      if constexpr (kIsNarrow) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (2 * k + i >= kChunksOfRow<T, kDim>) continue;
          uint32_t low[2], high[2];
          widen4(low, b[2 * i]);
          widen4(high, b[2 * i + 1]);
#pragma unroll
          for (int set = 0; set < kSets; ++set)
            mma<M>(i == 0 ? c[set] : odd[set], low[0], high[0], low[1], high[1], query[set][2 * k + i][0], query[set][2 * k + i][1]);
        }
      } else {
#pragma unroll
        for (int set = 0; set < kSets; ++set)
          mma<M>(k % 2 == 0 ? c[set] : odd[set], b[0], b[1], b[2], b[3], query[set][k][0], query[set][k][1]);
      }
    }
#pragma unroll
    for (int set = 0; set < kSets; ++set)
#pragma unroll
      for (int i = 0; i < 4; ++i) c[set][i] += odd[set][i];
  }

  /// Scores with everything that may be added to them, as exponents of 2; -inf where the key is not visible.
  __device__ __forceinline__ void mask(float (&c)[kSets][4], int slot, const Visible& visible, const AttentionScalars& a, int first_head,
                                       int group, int lane) const {
#pragma unroll
    for (int set = 0; set < kSets; ++set)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int s = slot + lane / 4 + i / 2 * 8, head = min(8 * set + lane % 4 * 2 + i % 2, group - 1);
        float x = c[set][i] * a.scale;
        if (a.softcap != 0.0f) x = a.softcap * tanhf(x / a.softcap);
        if (a.alibi != nullptr) x -= a.alibi[first_head + head] * fabsf(static_cast<float>(visible.slot - s));
        c[set][i] = s >= visible.first && s < visible.last ? x * kLog2E : -INFINITY;
      }
  }

  __device__ __forceinline__ void rescale(const float (&keep)[kSets][2]) {
#pragma unroll
    for (int set = 0; set < kSets; ++set)
#pragma unroll
      for (auto& o : out[set]) o[0] *= keep[set][0], o[1] *= keep[set][1], o[2] *= keep[set][0], o[3] *= keep[set][1];
  }

  /// To shared memory: this warp's [group][kDim] sums and [16][2] maxima and totals.
  __device__ __forceinline__ void store(float* sums, float* scalars, int group, int lane) {
#pragma unroll
    for (int set = 0; set < kSets; ++set)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float total = sum[set][j];
#pragma unroll
        for (int distance = 4; distance < 32; distance *= 2) total += __shfl_xor_sync(0xFFFFFFFFu, total, distance);
        const int head = 8 * set + lane % 4 * 2 + j;
        if (head >= group) continue;
        if (lane < 4) scalars[2 * head] = max[set][j], scalars[2 * head + 1] = total;
#pragma unroll
        for (int n = 0; n < kDim / 16; ++n)
#pragma unroll
          for (int r = 0; r < 2; ++r)
            sums[head * kDim + n * 16 + (kIsNarrow ? lane / 4 * 2 + r : r * 8 + lane / 4)] = out[set][n][2 * r + j];
      }
  }
};

}  // namespace minillm::cuda
