// products.cu - weights read in place: row lookups, products for a few tokens, and dequantisation for the dense product.
//   weight[n, k] = scale[n, g] (code[n, k] - zero) + offset[n, g],  g = k / group; plain types are the code itself.
// A warp owns an output row and reads it once for up to eight tokens, eight neighbouring elements a lane: every read is whole
// 128-byte lines. Cost: the weight's bytes / memory bandwidth.
// Numerics: float32 fma in one order over k, so a token's result does not depend on how many others share the call.
#include <cstdint>

#include "backend/cuda/check.h"
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/operations.h"

namespace minillm::cuda {
namespace {

using Codes = DeviceTensor::Codes;
constexpr int kWarps = 4;  ///< Rows a block.

/// Elements [k, k + 8) of a row, as float32. k is a multiple of 8, so they share a scale.
template <Codes kCodes>
__device__ __forceinline__ void load8(float (&w)[8], const DeviceTensor& t, int64_t row, int64_t k) {
  const int64_t at = row * t.cols + k;
  if constexpr (kCodes == Codes::kF32) {
    const float4 a = *reinterpret_cast<const float4*>(static_cast<const float*>(t.data) + at);
    const float4 b = *reinterpret_cast<const float4*>(static_cast<const float*>(t.data) + at + 4);
    w[0] = a.x, w[1] = a.y, w[2] = a.z, w[3] = a.w, w[4] = b.x, w[5] = b.y, w[6] = b.z, w[7] = b.w;
  } else if constexpr (kCodes == Codes::kF16 || kCodes == Codes::kBF16) {
    const uint4 raw = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(t.data) + at);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint16_t bits = static_cast<uint16_t>(words[i / 2] >> (16 * (i % 2)));
      w[i] = kCodes == Codes::kF16 ? __half2float(__ushort_as_half(bits)) : __uint_as_float(static_cast<uint32_t>(bits) << 16);
    }
  } else {
    const int64_t g = row * (t.cols / t.group) + k / t.group;
    const float scale = t.scale[g], offset = t.offset == nullptr ? -0.0f : t.offset[g];
    uint32_t words[2];
    if constexpr (kCodes == Codes::kNibbles) {
      words[0] = words[1] = static_cast<const uint32_t*>(t.data)[at / 8];
    } else {
      const uint2 raw = *reinterpret_cast<const uint2*>(static_cast<const uint8_t*>(t.data) + at);
      words[0] = raw.x, words[1] = raw.y;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t code = kCodes == Codes::kNibbles ? words[0] >> (4 * i) & 15u : words[i / 4] >> (8 * (i % 4)) & 255u;
      w[i] = __fadd_rn(__fmul_rn(scale, static_cast<float>(code) - t.zero), offset);  // As the formats define it: two roundings.
    }
  }
}

