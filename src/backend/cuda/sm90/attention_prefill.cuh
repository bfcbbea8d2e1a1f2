// attention_prefill.cuh - FlashAttention for Hopper: O = softmax(scale Q K^T) V for a tile of query rows at a time.
//
// A block is two producer warps (one lane a box) and two or three consumer warpgroups of 64 query rows each. The producers keep a ring of K
// tiles and one of V tiles full through the copy engine. A consumer holds its scores, weights and output in registers and walks the keys
// from the right:
//     S(n-1) = Q K(n-1)^T   issued, not awaited           tensor cores
//     O     += P(n) V(n)    issued, not awaited           tensor cores
//     P(n-1) = softmax(S(n-1)) while O's product runs     multi-function unit
// Within a warpgroup, softmax so hides under a product; between warpgroups, named barriers let one issue its products while the other is
// in its softmax (ping-pong). Blocks are persistent and draw tiles from schedule.cuh.
//
// Sources: Dao et al. 2022, arXiv:2205.14135; Shah et al. 2024 (FlashAttention-3), arXiv:2407.08608.
// Cost:    4 D multiply-adds and one exponential for each visible score; K and V from L2, once for each tile of query rows.
#pragma once

#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/device/softmax.cuh"
#include "backend/cuda/sm90/attention_producer.cuh"
#include "backend/cuda/sm90/wgmma.cuh"

namespace minillm::cuda::sm90 {

/// One consumer warpgroup's work on one query tile: registers and the steps of the loop.
template <typename Traits>
struct Consumer {
  using T = typename Traits::Element;
  static constexpr int kKeys = Traits::kKeys, kHeadDim = Traits::kHeadDim;
  static constexpr float kLog2e = 1.4426950408889634f;

  PrefillShared<Traits>& shared;
  const PrefillParams& p;
  const int warpgroup, thread;  ///< thread: in the warpgroup
  Cursor<Traits::kStages> key_at, value_at;
  float scores[kKeys / 2];
  float out[kHeadDim / 2];
  uint32_t weights[kKeys / 16][4];
  OnlineSoftmax softmax;

  /// scores = Q K^T of the key stage at key_at; issued and committed.
  __device__ __forceinline__ void issue_scores() {
    const uint64_t q = tile_descriptor(shared.q + warpgroup * 64 * 128, 0);
    const uint64_t k = tile_descriptor(shared.k[key_at.stage], 0);
    pin(scores);
    wgmma_fence();
#pragma unroll
    for (int kk = 0; kk < kHeadDim / 16; ++kk) {
      const int box = kk / 4, step = (kk % 4) * 32;
      wgmma<Major::kRows>(scores, q + (box * Traits::kRows * 128 + step) / 16, k + (box * kKeys * 128 + step) / 16, kk != 0, T{});
    }
    wgmma_commit();
  }

  /// out += weights V of the value stage at value_at; issued and committed.
  __device__ __forceinline__ void issue_output() {
    const uint64_t v = tile_descriptor(shared.v[value_at.stage], kKeys * 128);
    pin(out);
    wgmma_fence();
#pragma unroll
    for (int kk = 0; kk < kKeys / 16; ++kk) wgmma<Major::kColumns>(out, weights[kk], v + kk * (16 * 128 / 16), true, T{});
    wgmma_commit();
  }

  /// Scores of keys that a row must not see become -inf.
  __device__ __forceinline__ void mask(const PrefillTile& tile, int n) {
    const int row = warpgroup * 64 + (thread / 32) * 16 + (thread % 32) / 4;
    const int first_key = n * kKeys + 2 * (thread % 4);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int last = Traits::kCausal ? min(tile.n_keys, tile.first_sees + row + 8 * r) : tile.n_keys;
#pragma unroll
      for (int i = 0; i < kKeys / 4; ++i) {
        const int key = first_key + (i / 2) * 8 + i % 2;
        if (key >= last) scores[(i / 2) * 4 + 2 * r + i % 2] = -INFINITY;
      }
    }
  }

