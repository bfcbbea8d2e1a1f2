// many_tokens.cu - what stands between the dense products of many tokens, reading and writing 16-bit inputs directly: norm, gated
// activation, and rotation with the store into pages. All are bound by memory: each element is read and written once.
// Numerics: computed in float32; results rounded once to the type that the next product or attention reads.
// Sources: as rows.cu and append.cu.
#include <cstdint>

#include "backend/cuda/check.h"
#include "backend/cuda/device/activate.cuh"
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/f8.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/device/rotate.cuh"
#include "backend/cuda/many_tokens.h"

namespace minillm::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

/// n a multiple of 8.
template <typename T>
__global__ void __launch_bounds__(kThreads) norm_kernel(T* out, const float* x, const float* w, int64_t n, float eps) {
  const auto* row = reinterpret_cast<const float4*>(x + blockIdx.x * n);
  const auto* weights = reinterpret_cast<const float4*>(w);
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < n / 4; i += kThreads) {
    const float4 v = row[i];
    sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  const float scale = 1.0f / sqrtf(block_sum<kThreads>(sum) / static_cast<float>(n) + eps);
  auto* to = reinterpret_cast<uint2*>(out + blockIdx.x * n);
  for (int64_t i = threadIdx.x; i < n / 4; i += kThreads) {
    const float4 v = row[i], g = weights[i];
    to[i] = {pack2<T>(g.x * (v.x * scale), g.y * (v.y * scale)), pack2<T>(g.z * (v.z * scale), g.w * (v.w * scale))};
  }
}

/// Eight neighbouring elements as float32.
__device__ __forceinline__ void read8(float (&v)[8], const float* from) {
  const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}
__device__ __forceinline__ void read8(float (&v)[8], const __nv_bfloat16* from) {
  const uint4 raw = *reinterpret_cast<const uint4*>(from);
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[2 * i] = __uint_as_float(words[i] << 16);
    v[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000u);
  }
}

/// F a multiple of 8.
template <typename T, typename In>
__global__ void __launch_bounds__(kThreads) gate_kernel(T* out, const In* gate_up, int64_t n, int64_t ffn, bool gelu) {
  const int64_t i = (blockIdx.x * int64_t{kThreads} + threadIdx.x) * 8;
  if (i >= n) return;
  const In* from = gate_up + i / ffn * 2 * ffn + i % ffn;
  float gate[8], up[8];
  read8(gate, from);
  read8(up, from + ffn);
#pragma unroll
  for (int j = 0; j < 8; ++j) gate[j] = activate(gate[j], gelu) * up[j];
  *reinterpret_cast<uint4*>(out + i) = {pack2<T>(gate[0], gate[1]), pack2<T>(gate[2], gate[3]), pack2<T>(gate[4], gate[5]),
                                        pack2<T>(gate[6], gate[7])};
}

template <typename T>
__device__ __forceinline__ void store_pair(T* to, float x, float y) {
  *reinterpret_cast<uint32_t*>(to) = pack2<T>(x, y);
}
template <>
__device__ __forceinline__ void store_pair(__nv_fp8_e4m3* to, float x, float y) {
  *reinterpret_cast<uint16_t*>(to) = __nv_cvt_float2_to_fp8x2({x, y}, __NV_SATFINITE, __NV_E4M3);
}

/// A block a row, its warps one head after the other. Even D and R; each lane holds pairs of neighbours, rotation reads its partners
/// from shared memory.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    append_kernel(Multiplied<T>* q, const __grid_constant__ AppendInputs in, const __grid_constant__ DeviceStep step,
                  const __grid_constant__ KeyLayout cache) {
  extern __shared__ float heads[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const AppendShape& s = in.shape;
  const int n_all = s.n_heads + 2 * s.n_kv_heads;
  const int64_t row = blockIdx.x;
  const int64_t at_token = place_of_token(step, cache, row, 0);
  float* head = heads + warp * s.head_dim;
  for (int h = warp; h < n_all; h += kWarps) {
    const bool is_query = h < s.n_heads, is_value = h >= s.n_heads + s.n_kv_heads;
    const float* from = in.qkv + (row * n_all + h) * s.head_dim;
    float squares = 0.0f;
    for (int d = 2 * lane; d < s.head_dim; d += 64) {
      float2 x = *reinterpret_cast<const float2*>(from + d);
      if (in.bias != nullptr) x.x += in.bias[h * s.head_dim + d], x.y += in.bias[h * s.head_dim + d + 1];
      *reinterpret_cast<float2*>(head + d) = x;
      squares += x.x * x.x + x.y * x.y;
    }
    const float* norm = is_value ? nullptr : is_query ? in.q_norm : in.k_norm;
    if (norm != nullptr) {
      const float scale = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(s.head_dim) + s.eps);
      for (int d = 2 * lane; d < s.head_dim; d += 64)
        head[d] = norm[d] * (head[d] * scale), head[d + 1] = norm[d + 1] * (head[d + 1] * scale);
    }
    __syncwarp();
    if (!is_value) rotate_pairs(head, s, in.angles + row * s.rope_dim, lane);
    __syncwarp();
    const auto store = [&](auto* to) {
      for (int d = 2 * lane; d < s.head_dim; d += 64) store_pair(to + d, head[d], head[d + 1]);
    };
    if (is_query)
      store(q + (row * s.n_heads + h) * s.head_dim);
    else
      store(static_cast<T*>(const_cast<void*>(is_value ? cache.values : cache.keys)) + at_token +
            (h - s.n_heads) % s.n_kv_heads * cache.head_stride);
    __syncwarp();
  }
}

