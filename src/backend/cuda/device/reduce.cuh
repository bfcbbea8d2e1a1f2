// reduce.cuh - sums over a warp and over a block, in one fixed order.
#pragma once

namespace minillm::cuda {

/// The sum over the warp, the same bit for bit in every lane.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, distance);
  return x;
}

/// The sum over a block of kThreads, given to every thread. Every thread must call it.
template <int kThreads>
__device__ __forceinline__ float block_sum(float x) {
  __shared__ float partial[kThreads / 32];
  x = warp_sum(x);
  __syncthreads();  // The caller's last use of `partial` is over.
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) sum += partial[i];
  return sum;
}

}  // namespace minillm::cuda