  __device__ __forceinline__ void pack_weights() {
#pragma unroll
    for (int i = 0; i < kKeys / 4; ++i) weights[i / 4][i % 4] = pack2<T>(scores[2 * i], scores[2 * i + 1]);
  }

  __device__ __forceinline__ void rescale(const float (&keep)[2]) {
#pragma unroll
    for (int i = 0; i < kHeadDim / 4; ++i) {
      out[(i / 2) * 4 + i % 2] *= keep[0];
      out[(i / 2) * 4 + 2 + i % 2] *= keep[1];
    }
  }

  __device__ __forceinline__ void release(Pipeline<Traits::kStages>& ring, Cursor<Traits::kStages>& at) {
    if (thread % 32 == 0) ring.release(at);
    at.advance();
  }

  // Warpgroups take turns to issue: each waits for its own barrier and then lets the next one go.
  __device__ __forceinline__ void wait_turn() {
    if constexpr (Traits::kPingPong) named_sync(1 + warpgroup, 256);
  }
  __device__ __forceinline__ void pass_turn() {
    if constexpr (Traits::kPingPong) named_arrive(1 + (warpgroup + 1) % Traits::kWarpgroups, 256);
  }

  /// Ends the output product that is under way, if any, and prepares the next: rescales the sums, packs the new weights.
  __device__ __forceinline__ void finish_output(bool under_way, const float (&keep)[2]) {
    wgmma_wait<0>();
    pin(out);
    if (under_way) release(shared.values, value_at);
    rescale(keep);
    pack_weights();
  }

  /// One step of the loop: scores and softmax of key tile n, under the output product of tile n + 1. The step before is finished
  /// only after the wait for the keys: that loop is a border which the compiler does not cross, so the step's exponentials stay
  /// in front of the wait for the output product and run under it (docs/SPEED.md, "waits that move").
  template <bool kMasked>
  __device__ __forceinline__ void step(const PrefillTile& tile, int n, bool& under_way, float (&keep)[2]) {
    shared.keys.wait_full(key_at);
    finish_output(under_way, keep);
    under_way = true;
    wait_turn();
    issue_scores();
    shared.values.wait_full(value_at);
    issue_output();
    pass_turn();
    wgmma_wait<1>();
    pin(scores);
    release(shared.keys, key_at);
    if (n == 0) release_queries_early();
    if (kMasked) mask(tile, n);
    softmax.template update<kMasked>(scores, p.scale * kLog2e, keep);
    pin(scores);
  }

  __device__ __forceinline__ void attend(const PrefillTile& tile) {
    softmax = OnlineSoftmax();
#pragma unroll
    for (float& o : out) o = 0.0f;
    int n = key_tiles<Traits>(tile) - 1;
    // The rightmost tile has no output product to hide under.
    shared.keys.wait_full(key_at);
    wait_turn();
    issue_scores();
    pass_turn();
    wgmma_wait<0>();
    pin(scores);
    release(shared.keys, key_at);
    if (n == 0) release_queries_early();
    mask(tile, n);
    float keep[2];
    softmax.template update<true>(scores, p.scale * kLog2e, keep);

    if (Traits::kPaged && tile.n_keys < (n + 1) * kKeys) clear_values(tile.n_keys - n * kKeys);
    bool under_way = false;
    --n;
    if constexpr (Traits::kCausal) {
      // Up to the first key that the tile's first row does not see.
      for (; n >= 0 && (n + 1) * kKeys > tile.first_sees; --n) step<true>(tile, n, under_way, keep);
    }
    for (; n >= 0; --n) step<false>(tile, n, under_way, keep);
    shared.values.wait_full(value_at_after(under_way));
    finish_output(under_way, keep);
    issue_output();
    wgmma_wait<0>();
    pin(out);
    release(shared.values, value_at);
  }

