// lookups.cu - rows of a weight as floats: embeddings, and what the dense product multiplies. Bound by memory.
#include <cstdint>

#include "backend/cuda/check.h"
#include "backend/cuda/device/launch.cuh"
#include "backend/cuda/device/load8.cuh"
#include "backend/cuda/operations.h"

namespace minillm::cuda {
namespace {

using Codes = DeviceTensor::Codes;

template <Codes kCodes>
__global__ void embed_kernel(float* out, const __grid_constant__ DeviceTensor table, const TokenId* tokens, float scale) {
  let_successor_start();
  wait_for_predecessor();
  for (int64_t k = threadIdx.x * 8; k < table.cols; k += 8 * blockDim.x) {
    float w[8];
    load8<kCodes>(w, table, tokens[blockIdx.x], k);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (k + i < table.cols) out[blockIdx.x * table.cols + k + i] = scale * w[i];
  }
}

template <Codes kCodes, typename T>
__global__ void dequantise_kernel(T* out, const __grid_constant__ DeviceTensor w, int64_t begin, int64_t stride) {
  for (int64_t k = threadIdx.x * 8; k < stride; k += 8 * blockDim.x) {
    float values[8];
    load8<kCodes>(values, w, begin + blockIdx.x, k);
#pragma unroll
    for (int i = 0; i < 8; ++i) out[blockIdx.x * stride + k + i] = from_float<T>(values[i]);
  }
}

}  // namespace

void embed(float* out, const DeviceTensor& table, const TokenId* tokens, int64_t n_rows, float scale, cudaStream_t stream) {
  if (n_rows == 0) return;
  visit_codes(table.codes, [&]<Codes kCodes>() {
    launch(embed_kernel<kCodes>, static_cast<unsigned>(n_rows), 128, 0, stream, out, table, tokens, scale);
  });
}

void dequantise(void* out, Dtype dtype, const DeviceTensor& w, int64_t begin, int64_t n, cudaStream_t stream) {
  if (n == 0) return;
  const auto grid = static_cast<unsigned>(n);
  const int64_t stride = (w.cols + 7) / 8 * 8;
  visit_codes(w.codes, [&]<Codes kCodes>() {
    if (dtype == Dtype::kF32)
      dequantise_kernel<kCodes><<<grid, 128, 0, stream>>>(static_cast<float*>(out), w, begin, stride);
    else if (dtype == Dtype::kF16)
      dequantise_kernel<kCodes><<<grid, 128, 0, stream>>>(static_cast<__half*>(out), w, begin, stride);
    else
      dequantise_kernel<kCodes><<<grid, 128, 0, stream>>>(static_cast<__nv_bfloat16*>(out), w, begin, stride);
  });
  MINILLM_CUDA(cudaGetLastError());
}

}  // namespace minillm::cuda
