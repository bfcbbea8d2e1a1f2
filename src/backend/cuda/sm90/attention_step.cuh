// attention_step.cuh - from a step to the kernel's parameters: tensor maps of queries, pages and output, and the schedule.
#pragma once

#include <algorithm>
#include <numeric>

#include "backend/cuda/device/launch.cuh"
#include "backend/cuda/driver.h"
#include "backend/cuda/sm90/attention_prefill.cuh"
#include "backend/cuda/sm90/attention_step.h"

namespace minillm::cuda::sm90 {

template <typename Traits>
void launch_step(const StepAttention& s, cudaStream_t stream) {
  constexpr size_t kL2Bytes = size_t{32} << 20;  // What a group of heads may keep in L2.
  const AttentionScalars& a = s.a;
  const KeyLayout& cache = s.cache;
  const int64_t d = a.head_dim;
  PrefillParams p{};
  p.box_keys = static_cast<int>(std::gcd(cache.page_tokens, Traits::kKeys));
  p.q = box_map(s.q, {d, a.n_heads, s.n_rows, 1}, {d, d * a.n_heads, d * a.n_heads * s.n_rows}, 2, Traits::kRows);
  p.out = box_map(s.out, {d, a.n_heads, s.n_rows, 1}, {d, d * a.n_heads, d * a.n_heads * s.n_rows}, 2, 64);
  const int64_t sizes[4] = {d, cache.page_tokens, a.n_kv_heads, cache.n_pages};
  const int64_t strides[3] = {cache.token_stride, cache.head_stride, cache.page_stride};
  p.k = box_map(cache.keys, sizes, strides, 1, p.box_keys);
  p.v = box_map(cache.values, sizes, strides, 1, p.box_keys);
  p.lse = s.lse;
  p.tickets = s.tickets;
  const auto bytes_a_head = static_cast<size_t>(s.max_keys * d * 4 * a.n_kv_heads / a.n_heads);
  int group = 1;
  while (group * 2 <= a.n_heads && static_cast<size_t>(group) * 2 * bytes_a_head <= kL2Bytes) group *= 2;
  const int n_tiles = static_cast<int>(s.n_tiles);
  p.schedule = {n_tiles, a.n_heads, n_tiles * a.n_heads, group, false};
  p.heads_per_kv = a.n_heads / a.n_kv_heads;
  p.scale = a.scale;
  p.half_output = s.out_dtype == Dtype::kF16;
  p.step_tiles = reinterpret_cast<const StepTile*>(s.tiles);
  p.tables = s.tables;
  p.page_tokens = cache.page_tokens;
  p.rows_out = s.out;
  constexpr size_t kShared = sizeof(PrefillShared<Traits>);
  allow_shared(attention_prefill_kernel<Traits>, kShared);
  const auto grid = static_cast<unsigned>(std::min(s.n_multiprocessors, p.schedule.n_tiles));
  attention_prefill_kernel<Traits><<<grid, Traits::kThreads, kShared, stream>>>(p);
  MINILLM_CUDA(cudaGetLastError());
}

template <int kHeadDim, int kWarpgroups, int kKeys>
void launch_for_type(const StepAttention& s, cudaStream_t stream) {
  static_assert(sizeof(StepTile) == kStepTileInts * sizeof(int32_t));
  if (s.cache.dtype == Dtype::kF16)
    launch_step<PrefillTraits<__half, kHeadDim, kWarpgroups, kKeys, true, true>>(s, stream);
  else
    launch_step<PrefillTraits<__nv_bfloat16, kHeadDim, kWarpgroups, kKeys, true, true>>(s, stream);
}

}  // namespace minillm::cuda::sm90
