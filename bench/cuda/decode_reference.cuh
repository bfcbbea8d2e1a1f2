// decode_reference.cuh - for the decode bench: caches laid out as the engine's, steps over them, numbers to fill them with, and decode
// attention by the book.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "backend/cuda/device/element.cuh"
#include "backend/cuda/operations.h"
#include "prefill_reference.cuh"

using namespace minillm::cuda;
using minillm::Dtype;
using f8 = __nv_fp8_e4m3;

struct Shape {
  int heads, kv_heads, d;
};

// Keys and values of each sequence are [head][page of the sequence][token][D], its pages taken in scattered order: contiguous keys are
// one page. What the kernel reads of a page and head is one piece, as in the engine's cache.
struct Layout {
  int page_tokens, n_pages;  ///< Of a sequence; pages hold room for the longest.
  Dtype dtype = Dtype::kBF16;
  KeyLayout of(const void* k, const void* v, const Shape& s, int batch) const {
    KeyLayout layout;
    layout.keys = k;
    layout.values = v;
    layout.dtype = dtype;
    layout.page_tokens = page_tokens;
    layout.page_stride = int64_t{page_tokens} * s.d;
    layout.token_stride = s.d;
    layout.head_stride = int64_t{n_pages} * page_tokens * s.d;
    layout.n_pages = int64_t{batch} * s.kv_heads * n_pages;
    return layout;
  }
  int page(int sequence, int i, int kv_heads) const {
    int step = n_pages / 2 + 1;
    while (std::gcd(step, n_pages) != 1) ++step;
    return sequence * kv_heads * n_pages + int(int64_t{i} * step % n_pages);
  }
};

/// A step of one token a sequence in device memory.
struct Step {
  std::vector<int32_t> all;
  int32_t* device = nullptr;
  DeviceStep step;

  Step(const std::vector<int>& lengths, const Layout& layout, const Shape& s) {
    const int n = int(lengths.size());
    for (int length : lengths) all.push_back(length - 1);
    for (int length : lengths) all.push_back(length);
    for (int i = 0; i < n; ++i) all.push_back(i * layout.n_pages);
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < layout.n_pages; ++j) all.push_back(layout.page(i, j, s.kv_heads));
    CHECK(cudaMalloc(&device, all.size() * 4));
    CHECK(cudaMemcpy(device, all.data(), all.size() * 4, cudaMemcpyHostToDevice));
    step.slots = device;
    step.key_counts = device + n;
    step.table_starts = device + 2 * n;
    step.tables = device + 3 * n;
    step.n_rows = n;
    step.max_keys = *std::max_element(lengths.begin(), lengths.end());
    step.one_row_each = true;
  }
  ~Step() { cudaFree(device); }
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;
};

static AttentionScalars scalars_of(const Shape& s) {
  AttentionScalars a;
  a.n_heads = s.heads, a.n_kv_heads = s.kv_heads, a.head_dim = s.d;
  a.scale = 1.0f / sqrtf(float(s.d));
  return a;
}

__global__ void fill_floats(float* x, size_t n, uint32_t seed) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x)
    x[i] = float(int((uint32_t(i) * 2654435761u ^ seed * 0x9E3779B9u) >> 8) % 4096 - 2048) / 1024.0f;
}

/// From -2 to 2, rounded to e4m3.
__global__ void fill_f8(f8* x, size_t n, uint32_t seed) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x)
    x[i] = f8(float(int((uint32_t(i) * 2654435761u ^ seed * 0x9E3779B9u) >> 8) % 4096 - 2048) / 1024.0f);
}

static size_t element_bytes(Dtype dtype) { return dtype == Dtype::kF8 ? 1 : 2; }
static void fill_cache(void* x, Dtype dtype, size_t n, uint32_t seed) {
  if (dtype == Dtype::kF8)
    fill_f8<<<1024, 256>>>(static_cast<f8*>(x), n, seed);
  else
    fill<<<1024, 256>>>(static_cast<bf16*>(x), n, seed);
}

// NaN over the slots past each sequence's end: a result that they reach is NaN.
__global__ void poison(void* x, DeviceStep step, KeyLayout layout, int kv_heads, int d) {
  const int row = blockIdx.x, g = blockIdx.y, n_slots = int(layout.head_stride / d);
  for (int s = step.key_counts[row] + threadIdx.x; s < n_slots; s += blockDim.x) {
    const int64_t at = step.tables[step.table_starts[row] + s / layout.page_tokens] * layout.page_stride +
                       s % layout.page_tokens * layout.token_stride + g * layout.head_stride;
    for (int i = 0; i < d; ++i)
      if (layout.dtype == Dtype::kF8)
        static_cast<uint8_t*>(x)[at + i] = 0xFF;
      else
        static_cast<uint16_t*>(x)[at + i] = 0x7FFF;
  }
}

__device__ double stored(const void* x, Dtype dtype, int64_t at) {
  return dtype == Dtype::kF8 ? to_float(static_cast<const f8*>(x)[at]) : to_float(static_cast<const bf16*>(x)[at]);
}

// One block a row and head; queries rounded as the kernel rounds them, everything else in double, in two passes.
__global__ void decode_reference(float* out, float* lse, const float* q, KeyLayout layout, DeviceStep step, AttentionScalars a) {
  extern __shared__ double weights[];
  const int row = blockIdx.x, head = blockIdx.y, g = head / (a.n_heads / a.n_kv_heads), n = step.key_counts[row], d = a.head_dim;
  const auto at = [&](int s) {
    return step.tables[step.table_starts[row] + s / layout.page_tokens] * layout.page_stride +
           s % layout.page_tokens * layout.token_stride + g * layout.head_stride;
  };
  const float* qr = q + (int64_t{row} * a.n_heads + head) * d;
  for (int s = threadIdx.x; s < n; s += blockDim.x) {
    double x = 0;
    for (int i = 0; i < d; ++i) {
      const float query = layout.dtype == Dtype::kF8 ? __half2float(__float2half(qr[i])) : __bfloat162float(__float2bfloat16(qr[i]));
      x += double(query) * stored(layout.keys, layout.dtype, at(s) + i);
    }
    weights[s] = x * double(a.scale);
  }
  __syncthreads();
  double top = -INFINITY, sum = 0;
  for (int s = 0; s < n; ++s) top = fmax(top, weights[s]);
  for (int s = 0; s < n; ++s) sum += exp(weights[s] - top);
  for (int i = threadIdx.x; i < d; i += blockDim.x) {
    double x = 0;
    for (int s = 0; s < n; ++s) x += exp(weights[s] - top) * stored(layout.values, layout.dtype, at(s) + i);
    out[(int64_t{row} * a.n_heads + head) * d + i] = float(x / sum);
  }
  if (threadIdx.x == 0) lse[row * a.n_heads + head] = float(top + log(sum));
}
