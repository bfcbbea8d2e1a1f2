// rotate.cuh - one head of a row of the q/k/v product, made ready by one warp: bias, norm, rotation.
// Sources: Su et al. 2021, arXiv:2104.09864 (rotation); Henry et al. 2020, arXiv:2010.04245 (q/k norm).
#pragma once

#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/operations.h"

namespace minillm::cuda {

/// Element d of head h, of H queries, G keys and G values, as the product and the bias give it.
__device__ __forceinline__ float raw_element(const AppendInputs& in, int64_t row, int h, int d) {
  const AppendShape& s = in.shape;
  const float x = in.qkv[(row * (s.n_heads + 2 * s.n_kv_heads) + h) * s.head_dim + d];
  return x + (in.bias == nullptr ? 0.0f : in.bias[h * s.head_dim + d]);
}

/// Turns the head's pairs, a lane a pair; the warp must be in step before and after.
__device__ __forceinline__ void rotate_pairs(float* head, const AppendShape& s, const float* angles, int lane) {
  const int half = s.rope_dim / 2;
  for (int i = lane; i < half; i += 32) {
    const int a = s.layout == RopeLayout::kInterleaved ? 2 * i : i, b = s.layout == RopeLayout::kInterleaved ? 2 * i + 1 : i + half;
    const float cosine = angles[i], sine = angles[half + i], x = head[a], y = head[b];
    head[a] = x * cosine - y * sine;
    head[b] = x * sine + y * cosine;
  }
}

/// `head`: D raw elements in shared memory, since rotation pairs elements of different lanes; the warp has written them, and sees the
/// result when this returns. `angles`: of the row.
__device__ __forceinline__ void prepare_head(float* head, const AppendInputs& in, const float* angles, int h, int lane) {
  const AppendShape& s = in.shape;
  if (h >= s.n_heads + s.n_kv_heads) return;
  const float* norm = h < s.n_heads ? in.q_norm : in.k_norm;
  if (norm != nullptr) {
    float squares = 0.0f;
    for (int d = lane; d < s.head_dim; d += 32) squares += head[d] * head[d];
    const float scale = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(s.head_dim) + s.eps);
    for (int d = lane; d < s.head_dim; d += 32) head[d] = norm[d] * (head[d] * scale);
    __syncwarp();
  }
  rotate_pairs(head, s, angles, lane);
  __syncwarp();
}

/// Where head g of the row's token lies, counted in elements from the cache's keys or values.
__device__ __forceinline__ int64_t place_of_token(const DeviceStep& step, const KeyLayout& cache, int64_t row, int g) {
  const int slot = step.slots[row];
  const int64_t page = step.tables[step.table_starts[row] + slot / cache.page_tokens];
  return page * cache.page_stride + slot % cache.page_tokens * cache.token_stride + g * cache.head_stride;
}

}  // namespace minillm::cuda