  /// Zeros over the values past the sequence's end: a page's unused slots may hold NaN, which a weight of 0 does not remove.
  __device__ __forceinline__ void clear_values(int first) {
    shared.values.wait_full(value_at);
    const int n_chunks = (kKeys - first) * 8, at = warpgroup * 128 + thread;
    for (int box = 0; box < Traits::kBoxes; ++box) {
      auto* to = reinterpret_cast<uint4*>(shared.v[value_at.stage] + (box * kKeys + first) * 128);
      for (int i = at; i < n_chunks; i += 128 * Traits::kWarpgroups) to[i] = uint4{};
    }
    fence_async_proxy();
    named_sync(12, 128 * Traits::kWarpgroups);
  }

  /// The value stage behind the one whose product is under way.
  __device__ __forceinline__ Cursor<Traits::kStages> value_at_after(bool under_way) const {
    Cursor<Traits::kStages> next = value_at;
    if (under_way) next.advance();
    return next;
  }

  /// Normalises and stores the tile: registers to swizzled shared memory, then by the copy engine, which drops rows past the end.
  __device__ __forceinline__ void store(const PrefillTile& tile) {
    float factor[2], lse[2];
    softmax.finish(p.scale, factor, lse);
    rescale(factor);
    // Over the queries each warpgroup keeps to its own rows: another one may still be reading the rest.
    constexpr int kBoxBytes = (Traits::kSeparateOutput ? 64 : Traits::kRows) * 128;
    unsigned char* const stage =
        Traits::kSeparateOutput ? shared.out + warpgroup * 64 * kHeadDim * sizeof(T) : shared.q + warpgroup * 64 * 128;
    const int lane = thread % 32, row = (thread / 32) * 16 + (lane / 8 % 2) * 8 + lane % 8;
    if (thread == 0) wait_stores_read();
    named_sync(8 + warpgroup, 128);
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; ++i) {
      uint32_t pair[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        pair[j] = p.half_output ? pack2<__half>(out[8 * i + 2 * j], out[8 * i + 2 * j + 1])
                                : pack2<__nv_bfloat16>(out[8 * i + 2 * j], out[8 * i + 2 * j + 1]);
      }
      const int chunk = 2 * i + lane / 16;
      const uint32_t to = shared_address(stage + (chunk / 8) * kBoxBytes + row * 128 + ((chunk % 8) ^ (row % 8)) * 16);
      asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(pair[0]), "r"(pair[1]), "r"(pair[2]),
                   "r"(pair[3])
                   : "memory");
    }
    fence_async_proxy();
    named_sync(8 + warpgroup, 128);
    const int first_row = tile.row + warpgroup * 64, n_rows = tile.n_rows - warpgroup * 64;
    if (Traits::kPaged && n_rows < 64) {
      copy_rows(stage, kBoxBytes, first_row, n_rows, tile.head);
    } else if (thread == 0) {
      if (n_rows > 0)
        for (int box = 0; box < Traits::kBoxes; ++box)
          store_box(&p.out, stage + box * kBoxBytes, box * kBoxColumns, tile.head, first_row, tile.batch);
      commit_stores();
      if (!Traits::kSeparateOutput) wait_stores_read();
    }
    if (p.lse == nullptr || lane % 4 != 0) return;
    for (int r = 0; r < 2; ++r) {
      const int at = (thread / 32) * 16 + lane / 4 + 8 * r;
      if (at >= n_rows) continue;
      if (Traits::kPaged)
        p.lse[static_cast<int64_t>(first_row + at) * p.schedule.n_heads + tile.head] = lse[r];
      else
        p.lse[(static_cast<int64_t>(tile.batch) * p.schedule.n_heads + tile.head) * p.n_queries + first_row + at] = lse[r];
    }
  }

  /// The first rows of a staged tile to device memory: the rows behind them are another sequence's.
  __device__ __forceinline__ void copy_rows(const unsigned char* stage, int box_bytes, int first_row, int n_rows, int head) {
    for (int i = thread; i < n_rows * (kHeadDim / 8); i += 128) {
      const int row = i / (kHeadDim / 8), chunk = i % (kHeadDim / 8);
      const auto* from = reinterpret_cast<const uint4*>(stage + chunk / 8 * box_bytes + row * 128 + ((chunk % 8) ^ (row % 8)) * 16);
      static_cast<uint4*>(p.rows_out)[(static_cast<int64_t>(first_row + row) * p.schedule.n_heads + head) * (kHeadDim / 8) + chunk] = *from;
    }
  }

  __device__ __forceinline__ void run() {
    if (Traits::kPingPong && warpgroup == Traits::kWarpgroups - 1) named_arrive(1, 256);  // The first turn is the first warpgroup's.
    Cursor<2> work_at;
    Cursor<1> query_at;
    while (true) {
      shared.tiles.wait_full(work_at);
      const PrefillTile& work = shared.tile[work_at.stage];
      const PrefillTile tile{uniform(work.row),
                             uniform(work.n_rows),
                             uniform(work.n_keys),
                             uniform(work.first_sees),
                             uniform(work.head),
                             uniform(work.batch),
                             0};
      __syncwarp();  // Every lane has read.
      if (thread % 32 == 0) shared.tiles.release(work_at);
      work_at.advance();
      if (tile.n_rows == 0) break;
      const bool sees_any = key_tiles<Traits>(tile) > 0;
      shared.queries.wait_full(query_at);
      query_at.advance();
      if (sees_any) {
        attend(tile);
      } else {
        release_queries_early();
        softmax = OnlineSoftmax();
#pragma unroll
        for (float& o : out) o = 0.0f;
      }
      store(tile);
      if (!Traits::kSeparateOutput) {
        named_sync(8 + warpgroup, 128);  // The stores have read what the next queries overwrite.
        release_queries();
      }
    }
    if (thread == 0) wait_stores_read();
    if (Traits::kPingPong && warpgroup == 0) named_sync(1, 256);  // The turn that nobody takes.
  }
  /// After the last scores of a tile, so that the next queries load under its last softmax and output product.
  __device__ __forceinline__ void release_queries_early() {
    if constexpr (Traits::kSeparateOutput) release_queries();
  }
  __device__ __forceinline__ void release_queries() {
    __syncwarp();
    if (thread % 32 == 0) shared.queries.empty[0].arrive();
  }
};

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, 1) attention_prefill_kernel(const __grid_constant__ PrefillParams p) {
  extern __shared__ __align__(1024) unsigned char raw[];
  auto& shared = *reinterpret_cast<PrefillShared<Traits>*>(raw);
  if (threadIdx.x == 0) {
    prefetch_map(&p.q);
    prefetch_map(&p.k);
    prefetch_map(&p.v);
    constexpr uint32_t kConsumerWarps = 4 * Traits::kWarpgroups;
    shared.keys.init(kConsumerWarps);
    shared.values.init(kConsumerWarps);
    shared.queries.init(kConsumerWarps);
    shared.tiles.init(kConsumerWarps + 1);  // And the warp that loads values.
    fence_barrier_init();
  }
  __syncthreads();
  const int warpgroup = uniform(threadIdx.x / 128);
  if (warpgroup == 0) {
    give_up_registers<Traits::kProducerRegisters>();
    if (threadIdx.x < 32)
      produce_keys(p, shared, threadIdx.x);
    else if (threadIdx.x < 64)
      produce_values(p, shared, threadIdx.x - 32);
  } else {
    take_registers<Traits::kConsumerRegisters>();
    Consumer<Traits> consumer{shared, p, warpgroup - 1, static_cast<int>(threadIdx.x % 128)};
    consumer.run();
  }
}

}  // namespace minillm::cuda::sm90
