// decode_help.cuh - the warps of decode attention that help its streams: they make queries ready, append a step's own keys and values, and
// merge the sums (decode_merge.cuh).
#pragma once

#include "backend/cuda/device/decode_merge.cuh"
#include "backend/cuda/device/decode_stream.cuh"
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/launch.cuh"
#include "backend/cuda/device/rotate.cuh"

namespace minillm::cuda {

/// The group's heads of the q/k/v product, biased, normed and rotated, to `to`; key and value only where the item holds the row's token,
/// and those go to the cache as well. Every load comes first: they take as long as all the rest.
template <typename Traits>
__device__ __forceinline__ void prepare_heads(const DecodeBlock<Traits>& block, const Item& item, unsigned char* to) {
  using T = typename Traits::T;
  using M = typename Traits::M;
  constexpr int kDim = Traits::kDim;
  const DecodeArguments& p = block.p;
  const int thread = block.warp * 32 + block.lane, group = block.group, lane = block.lane;
  const int slot = block.rows.cut[item.row].visible.slot;
  const bool holds_token = slot >= item.begin && slot < item.begin + item.n_tiles * kDecodeTile;
  const int n_ready = group + (holds_token ? 2 : 0);
  const auto head_of = [&](int j) { return j < group ? item.g * group + j : p.a.n_heads + (j - group) * p.a.n_kv_heads + item.g; };
  auto* heads = reinterpret_cast<float*>(block.shared + block.places.heads);
  float* angles = heads + (group + 2) * kDim;
  named_sync(kHelpersMeet, kHelpThreads);  // All have left the last item's heads.
  constexpr int kBatch = 4;
  for (int first = 0; first < n_ready * kDim; first += kBatch * kHelpThreads) {
    float x[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int at = first + i * kHelpThreads + thread;
      if (at < n_ready * kDim) x[i] = raw_element(p.append, item.row, head_of(at / kDim), at % kDim);
    }
    if (first == 0)
      for (int i = thread; i < p.append.shape.rope_dim; i += kHelpThreads)
        angles[i] = p.append.angles[int64_t{item.row} * p.append.shape.rope_dim + i];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int at = first + i * kHelpThreads + thread;
      if (at < n_ready * kDim) heads[at] = x[i];
    }
  }
  named_sync(kHelpersMeet, kHelpThreads);
  for (int j = block.warp; j < n_ready; j += kHelpWarps) {
    float* head = heads + j * kDim;
    prepare_head(head, p.append, angles, head_of(j), lane);
    unsigned char* const row = to + (j < group ? j : kTokenRow + j - group) * kQueryBytes<kDim>;
    if (j < group) {
      for (int d = lane; d < kDim; d += 32) reinterpret_cast<M*>(row)[d] = from_float<M>(head[d]);
      continue;
    }
    T* stored =
        static_cast<T*>(const_cast<void*>(j == group ? p.cache.keys : p.cache.values)) + place_of_token(p.step, p.cache, item.row, item.g);
    for (int d = lane; d < kDim; d += 32) stored[d] = reinterpret_cast<T*>(row)[d] = from_float<T>(head[d]);
  }
}

/// Before an item: its queries, where they are not there yet, and word that the streams may write its sums.
template <typename Traits>
__device__ __forceinline__ void prepare(const DecodeBlock<Traits>& block, const ItemWalk& walk, int parity, int& set) {
  constexpr int kDim = Traits::kDim;
  const Item& item = walk.item;
  if (walk.needs_queries()) {
    set ^= 1;
    unsigned char* const to = block.queries(set);
    if (block.appends()) {
      prepare_heads(block, item, to);
    } else {
      const float* q = block.p.q + (int64_t{item.row} * block.p.a.n_heads + item.g * block.group) * kDim;
      for (int i = block.warp * 32 + block.lane; i < block.group * (kDim / 2); i += kHelpThreads) {
        const float2 x = reinterpret_cast<const float2*>(q)[i];
        reinterpret_cast<uint32_t*>(to + i / (kDim / 2) * kQueryBytes<kDim>)[i % (kDim / 2)] = pack2<typename Traits::M>(x.x, x.y);
      }
    }
  }
  named_arrive(kQueriesReady + parity, Traits::kMeetingThreads);
}

/// The role of the helping warps. With two sets of sums the next item's queries come before this one's merge, so that the streams go on;
/// the streams write a set again only after queries that follow its merge.
template <typename Traits>
__device__ __forceinline__ void help(const DecodeBlock<Traits>& block) {
  wait_for_predecessor();
  ItemWalk ahead;
  int set = 1;
  ahead.next(block.ring, block.rows, block.lane);
  if (!ahead.done) prepare(block, ahead, 0, set);
  for (int parity = 0; !ahead.done; parity ^= 1) {
    const Item item = ahead.item;
    const Share share = ahead.share;
    const auto prepare_next = [&] {
      ahead.next(block.ring, block.rows, block.lane);
      if (!ahead.done) prepare(block, ahead, parity ^ 1, set);
    };
    if (block.p.n_sums == 2) prepare_next();
    named_sync(kSumsReady + parity, Traits::kMeetingThreads);
    for (int h = block.warp; h < block.group; h += kHelpWarps)
      merge_head<Traits::kDim, Traits::kStreamWarps>(block.p, item, block.rows.cut[item.row].n_runs, share, block.sums(parity),
                                                     block.scalars(parity), h, block.group, block.lane);
    if (block.p.n_sums == 1) prepare_next();
  }
}

}  // namespace minillm::cuda