/// Sixteen elements a thread; a page's keys and values of one layer lie together.
__global__ void __launch_bounds__(kThreads)
    widen_kernel(uint4* to, int32_t* tables, const uint4* from, int64_t page_stride, const int32_t* pages, int64_t n) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x, page = blockIdx.y;
  if (i == 0) tables[page] = static_cast<int32_t>(page);
  if (i >= n) return;
  const uint4 x = from[pages[page] * page_stride + i];
  const uint32_t words[4] = {x.x, x.y, x.z, x.w};
  uint32_t wide[4][2];
#pragma unroll
  for (int j = 0; j < 4; ++j) widen4(wide[j], words[j]);
  to[(page * n + i) * 2] = {wide[0][0], wide[0][1], wide[1][0], wide[1][1]};
  to[(page * n + i) * 2 + 1] = {wide[2][0], wide[2][1], wide[3][0], wide[3][1]};
}

template <typename F>
void visit_narrow(Dtype dtype, F&& f) {
  if (dtype == Dtype::kF16) return f(__half{});
  if (dtype == Dtype::kBF16) return f(__nv_bfloat16{});
  throw Error(ErrorCode::kInternal, "many tokens: inputs of ", name_of(dtype), "; expected f16 or bf16");
}

}  // namespace

void norm_to(void* out, Dtype dtype, const float* x, const float* weight, int64_t n_rows, int64_t n, float eps, cudaStream_t stream) {
  if (n_rows == 0) return;
  visit_narrow(dtype, [&]<typename T>(T) {
    norm_kernel<<<static_cast<unsigned>(n_rows), kThreads, 0, stream>>>(static_cast<T*>(out), x, weight, n, eps);
  });
  MINILLM_CUDA(cudaGetLastError());
}

void gate_to(void* out, Dtype dtype, const void* gate_up, Dtype in_dtype, int64_t n_rows, int64_t ffn, Activation activation,
             cudaStream_t stream) {
  const int64_t n = n_rows * ffn;
  if (n == 0) return;
  const auto grid = static_cast<unsigned>((n / 8 + kThreads - 1) / kThreads);
  const bool gelu = activation == Activation::kGeluTanh;
  visit_narrow(dtype, [&]<typename T>(T) {
    if (in_dtype == Dtype::kF32)
      gate_kernel<<<grid, kThreads, 0, stream>>>(static_cast<T*>(out), static_cast<const float*>(gate_up), n, ffn, gelu);
    else
      gate_kernel<<<grid, kThreads, 0, stream>>>(static_cast<T*>(out), static_cast<const __nv_bfloat16*>(gate_up), n, ffn, gelu);
  });
  MINILLM_CUDA(cudaGetLastError());
}

void append_rows(void* q, const AppendInputs& in, const DeviceStep& step, const KeyLayout& cache, cudaStream_t stream) {
  if (step.n_rows == 0) return;
  const auto grid = static_cast<unsigned>(step.n_rows);
  const size_t shared = static_cast<size_t>(kWarps * in.shape.head_dim) * sizeof(float);
  const auto append = [&]<typename T>(T) {
    append_kernel<T><<<grid, kThreads, shared, stream>>>(static_cast<Multiplied<T>*>(q), in, step, cache);
  };
  if (cache.dtype == Dtype::kF8)
    append(__nv_fp8_e4m3{});
  else
    visit_narrow(cache.dtype, append);
  MINILLM_CUDA(cudaGetLastError());
}

void widen_pages(void* to, int32_t* tables, const KeyLayout& cache, const DeviceStep& step, int64_t n_pages, int64_t page_elements,
                 cudaStream_t stream) {
  if (n_pages == 0) return;
  const auto blocks_a_page = static_cast<unsigned>((page_elements / 16 + kThreads - 1) / kThreads);
  widen_kernel<<<dim3(blocks_a_page, static_cast<unsigned>(n_pages)), kThreads, 0, stream>>>(
      static_cast<uint4*>(to), tables, static_cast<const uint4*>(cache.keys), cache.page_stride / 16, step.tables, page_elements / 16);
  MINILLM_CUDA(cudaGetLastError());
}

}  // namespace minillm::cuda
