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
    load8<kCodes>(w, table, max(tokens[blockIdx.x], 0), k);  // -1 was chosen from a row of NaN, whose sequence ends.
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (k + i < table.cols) out[blockIdx.x * table.cols + k + i] = scale * w[i];
  }
}

constexpr int kDequantiseThreads = 256;

/// A block writes a tile of 16 rows. Threads go through it in the order of fragment.h: reads are whole lines, and a warp's writes are
/// eight runs of 64 bytes or more.
template <Codes kCodes, typename T>
__global__ void __launch_bounds__(kDequantiseThreads)
    dequantise_kernel(T* out, const __grid_constant__ DeviceTensor w, int64_t begin, int64_t n, int64_t stride) {
  const int64_t first = blockIdx.x * int64_t{kTileRows}, n_items = w.stride / kUnitColumns * 64;
  for (int64_t i = threadIdx.x; i < n_items; i += kDequantiseThreads) {
    const int64_t row = first + i / 32 % 2 * 8 + i % 32 / 4, column = i / 64 * kUnitColumns + i % 4 * 8;
    if (row >= n) continue;
#pragma unroll
    for (int chunk = 0; chunk < kUnitColumns / 32; ++chunk) {
      const int64_t k = column + chunk * 32;
      if (k >= stride) break;
      float values[8];
      load8<kCodes>(values, w, begin + row, k);
      alignas(16) T narrow[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) narrow[j] = from_float<T>(values[j]);
#pragma unroll
      for (int j = 0; j < static_cast<int>(sizeof(narrow) / 16); ++j)
        reinterpret_cast<uint4*>(out + row * stride + k)[j] = reinterpret_cast<const uint4*>(narrow)[j];
    }
  }
}

template <Codes kCodes>
void launch_dequantise(void* out, Dtype dtype, const DeviceTensor& w, int64_t begin, int64_t n, cudaStream_t stream) {
  const auto grid = static_cast<unsigned>((n + kTileRows - 1) / kTileRows);
  const int64_t stride = (w.cols + 7) / 8 * 8;
  if (dtype == Dtype::kF32)
    dequantise_kernel<kCodes><<<grid, kDequantiseThreads, 0, stream>>>(static_cast<float*>(out), w, begin, n, stride);
  else if (dtype == Dtype::kF16)
    dequantise_kernel<kCodes><<<grid, kDequantiseThreads, 0, stream>>>(static_cast<__half*>(out), w, begin, n, stride);
  else
    dequantise_kernel<kCodes><<<grid, kDequantiseThreads, 0, stream>>>(static_cast<__nv_bfloat16*>(out), w, begin, n, stride);
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
  if (w.codes == Codes::kNibbles)
    launch_dequantise<Codes::kNibbles>(out, dtype, w, begin, n, stream);
  else if (w.codes == Codes::kBytes)
    launch_dequantise<Codes::kBytes>(out, dtype, w, begin, n, stream);
  else
    throw Error(ErrorCode::kInternal, "dequantise: a plain weight");
  MINILLM_CUDA(cudaGetLastError());
}

}  // namespace minillm::cuda
