// products.cu - products with float32 and float16 weights for a few tokens, without matrix instructions.
// A warp owns an output row and reads it once for up to eight tokens, eight neighbouring elements a lane: every read is whole
// 128-byte lines. Cost: the weight's bytes / memory bandwidth.
// Numerics: float32 fma in one order over k, so a token's result does not depend on how many others share the call.
#include <cstdint>

#include "backend/cuda/check.h"
#include "backend/cuda/device/load8.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/operations.h"

namespace minillm::cuda {
namespace {

using Codes = DeviceTensor::Codes;
constexpr int kWarps = 4;  ///< Rows a block.

template <Codes kCodes, int kTokens>
__global__ void plain_kernel(float* out, int64_t out_stride, const float* __restrict__ x, const __grid_constant__ DeviceTensor w) {
  const int64_t row = blockIdx.x * int64_t{kWarps} + threadIdx.x / 32;
  if (row >= w.rows) return;
  const int lane = threadIdx.x % 32;
  float sum[kTokens] = {};
  for (int64_t k = lane * 8; k < w.stride; k += 256) {
    float weight[8];
    load8<kCodes>(weight, w, row, k);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const float4 a = *reinterpret_cast<const float4*>(x + t * w.stride + k),
                   b = *reinterpret_cast<const float4*>(x + t * w.stride + k + 4);
      const float values[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[t] = fmaf(weight[i], values[i], sum[t]);
    }
  }
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    const float total = warp_sum(sum[t]);
    if (lane == 0) out[t * out_stride + w.first_row + row] = total;
  }
}

template <Codes kCodes, int kTokens = 1>
void launch_plain(float* out, int64_t out_stride, const float* x, const DeviceTensor& w, int64_t n_tokens, cudaStream_t stream) {
  if constexpr (kTokens <= 8) {
    if (n_tokens != kTokens) return launch_plain<kCodes, kTokens + 1>(out, out_stride, x, w, n_tokens, stream);
    const unsigned grid = static_cast<unsigned>((w.rows + kWarps - 1) / kWarps);
    plain_kernel<kCodes, kTokens><<<grid, 32 * kWarps, 0, stream>>>(out, out_stride, x, w);
  } else {
    throw Error(ErrorCode::kInternal, "plain_product: ", n_tokens, " tokens, at most 8");
  }
}

}  // namespace

void plain_product(float* out, int64_t out_stride, const float* x, const DeviceTensor& w, int64_t n_tokens, cudaStream_t stream) {
  if (n_tokens == 0 || w.rows == 0) return;
  if (w.codes == Codes::kF32)
    launch_plain<Codes::kF32>(out, out_stride, x, w, n_tokens, stream);
  else if (w.codes == Codes::kF16)
    launch_plain<Codes::kF16>(out, out_stride, x, w, n_tokens, stream);
  else
    throw Error(ErrorCode::kInternal, "plain_product: a weight that few_token_product takes");
  MINILLM_CUDA(cudaGetLastError());
}

}  // namespace minillm::cuda
