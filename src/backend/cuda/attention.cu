// attention.cu - attention for every shape and option, paged or dense: the general kernel, and the score-matrix baseline.
//   out[t, h] = sum_s p_s v_s,  p = softmax over the visible s of  cap tanh(scale q.k_s / cap) - slope distance(t, s), sinks in the sum.
// One block a query head of a row; its four warps take every fourth key, each with an online softmax of its own, merged in warp order
// at the end. A row's result so depends on its position alone: the same in any batch. Keys that a row does not see are never read.
// Sources: Milakov & Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135; Press et al. 2021, arXiv:2108.12409 (ALiBi);
//          Xiao et al. 2023, arXiv:2309.17453 (sinks).
// Cost:    K and V once for each query head, from L2 where heads share them: right everywhere, and the floor under the fast kernels.
#include <cmath>
#include <cstdint>

#include "backend/cuda/check.h"
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/launch.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/operations.h"

namespace minillm::cuda {
namespace {

constexpr int kWarps = 4;

/// Which keys a row sees, and where they lie.
struct RowKeys {
  int64_t slot, first, last;  ///< Sees slots [first, last).
  const int32_t* table;       ///< Null where not paged.
  int64_t base;               ///< Elements before the sequence where not paged.

  __device__ int64_t at(const KeyLayout& layout, int64_t s) const {
    if (table == nullptr) return base + s * layout.token_stride;
    return int64_t{table[s / layout.page_tokens]} * layout.page_stride + s % layout.page_tokens * layout.token_stride;
  }
};

__device__ RowKeys row_keys(const AttentionRows& rows, const KeyLayout& layout, const AttentionScalars& a, int64_t row) {
  RowKeys keys;
  int64_t n_keys;
  if (rows.queries_per_batch == 0) {
    keys.slot = rows.step.slots[row];
    n_keys = rows.step.key_counts[row];
    keys.table = rows.step.tables + rows.step.table_starts[row];
    keys.base = 0;
  } else {
    n_keys = rows.keys_per_batch;
    keys.slot = row % rows.queries_per_batch + n_keys - rows.queries_per_batch;  // Bottom-right aligned.
    keys.table = nullptr;
    keys.base = row / rows.queries_per_batch * layout.batch_stride;
  }
  keys.first = a.window > 0 ? max(int64_t{0}, min(n_keys, keys.slot - a.window + 1)) : 0;
  keys.last = a.causal ? max(keys.first, min(n_keys, keys.slot + 1)) : n_keys;
  return keys;
}

__device__ __forceinline__ float score_of(float dot, const AttentionScalars& a, int head, int64_t distance) {
  float score = dot * a.scale;
  if (a.softcap != 0.0f) score = a.softcap * tanhf(score / a.softcap);
  if (a.alibi != nullptr) score -= a.alibi[head] * static_cast<float>(distance < 0 ? -distance : distance);
  return score;
}

/// q . k over D, the same in every lane.
template <typename T, int kPerLane>
__device__ __forceinline__ float dot(const float (&q)[kPerLane], const T* k, int head_dim, int lane) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int d = lane + 32 * i;
    if (d < head_dim) sum = fmaf(q[i], to_float(k[d]), sum);
  }
  return warp_sum(sum);
}

