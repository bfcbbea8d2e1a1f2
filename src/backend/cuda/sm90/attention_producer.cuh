// attention_producer.cuh - the warp that keeps the Hopper attention kernel fed: it draws query tiles and copies queries, keys and values
// through the copy engine, one lane a box. Pages become boxes of 64 columns by the keys that a page and a key tile have in common.
#pragma once

#include "backend/cuda/sm90/attention_prefill_traits.cuh"

namespace minillm::cuda::sm90 {

/// What a lane of the producer warp copies of each tile of keys or values: one box, 64 columns of some keys. Contiguous keys are one
/// box for each 64 columns; paged ones one for each piece of a page as well.
template <typename Traits>
struct KeyBox {
  const PrefillParams& p;
  const PrefillTile& tile;
  int column, first, n_boxes;  ///< first: key of the tile at which the box begins.

  __device__ __forceinline__ KeyBox(const PrefillParams& p_in, const PrefillTile& tile_in, int lane) : p(p_in), tile(tile_in) {
    column = lane % Traits::kBoxes;
    first = Traits::kPaged ? lane / Traits::kBoxes * p.box_keys : lane / Traits::kBoxes * Traits::kKeys;
    n_boxes = Traits::kPaged ? Traits::kKeys / p.box_keys : 1;
  }
  /// Keys of tile n that are copied: to the end of the last box that holds one of the sequence's.
  __device__ __forceinline__ int keys_of(int n) const {
    if (!Traits::kPaged) return Traits::kKeys;
    return min(n_boxes, (tile.n_keys - n * Traits::kKeys + p.box_keys - 1) / p.box_keys) * p.box_keys;
  }
  /// The page of the box in tile n.
  __device__ __forceinline__ int page(int n) const {
    const int key = n * Traits::kKeys + first;
    return Traits::kPaged && n >= 0 && first < keys_of(n) ? p.tables[tile.table + key / p.page_tokens] : 0;
  }
  __device__ __forceinline__ void load(Pipeline<Traits::kStages>& ring, Cursor<Traits::kStages>& at, const CUtensorMap* map,
                                       unsigned char* stage, int n, int page) const {
    const int kv_head = tile.head / p.heads_per_kv, n_keys = keys_of(n);
    Barrier& full = ring.full[at.stage];
    ring.wait_empty(at);
    if (column == 0 && first == 0) full.arrive_expecting(n_keys * Traits::kBoxes * 128);
    __syncwarp();
    unsigned char* const to = stage + column * Traits::kKeys * 128 + first * 128;
    if (first < n_keys) {
      if constexpr (Traits::kPaged)
        load_box(map, to, full, column * kBoxColumns, (n * Traits::kKeys + first) % p.page_tokens, kv_head, page);
      else
        load_box(map, to, full, column * kBoxColumns, kv_head, n * Traits::kKeys, tile.batch);
    }
    at.advance();
  }
};

/// The producer: one warp, which draws tiles and keeps the rings full.
template <typename Traits>
__device__ __forceinline__ void produce(const PrefillParams& p, PrefillShared<Traits>& shared) {
  Cursor<Traits::kStages> key_at, value_at;
  Cursor<1> query_at;
  Cursor<2> work_at;
  const int lane = threadIdx.x;
  int index = blockIdx.x;
  while (true) {
    const PrefillTile tile = tile_at<Traits>(p, index);
    shared.tiles.wait_empty(work_at);
    if (lane == 0) {
      shared.tile[work_at.stage] = tile;
      shared.tiles.full[work_at.stage].arrive();
    }
    work_at.advance();
    if (tile.n_rows == 0) break;

    const KeyBox<Traits> box(p, tile, lane);
    // In the order of use: scores run one key tile ahead of the output, so keys go first. Pages are looked up one tile earlier still.
    int n = key_tiles<Traits>(tile) - 1, page = box.page(n), next_page = box.page(n - 1);
    if (n >= 0) box.load(shared.keys, key_at, &p.k, shared.k[key_at.stage], n, page);
    shared.queries.wait_empty(query_at);
    if (lane == 0) {
      Barrier& query_full = shared.queries.full[0];
      query_full.arrive_expecting(Traits::kQueryBytes);
      for (int column = 0; column < Traits::kBoxes; ++column)
        load_box(&p.q, shared.q + column * Traits::kRows * 128, query_full, column * kBoxColumns, tile.head, tile.row, tile.batch);
    }
    query_at.advance();
    for (; n > 0; --n) {
      const int after = box.page(n - 2);
      box.load(shared.keys, key_at, &p.k, shared.k[key_at.stage], n - 1, next_page);
      box.load(shared.values, value_at, &p.v, shared.v[value_at.stage], n, page);
      page = next_page;
      next_page = after;
    }
    if (n == 0) box.load(shared.values, value_at, &p.v, shared.v[value_at.stage], 0, page);
    if (lane == 0) index = gridDim.x + atomicAdd(&p.tickets[0], 1);
    index = __shfl_sync(0xFFFFFFFFu, index, 0);
  }
  // The last block to stop leaves the counters as it found them.
  if (lane != 0) return;
  __threadfence();
  if (atomicAdd(&p.tickets[1], 1) == static_cast<int>(gridDim.x) - 1) {
    p.tickets[0] = 0;
    p.tickets[1] = 0;
  }
}

}  // namespace minillm::cuda::sm90
