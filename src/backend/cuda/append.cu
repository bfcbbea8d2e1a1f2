// append.cu - from the q/k/v product to the cache: bias, norm of each query and key head, rotation, and the store into pages.
// One warp a head of a row (rotate.cuh).
#include <cstdint>

#include "backend/cuda/check.h"
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/launch.cuh"
#include "backend/cuda/device/rotate.cuh"

namespace minillm::cuda {
namespace {

template <typename T>
__global__ void append_kernel(float* q_out, AppendInputs in, DeviceStep step, KeyLayout cache) {
  let_successor_start();
  wait_for_predecessor();
  extern __shared__ float head[];
  const AppendShape& s = in.shape;
  const int64_t row = blockIdx.x;
  const int h = blockIdx.y, lane = threadIdx.x;
  for (int d = lane; d < s.head_dim; d += 32) head[d] = raw_element(in, row, h, d);
  __syncwarp();
  prepare_head(head, in, in.angles + row * s.rope_dim, h, lane);
  if (h < s.n_heads) {
    for (int d = lane; d < s.head_dim; d += 32) q_out[(row * s.n_heads + h) * s.head_dim + d] = head[d];
    return;
  }
  const bool is_value = h >= s.n_heads + s.n_kv_heads;
  T* to = static_cast<T*>(const_cast<void*>(is_value ? cache.values : cache.keys)) +
          place_of_token(step, cache, row, (h - s.n_heads) % s.n_kv_heads);
  for (int d = lane; d < s.head_dim; d += 32) to[d] = from_float<T>(head[d]);
}

}  // namespace

void rotate_and_append(float* q, const AppendInputs& in, const DeviceStep& step, const KeyLayout& cache, cudaStream_t stream) {
  if (step.n_rows == 0) return;
  const AppendShape& s = in.shape;
  const dim3 grid(static_cast<unsigned>(step.n_rows), static_cast<unsigned>(s.n_heads + 2 * s.n_kv_heads));
  const size_t shared = static_cast<size_t>(s.head_dim) * sizeof(float);
  if (cache.dtype == Dtype::kF32)
    launch(append_kernel<float>, grid, 32, shared, stream, q, in, step, cache);
  else if (cache.dtype == Dtype::kF16)
    launch(append_kernel<__half>, grid, 32, shared, stream, q, in, step, cache);
  else if (cache.dtype == Dtype::kF8)
    launch(append_kernel<__nv_fp8_e4m3>, grid, 32, shared, stream, q, in, step, cache);
  else
    launch(append_kernel<__nv_bfloat16>, grid, 32, shared, stream, q, in, step, cache);
}

}  // namespace minillm::cuda
