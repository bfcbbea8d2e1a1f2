// decode_merge.cuh - from the sums of an item's warps to the result: one warp a head adds up the block's warps, and where the row is cut
// into several runs, the block that finishes a row and head last adds up the runs; mostly that is the block that had them all.
// Partial sums are [D] sums, maximum (base 2) and total. The order of additions is fixed by the cut.
// Source: Dao et al. 2023, Flash-Decoding.
#pragma once

#include "backend/cuda/device/decode_tile.cuh"
#include "backend/cuda/device/reduce.cuh"

namespace minillm::cuda {

/// A head's elements over a warp: pairs lane, lane + 32 and so on.
template <int kDim>
struct HeadSums {
  static constexpr int kPairs = (kDim / 2 + 31) / 32;
  float2 pair[kPairs] = {};

  template <typename F>
  __device__ __forceinline__ void each(int lane, F&& f) {
#pragma unroll
    for (int j = 0; j < kPairs; ++j)
      if (kDim % 64 == 0 || lane + 32 * j < kDim / 2) f(pair[j], lane + 32 * j);
  }
  __device__ __forceinline__ void add(float weight, const HeadSums& x) {
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      pair[j].x = fmaf(weight, x.pair[j].x, pair[j].x);
      pair[j].y = fmaf(weight, x.pair[j].y, pair[j].y);
    }
  }
};

__device__ __forceinline__ float finite_or_zero(float top) { return top == -INFINITY ? 0.0f : top; }

/// sums, maximum `top` and total of a row and head to the result; every lane of a warp calls it.
template <int kDim>
__device__ __forceinline__ void write_row(const DecodeArguments& p, int row, int head, HeadSums<kDim>& sums, float top, float total,
                                          int lane) {
  const int64_t row_head = int64_t{row} * p.a.n_heads + head;
  const float sink = p.a.sinks == nullptr ? -INFINITY : p.a.sinks[head] * kLog2E, highest = fmaxf(top, sink);
  const bool sees_any = highest != -INFINITY;
  const float share = sees_any ? exp2_fast(top - highest) : 0.0f, all = sees_any ? fmaf(total, share, exp2_fast(sink - highest)) : 1.0f;
  auto* out = reinterpret_cast<float2*>(p.out + row_head * kDim);
  sums.each(lane, [&](const float2& x, int i) { out[i] = {x.x * share / all, x.y * share / all}; });
  if (p.lse != nullptr && lane == 0) p.lse[row_head] = sees_any ? (highest + log2f(all)) * kLn2 : -INFINITY;
}

/// Adds up the runs of a row and head, n of them, `stride` floats apart, which other blocks have written. What every run weighs and the
/// first sums are asked for together: each comes from L2.
template <int kDim>
__device__ __forceinline__ void merge_runs(const DecodeArguments& p, int row, int head, const float* runs, int64_t stride, int n,
                                           int lane) {
  constexpr int kBatch = kDim <= 64 ? 16 : 8;
  const auto scalars_of = [&](int i) {
    return i < n ? __ldcg(reinterpret_cast<const float2*>(runs + i * stride + kDim)) : float2{-INFINITY, 0.0f};
  };
  const float2 mine[2] = {scalars_of(lane), scalars_of(lane + 32)};
  HeadSums<kDim> all, batch[kBatch];
  const auto load = [&](int first) {
#pragma unroll
    for (int b = 0; b < kBatch; ++b)
      if (first + b < n)
        batch[b].each(lane, [&](float2& x, int i) { x = __ldcg(reinterpret_cast<const float2*>(runs + (first + b) * stride) + i); });
  };
  load(0);
  float top = fmaxf(mine[0].x, mine[1].x);
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, distance));
  const float base = finite_or_zero(top), weight[2] = {exp2_fast(mine[0].x - base), exp2_fast(mine[1].x - base)};
  const float total = warp_sum(mine[0].y * weight[0] + mine[1].y * weight[1]);
  for (int first = 0; first < n; first += kBatch) {
    if (first > 0) load(first);
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int i = first + b;
      const float w = __shfl_sync(0xFFFFFFFFu, i < 32 ? weight[0] : weight[1], i % 32);
      if (i < n) all.add(w, batch[b]);
    }
  }
  write_row<kDim>(p, row, head, all, top, total, lane);
}

/// One warp's head of an item, from what the streaming warps left: sums [warp][group][kDim], scalars [warp][16][2]. The item is of a
/// share of the block's; a head's items in it are all this same warp's, so where the share has them all, nobody else need know.
template <int kDim, int kStreamWarps>
__device__ __forceinline__ void merge_head(const DecodeArguments& p, const Item& item, int n_runs, const Share& share, const float* sums,
                                           const float* scalars, int h, int group, int lane) {
  float top = -INFINITY, total = 0.0f;
#pragma unroll
  for (int w = 0; w < kStreamWarps; ++w) top = fmaxf(top, scalars[(w * kGroupRows + h) * 2]);
  const float base = finite_or_zero(top);
  HeadSums<kDim> all;
#pragma unroll
  for (int w = 0; w < kStreamWarps; ++w) {
    const float weight = exp2_fast(scalars[(w * kGroupRows + h) * 2] - base);
    total = fmaf(weight, scalars[(w * kGroupRows + h) * 2 + 1], total);
    HeadSums<kDim> of_warp;
    of_warp.each(lane, [&](float2& x, int i) { x = reinterpret_cast<const float2*>(sums + (w * group + h) * kDim)[i]; });
    all.add(weight, of_warp);
  }
  const int head = item.g * group + h;
  if (n_runs == 1) return write_row<kDim>(p, item.row, head, all, top, total, lane);

  const int64_t stride = int64_t{p.a.n_heads} * (kDim + 2);  // From run to run of a row.
  float* const runs = p.partial + (int64_t{item.row} * p.target_runs * p.a.n_heads + head) * (kDim + 2);
  float* const mine = runs + item.run * stride;
  all.each(lane, [&](const float2& x, int i) { reinterpret_cast<float2*>(mine)[i] = x; });
  if (lane == 0) *reinterpret_cast<float2*>(mine + kDim) = {top, total};
  if (item.run + 1 < n_runs && item.index + 1 < share.last) return;  // The head's next run is of this share as well.

  const int n_here = item.index + 1 - max(share.first, item.first_of_head);
  if (n_here < n_runs) {
    __threadfence();
    __syncwarp();
    unsigned int before = 0;
    unsigned int* const n_done = p.n_done + int64_t{item.row} * p.a.n_heads + head;
    if (lane == 0) before = atomicAdd(n_done, static_cast<unsigned int>(n_here));
    if (__shfl_sync(0xFFFFFFFFu, before, 0) + static_cast<unsigned int>(n_here) != static_cast<unsigned int>(n_runs)) return;
    if (lane == 0) *n_done = 0;  // For the next call.
    __threadfence();
  }
  __syncwarp();
  merge_runs<kDim>(p, item.row, head, runs, stride, n_runs, lane);
}

}  // namespace minillm::cuda