template <typename T, int kPerLane>
__global__ void flash_kernel(float* out, float* lse, const float* q, KeyLayout layout, AttentionRows rows, AttentionScalars a) {
  let_successor_start();
  wait_for_predecessor();
  const int64_t row = blockIdx.x;
  const int head = blockIdx.y, g = head / (a.n_heads / a.n_kv_heads), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const RowKeys keys = row_keys(rows, layout, a, row);
  const int64_t at_query = (row * a.n_heads + head) * a.head_dim;

  float query[kPerLane] = {}, acc[kPerLane] = {}, max = -INFINITY, sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i)
    if (lane + 32 * i < a.head_dim) query[i] = q[at_query + lane + 32 * i];
  for (int64_t s = keys.first + warp; s < keys.last; s += kWarps) {
    const int64_t at = keys.at(layout, s) + g * layout.head_stride;
    const float score = score_of(dot(query, static_cast<const T*>(layout.keys) + at, a.head_dim, lane), a, head, keys.slot - s);
    const float now = fmaxf(max, score);
    if (now == -INFINITY) continue;  // Nothing seen yet: exp(-inf + inf) is NaN.
    const float keep = expf(max - now), weight = expf(score - now);
    const T* v = static_cast<const T*>(layout.values) + at;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      if (lane + 32 * i < a.head_dim) acc[i] = fmaf(weight, to_float(v[lane + 32 * i]), acc[i] * keep);
    sum = fmaf(sum, keep, weight);
    max = now;
  }

  __shared__ float maxima[kWarps], sums[kWarps], partial[kWarps][32 * kPerLane];
  if (lane == 0) maxima[warp] = max, sums[warp] = sum;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) partial[warp][lane + 32 * i] = acc[i];
  __syncthreads();
  if (warp != 0) return;
  float top = a.sinks == nullptr ? -INFINITY : a.sinks[head];
  for (int w = 0; w < kWarps; ++w) top = fmaxf(top, maxima[w]);
  const bool sees_any = top != -INFINITY;
  float total = sees_any && a.sinks != nullptr ? expf(a.sinks[head] - top) : 0.0f, share[kWarps];
  for (int w = 0; w < kWarps; ++w) {
    share[w] = sees_any ? expf(maxima[w] - top) : 0.0f;
    total = fmaf(sums[w], share[w], total);
  }
  for (int d = lane; d < a.head_dim; d += 32) {
    float o = 0.0f;
    for (int w = 0; w < kWarps; ++w) o = fmaf(partial[w][d], share[w], o);
    out[at_query + d] = sees_any ? o / total : 0.0f;
  }
  if (lse != nullptr && lane == 0) lse[row * a.n_heads + head] = sees_any ? top + logf(total) : -INFINITY;
}

/// scores[row, head, s], -inf where the row does not see s.
template <typename T, int kPerLane>
__global__ void score_kernel(float* scores, int64_t max_keys, const float* q, KeyLayout layout, AttentionRows rows, AttentionScalars a) {
  const int64_t row = blockIdx.x;
  const int head = blockIdx.y, g = head / (a.n_heads / a.n_kv_heads), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const RowKeys keys = row_keys(rows, layout, a, row);
  float query[kPerLane] = {};
#pragma unroll
  for (int i = 0; i < kPerLane; ++i)
    if (lane + 32 * i < a.head_dim) query[i] = q[(row * a.n_heads + head) * a.head_dim + lane + 32 * i];
  for (int64_t s = warp; s < max_keys; s += kWarps) {
    float score = -INFINITY;
    if (s >= keys.first && s < keys.last) {
      const T* k = static_cast<const T*>(layout.keys) + keys.at(layout, s) + g * layout.head_stride;
      score = score_of(dot(query, k, a.head_dim, lane), a, head, keys.slot - s);
    }
    if (lane == 0) scores[(row * a.n_heads + head) * max_keys + s] = score;
  }
}

/// Softmax over the stored scores, then the product with V.
template <typename T>
__global__ void weigh_kernel(float* out, float* lse, float* scores, int64_t max_keys, KeyLayout layout, AttentionRows rows,
                             AttentionScalars a) {
  constexpr int kThreads = 32 * kWarps;
  const int64_t row = blockIdx.x;
  const int head = blockIdx.y, g = head / (a.n_heads / a.n_kv_heads);
  const RowKeys keys = row_keys(rows, layout, a, row);
  float* mine = scores + (row * a.n_heads + head) * max_keys;
  __shared__ float shared_max[kThreads];
  float max = a.sinks == nullptr ? -INFINITY : a.sinks[head];
  for (int64_t s = keys.first + threadIdx.x; s < keys.last; s += kThreads) max = fmaxf(max, mine[s]);
  shared_max[threadIdx.x] = max;
  __syncthreads();
  for (int i = 0; i < kThreads; ++i) max = fmaxf(max, shared_max[i]);
  const bool sees_any = max != -INFINITY;
  float sum = 0.0f;
  for (int64_t s = keys.first + threadIdx.x; sees_any && s < keys.last; s += kThreads) {
    mine[s] = expf(mine[s] - max);
    sum += mine[s];
  }
  sum = block_sum<kThreads>(sum);
  if (sees_any && a.sinks != nullptr) sum += expf(a.sinks[head] - max);
  __syncthreads();
  for (int d = threadIdx.x; d < a.head_dim; d += kThreads) {
    float o = 0.0f;
    for (int64_t s = keys.first; sees_any && s < keys.last; ++s)
      o = fmaf(mine[s], to_float(static_cast<const T*>(layout.values)[keys.at(layout, s) + g * layout.head_stride + d]), o);
    out[(row * a.n_heads + head) * a.head_dim + d] = sees_any ? o / sum : 0.0f;
  }
  if (lse != nullptr && threadIdx.x == 0) lse[row * a.n_heads + head] = sees_any ? max + logf(sum) : -INFINITY;
}

