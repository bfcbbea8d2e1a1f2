// decode_tile.cuh - one warp's part of a tile of keys in decode attention: scores of up to 16 query heads that share a key head,
// the running softmax, and the weighted values, all on the matrix units.
#pragma once

#include <cmath>

#include "backend/cuda/device/kv_tile.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/device/softmax.cuh"
#include "backend/cuda/operations.h"

namespace minillm::cuda {

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

/// Rows g and g + 8 of the accumulator layout (mma.cuh) are query heads of the group; those past it are zeros and never stored.
template <typename T, int kDim>
struct DecodeWarp {
  uint32_t query[kDim / 16][4];
  float out[kDim / 8][4] = {};
  float max[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};  ///< Base 2; sums of this lane's columns only.

  /// q: the group's first head.
  __device__ __forceinline__ void load_query(const float* q, int group, int lane) {
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int head = lane / 4 + i % 2 * 8, d = k * 16 + i / 2 * 8 + lane % 4 * 2;
        const float2 v = head < group ? *reinterpret_cast<const float2*>(q + head * kDim + d) : float2{0.0f, 0.0f};
        query[k][i] = pack2<T>(v.x, v.y);
      }
  }

  /// Keys [key, key + 16) of a tile in shared memory, which are slots [slot, slot + 16).
  __device__ __forceinline__ void step(uint32_t keys, uint32_t values, int slot, const Visible& visible, const AttentionScalars& a,
                                       int first_head, int group, int lane) {
    float c[2][4] = {};
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      uint32_t b[4];
      load_tiles(b, keys + (lane / 16 * 8 + lane % 8) * kKeyBytes<kDim> + (k * 16 + lane / 8 % 2 * 8) * 2);
      mma<T>(c[0], query[k][0], query[k][1], query[k][2], query[k][3], b[0], b[1]);
      mma<T>(c[1], query[k][0], query[k][1], query[k][2], query[k][3], b[2], b[3]);
    }
    float top[2] = {max[0], max[1]};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float& x = c[i / 4][i % 4];
      const int s = slot + i / 4 * 8 + lane % 4 * 2 + i % 2, r = i % 4 / 2;
      x *= a.scale;
      if (a.softcap != 0.0f) x = a.softcap * tanhf(x / a.softcap);
      if (a.alibi != nullptr) x -= a.alibi[first_head + min(lane / 4 + 8 * r, group - 1)] * fabsf(static_cast<float>(visible.slot - s));
      x = s >= visible.first && s < visible.last ? x * kLog2E : -INFINITY;
      top[r] = fmaxf(top[r], x);
    }
    float keep[2], base[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      top[r] = row_max(top[r]);
      base[r] = top[r] == -INFINITY ? 0.0f : top[r];
      keep[r] = exp2_fast(max[r] - base[r]);
      max[r] = top[r];
      sum[r] *= keep[r];
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float& x = c[i / 4][i % 4];
      x = exp2_fast(x - base[i % 4 / 2]);
      sum[i % 4 / 2] += x;
    }
    const uint32_t p[4] = {pack2<T>(c[0][0], c[0][1]), pack2<T>(c[0][2], c[0][3]), pack2<T>(c[1][0], c[1][1]), pack2<T>(c[1][2], c[1][3])};
#pragma unroll
    for (int n = 0; n < kDim / 16; ++n) {
      uint32_t b[4];
      load_tiles_transposed(b, values + (lane / 8 % 2 * 8 + lane % 8) * kKeyBytes<kDim> + (n * 16 + lane / 16 * 8) * 2);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float(&o)[4] = out[2 * n + half];
        o[0] *= keep[0], o[1] *= keep[0], o[2] *= keep[1], o[3] *= keep[1];
        mma<T>(o, p[0], p[1], p[2], p[3], b[2 * half], b[2 * half + 1]);
      }
    }
  }

  /// To shared memory: sums of all rows of the group, then maxima and totals. `to` is this warp's [16][kDim], `scalars` its [16][2].
  __device__ __forceinline__ void store(float* to, float* scalars, int lane) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = lane / 4 + 8 * r;
      sum[r] = row_sum(sum[r]);
      if (lane % 4 == 0) scalars[2 * row] = max[r], scalars[2 * row + 1] = sum[r];
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n)
        *reinterpret_cast<float2*>(to + row * kDim + n * 8 + lane % 4 * 2) = {out[n][2 * r], out[n][2 * r + 1]};
    }
  }
};

}  // namespace minillm::cuda