template <Codes kCodes, int kTokens>
__global__ void few_token_kernel(float* out, int64_t out_stride, const float* __restrict__ x, const __grid_constant__ DeviceTensor w) {
  const int64_t row = blockIdx.x * int64_t{kWarps} + threadIdx.x / 32;
  if (row >= w.rows) return;
  const int lane = threadIdx.x % 32;
  float sum[kTokens] = {};
  for (int64_t k = lane * 8; k < w.cols; k += 256) {
    float weight[8];
    load8<kCodes>(weight, w, row, k);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const float4 a = *reinterpret_cast<const float4*>(x + t * w.cols + k), b = *reinterpret_cast<const float4*>(x + t * w.cols + k + 4);
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

template <Codes kCodes>
__global__ void embed_kernel(float* out, const __grid_constant__ DeviceTensor table, const TokenId* tokens, float scale) {
  for (int64_t k = threadIdx.x * 8; k < table.cols; k += 8 * blockDim.x) {
    float w[8];
    load8<kCodes>(w, table, tokens[blockIdx.x], k);
    for (int i = 0; i < 8; ++i) out[blockIdx.x * table.cols + k + i] = scale * w[i];
  }
}

template <Codes kCodes, typename T>
__global__ void dequantise_kernel(T* out, const __grid_constant__ DeviceTensor w, int64_t begin) {
  for (int64_t k = threadIdx.x * 8; k < w.cols; k += 8 * blockDim.x) {
    float values[8];
    load8<kCodes>(values, w, begin + blockIdx.x, k);
    for (int i = 0; i < 8; ++i) out[blockIdx.x * w.cols + k + i] = from_float<T>(values[i]);
  }
}

/// Calls f.template operator()<codes>() for the tensor's codes.
template <typename F>
void visit_codes(Codes codes, F&& f) {
  switch (codes) {
    case Codes::kF32:
      return f.template operator()<Codes::kF32>();
    case Codes::kF16:
      return f.template operator()<Codes::kF16>();
    case Codes::kBF16:
      return f.template operator()<Codes::kBF16>();
    case Codes::kNibbles:
      return f.template operator()<Codes::kNibbles>();
    case Codes::kBytes:
      return f.template operator()<Codes::kBytes>();
  }
}

template <Codes kCodes>
void launch_few(float* out, int64_t out_stride, const float* x, const DeviceTensor& w, int64_t n_tokens, cudaStream_t stream) {
  const unsigned grid = static_cast<unsigned>((w.rows + kWarps - 1) / kWarps);
  switch (n_tokens) {
    case 1:
      few_token_kernel<kCodes, 1><<<grid, 32 * kWarps, 0, stream>>>(out, out_stride, x, w);
      break;
    case 2:
      few_token_kernel<kCodes, 2><<<grid, 32 * kWarps, 0, stream>>>(out, out_stride, x, w);
      break;
    case 3:
      few_token_kernel<kCodes, 3><<<grid, 32 * kWarps, 0, stream>>>(out, out_stride, x, w);
      break;
    case 4:
      few_token_kernel<kCodes, 4><<<grid, 32 * kWarps, 0, stream>>>(out, out_stride, x, w);
      break;
    case 5:
      few_token_kernel<kCodes, 5><<<grid, 32 * kWarps, 0, stream>>>(out, out_stride, x, w);
      break;
    case 6:
      few_token_kernel<kCodes, 6><<<grid, 32 * kWarps, 0, stream>>>(out, out_stride, x, w);
      break;
    case 7:
      few_token_kernel<kCodes, 7><<<grid, 32 * kWarps, 0, stream>>>(out, out_stride, x, w);
      break;
    case 8:
      few_token_kernel<kCodes, 8><<<grid, 32 * kWarps, 0, stream>>>(out, out_stride, x, w);
      break;
    default:
      throw Error(ErrorCode::kInternal, "few_token_product: ", n_tokens, " tokens, at most 8");
  }
}

}  // namespace

void embed(float* out, const DeviceTensor& table, const TokenId* tokens, int64_t n_rows, float scale, cudaStream_t stream) {
  if (n_rows == 0) return;
  visit_codes(table.codes,
              [&]<Codes kCodes>() { embed_kernel<kCodes><<<static_cast<unsigned>(n_rows), 128, 0, stream>>>(out, table, tokens, scale); });
  MINILLM_CUDA(cudaGetLastError());
}

void few_token_product(float* out, int64_t out_stride, const float* x, const DeviceTensor& w, int64_t n_tokens, cudaStream_t stream) {
  if (n_tokens == 0 || w.rows == 0) return;
  visit_codes(w.codes, [&]<Codes kCodes>() { launch_few<kCodes>(out, out_stride, x, w, n_tokens, stream); });
  MINILLM_CUDA(cudaGetLastError());
}

void dequantise(void* out, Dtype dtype, const DeviceTensor& w, int64_t begin, int64_t n, cudaStream_t stream) {
  if (n == 0) return;
  const auto grid = static_cast<unsigned>(n);
  visit_codes(w.codes, [&]<Codes kCodes>() {
    if (dtype == Dtype::kF32)
      dequantise_kernel<kCodes><<<grid, 128, 0, stream>>>(static_cast<float*>(out), w, begin);
    else if (dtype == Dtype::kF16)
      dequantise_kernel<kCodes><<<grid, 128, 0, stream>>>(static_cast<__half*>(out), w, begin);
    else
      dequantise_kernel<kCodes><<<grid, 128, 0, stream>>>(static_cast<__nv_bfloat16*>(out), w, begin);
  });
  MINILLM_CUDA(cudaGetLastError());
}

}  // namespace minillm::cuda