template <typename T, int kPerLane>
void launch_attention(float* out, float* lse, const float* q, const KeyLayout& layout, const AttentionRows& rows, const AttentionScalars& a,
                      float* scores, int64_t max_keys, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(rows.n_rows), static_cast<unsigned>(a.n_heads));
  if (scores == nullptr) {
    launch(flash_kernel<T, kPerLane>, grid, 32 * kWarps, 0, stream, out, lse, q, layout, rows, a);
  } else {
    score_kernel<T, kPerLane><<<grid, 32 * kWarps, 0, stream>>>(scores, max_keys, q, layout, rows, a);
    MINILLM_CUDA(cudaGetLastError());
    weigh_kernel<T><<<grid, 32 * kWarps, 0, stream>>>(out, lse, scores, max_keys, layout, rows, a);
  }
  MINILLM_CUDA(cudaGetLastError());
}

template <typename T>
void launch_for_width(float* out, float* lse, const float* q, const KeyLayout& layout, const AttentionRows& rows, const AttentionScalars& a,
                      float* scores, int64_t max_keys, cudaStream_t stream) {
  if (a.head_dim <= 64)
    launch_attention<T, 2>(out, lse, q, layout, rows, a, scores, max_keys, stream);
  else if (a.head_dim <= 128)
    launch_attention<T, 4>(out, lse, q, layout, rows, a, scores, max_keys, stream);
  else if (a.head_dim <= 256)
    launch_attention<T, 8>(out, lse, q, layout, rows, a, scores, max_keys, stream);
  else if (a.head_dim <= 512)
    launch_attention<T, 16>(out, lse, q, layout, rows, a, scores, max_keys, stream);
  else
    throw Error(ErrorCode::kUnsupported, "cuda: heads of ", a.head_dim, " elements; at most 512");
}

void dispatch(float* out, float* lse, const float* q, const KeyLayout& layout, const AttentionRows& rows, const AttentionScalars& a,
              float* scores, int64_t max_keys, cudaStream_t stream) {
  if (rows.n_rows == 0) return;
  if (layout.dtype == Dtype::kF32)
    launch_for_width<float>(out, lse, q, layout, rows, a, scores, max_keys, stream);
  else if (layout.dtype == Dtype::kF16)
    launch_for_width<__half>(out, lse, q, layout, rows, a, scores, max_keys, stream);
  else if (layout.dtype == Dtype::kF8)
    launch_for_width<__nv_fp8_e4m3>(out, lse, q, layout, rows, a, scores, max_keys, stream);
  else
    launch_for_width<__nv_bfloat16>(out, lse, q, layout, rows, a, scores, max_keys, stream);
}

}  // namespace

void flash_attention(float* out, float* lse, const float* q, const KeyLayout& cache, const AttentionRows& rows,
                     const AttentionScalars& scalars, cudaStream_t stream) {
  dispatch(out, lse, q, cache, rows, scalars, nullptr, 0, stream);
}

void standard_attention(float* out, float* lse, const float* q, const KeyLayout& cache, const AttentionRows& rows,
                        const AttentionScalars& scalars, float* scores, int64_t max_keys, cudaStream_t stream) {
  dispatch(out, lse, q, cache, rows, scalars, scores, max_keys, stream);
}

}  // namespace minillm::cuda
