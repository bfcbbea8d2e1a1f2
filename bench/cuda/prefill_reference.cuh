// prefill_reference.cuh - random tensors, and attention by the book in double, for the check of the prefill kernel's variants.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

using bf16 = __nv_bfloat16;

#define CHECK(call)                                                                         \
  do {                                                                                      \
    cudaError_t status = (call);                                                            \
    if (status != cudaSuccess) {                                                            \
      std::printf("%s:%d %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(status)); \
      std::exit(1);                                                                         \
    }                                                                                       \
  } while (0)

struct Problem {
  int batch, n_queries, n_keys, heads, kv_heads, d;
  bool causal;
};

__global__ void fill(bf16* x, size_t n, uint32_t seed) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x) {
    uint64_t z = (i + 1) * 0x9E3779B97F4A7C15ull + seed * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    float u1 = ((z & 0xFFFFFF) + 1) / 16777217.0f, u2 = ((z >> 24) & 0xFFFFFF) / 16777216.0f;
    x[i] = __float2bfloat16(sqrtf(-2 * logf(u1)) * cospif(2 * u2));
  }
}

// One block a (row, head, batch); double accumulation; two passes.
__global__ void reference(const bf16* q, const bf16* k, const bf16* v, float* out, float* lse, Problem s, float scale, int row_step) {
  extern __shared__ double weights[];
  const int row = blockIdx.x * row_step, head = blockIdx.y, b = blockIdx.z, g = head / (s.heads / s.kv_heads);
  const bf16* qr = q + ((size_t(b) * s.n_queries + row) * s.heads + head) * s.d;
  const int end = s.causal ? max(0, min(s.n_keys, row + 1 + s.n_keys - s.n_queries)) : s.n_keys;
  __shared__ double red[256];
  double m = -INFINITY;
  for (int j = threadIdx.x; j < end; j += 256) {
    const bf16* kr = k + ((size_t(b) * s.n_keys + j) * s.kv_heads + g) * s.d;
    double x = 0;
    for (int i = 0; i < s.d; ++i) x += double(__bfloat162float(qr[i])) * double(__bfloat162float(kr[i]));
    weights[j] = x * scale;
    m = fmax(m, weights[j]);
  }
  red[threadIdx.x] = m;
  __syncthreads();
  for (int w = 128; w; w /= 2) {
    if (threadIdx.x < w) red[threadIdx.x] = fmax(red[threadIdx.x], red[threadIdx.x + w]);
    __syncthreads();
  }
  m = red[0];
  __syncthreads();
  double sum = 0;
  for (int j = threadIdx.x; j < end; j += 256) {
    weights[j] = exp(weights[j] - m);
    sum += weights[j];
  }
  red[threadIdx.x] = sum;
  __syncthreads();
  for (int w = 128; w; w /= 2) {
    if (threadIdx.x < w) red[threadIdx.x] += red[threadIdx.x + w];
    __syncthreads();
  }
  sum = red[0];
  const size_t o = ((size_t(b) * s.n_queries + row) * s.heads + head);
  for (int i = threadIdx.x; i < s.d; i += 256) {
    double x = 0;
    for (int j = 0; j < end; ++j) x += weights[j] * double(__bfloat162float(v[((size_t(b) * s.n_keys + j) * s.kv_heads + g) * s.d + i]));
    out[o * s.d + i] = end ? float(x / sum) : 0.0f;
  }
  if (threadIdx.x == 0) lse[(size_t(b) * s.heads + head) * s.n_queries + row] = end ? float(m + log(sum)) : -INFINITY;
}
