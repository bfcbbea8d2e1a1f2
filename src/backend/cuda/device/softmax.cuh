// softmax.cuh - the running softmax of two rows a thread, in the accumulator layout of the matrix instructions:
// registers 4g, 4g+1 belong to one row, 4g+2, 4g+3 to the row eight below; four neighbouring threads share both rows.
//   m' = max(m, scores);  l' = l 2^(m-m') + sum 2^(x-m');  o' = o 2^(m-m') + 2^(x-m') v, with x = scale log2(e) q.k.
// Source: Milakov & Gimelshein 2018, arXiv:1805.02867; scale folded into the exponent as in Dao 2023, arXiv:2307.08691.
// Numerics: float32; a row that has seen nothing keeps m = -inf and gets weights 0, never NaN.
#pragma once

#include <cmath>

namespace minillm::cuda {

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Maximum and sum over the four threads that share a row; the same result, bit for bit, in each.
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(0xFFFFFFFFu, x, 1);
  return x + __shfl_xor_sync(0xFFFFFFFFu, x, 2);
}

struct OnlineSoftmax {
  float max[2] = {-INFINITY, -INFINITY};  ///< Of the raw scores.
  float sum[2] = {0.0f, 0.0f};            ///< This thread's columns only, until finish().

  /// Turns raw scores into weights in place; returns in `keep` what the accumulated output must be multiplied by.
  /// kMayBeEmpty: some row may not have seen a key yet.
  /// Four independent chains (two rows, two halves) hide the latency of max and add: in ping-pong a warp is alone on its scheduler.
  template <bool kMayBeEmpty, int kCount>
  __device__ __forceinline__ void update(float (&scores)[kCount], float scale_log2, float (&keep)[2]) {
    float m[2][2] = {{max[0], -INFINITY}, {max[1], -INFINITY}};
#pragma unroll
    for (int i = 0; i < kCount; i += 2) m[i / 2 % 2][i / 4 % 2] = fmaxf(m[i / 2 % 2][i / 4 % 2], fmaxf(scores[i], scores[i + 1]));
    float base[2], s[2][2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float now = row_max(fmaxf(m[r][0], m[r][1]));
      base[r] = (kMayBeEmpty && now == -INFINITY) ? 0.0f : now * scale_log2;
      keep[r] = exp2_fast(fmaf(max[r], scale_log2, -base[r]));
      max[r] = now;
      s[r][0] = sum[r] * keep[r];
      s[r][1] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      scores[i] = exp2_fast(fmaf(scores[i], scale_log2, -base[i / 2 % 2]));
      s[i / 2 % 2][i % 2] += scores[i];
    }
    sum[0] = s[0][0] + s[0][1];
    sum[1] = s[1][0] + s[1][1];
  }

  /// Completes the sums; `factor` normalises the output (0 for a row that saw nothing), `lse` is the natural log of the sum.
  __device__ __forceinline__ void finish(float scale, float (&factor)[2], float (&lse)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] = row_sum(sum[r]);
      factor[r] = sum[r] == 0.0f ? 0.0f : 1.0f / sum[r];
      lse[r] = sum[r] == 0.0f ? -INFINITY : max[r] * scale + logf(sum[r]);
    }
  }
};

}  // namespace minillm::cuda
