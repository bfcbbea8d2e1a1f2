// append.cu - from the q/k/v product to the cache: bias, norm of each query and key head, rotation, and the store into pages.
// One warp a head of a row. Sources: Su et al. 2021, arXiv:2104.09864 (rotation); Henry et al. 2020, arXiv:2010.04245 (q/k norm).
#include <cstdint>

#include "backend/cuda/check.h"
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/launch.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/operations.h"

namespace minillm::cuda {
namespace {

struct Norms {
  const float *bias, *q, *k;
};

template <typename T>
__global__ void append_kernel(float* q_out, const float* qkv, Norms norms, const float* angles, AppendShape s, DeviceStep step,
                              KeyLayout cache) {
  let_successor_start();
  wait_for_predecessor();
  extern __shared__ float head[];  // D values: rotation pairs elements of different lanes.
  const int64_t row = blockIdx.x;
  const int h = blockIdx.y, lane = threadIdx.x, n_all = s.n_heads + 2 * s.n_kv_heads;
  const bool is_query = h < s.n_heads, is_value = h >= s.n_heads + s.n_kv_heads;
  const float* in = qkv + (row * n_all + h) * s.head_dim;

  float squares = 0.0f;
  for (int d = lane; d < s.head_dim; d += 32) {
    const float x = in[d] + (norms.bias == nullptr ? 0.0f : norms.bias[h * s.head_dim + d]);
    head[d] = x;
    squares += x * x;
  }
  squares = warp_sum(squares);
  const float* norm = is_value ? nullptr : is_query ? norms.q : norms.k;
  if (norm != nullptr) {
    const float scale = 1.0f / sqrtf(squares / static_cast<float>(s.head_dim) + s.eps);
    for (int d = lane; d < s.head_dim; d += 32) head[d] = norm[d] * (head[d] * scale);
  }
  __syncwarp();
  if (!is_value) {
    const float* angle = angles + row * s.rope_dim;
    const int half = s.rope_dim / 2;
    for (int i = lane; i < half; i += 32) {
      const int a = s.layout == RopeLayout::kInterleaved ? 2 * i : i, b = s.layout == RopeLayout::kInterleaved ? 2 * i + 1 : i + half;
      const float cosine = angle[i], sine = angle[half + i], x = head[a], y = head[b];
      head[a] = x * cosine - y * sine;
      head[b] = x * sine + y * cosine;
    }
    __syncwarp();
  }
  if (is_query) {
    for (int d = lane; d < s.head_dim; d += 32) q_out[(row * s.n_heads + h) * s.head_dim + d] = head[d];
    return;
  }
  const int slot = step.slots[row], g = (h - s.n_heads) % s.n_kv_heads;
  const int64_t page = step.tables[step.table_starts[row] + slot / cache.page_tokens];
  T* to = static_cast<T*>(const_cast<void*>(is_value ? cache.values : cache.keys)) + page * cache.page_stride +
          slot % cache.page_tokens * cache.token_stride + g * cache.head_stride;
  for (int d = lane; d < s.head_dim; d += 32) to[d] = from_float<T>(head[d]);
}

}  // namespace

void rotate_and_append(float* q, const float* qkv, const float* bias, const float* q_norm, const float* k_norm, const float* angles,
                       const AppendShape& shape, const DeviceStep& step, const KeyLayout& cache, cudaStream_t stream) {
  if (step.n_rows == 0) return;
  const dim3 grid(static_cast<unsigned>(step.n_rows), static_cast<unsigned>(shape.n_heads + 2 * shape.n_kv_heads));
  const size_t shared = static_cast<size_t>(shape.head_dim) * sizeof(float);
  const Norms norms{bias, q_norm, k_norm};
  if (cache.dtype == Dtype::kF32)
    launch(append_kernel<float>, grid, 32, shared, stream, q, qkv, norms, angles, shape, step, cache);
  else if (cache.dtype == Dtype::kF16)
    launch(append_kernel<__half>, grid, 32, shared, stream, q, qkv, norms, angles, shape, step, cache);
  else
    launch(append_kernel<__nv_bfloat16>, grid, 32, shared, stream, q, qkv, norms, angles, shape, step, cache);
}

}  // namespace minillm::cuda
