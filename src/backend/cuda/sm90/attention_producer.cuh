// attention_producer.cuh - the two warps that keep the Hopper attention kernel fed through the copy engine, one lane a box: one draws query
// tiles and copies queries and keys, the other copies values, so that neither kind of box waits for a stage of the other kind, and the
// many small boxes of short pages are issued from two sides. Pages become boxes of 64 columns by the keys that a page and a key tile have
// in common.
#pragma once

#include "backend/cuda/sm90/attention_prefill_traits.cuh"

namespace minillm::cuda::sm90 {

/// What a lane of the producer warp copies of each tile of keys or values: one box, 64 columns of some keys. Contiguous keys are one
/// box for each 64 columns; paged ones one for each piece of a page as well.
template <typename Traits>
struct KeyBox {
  /// Where the box of one tile lies: found a tile ahead, so that nothing but the copy follows the wait for a free stage.
  struct Place {
    int page, row;     ///< Paged: the page and the row in it; else the row in the batch entry.
    uint32_t n_bytes;  ///< Of all the tile's boxes: to the end of the last one that holds a key of the sequence.
    bool wanted;
  };
  const PrefillParams& p;
  const PrefillTile& tile;
  int column, first, kv_head;  ///< first: key of the tile at which the box begins.

  __device__ __forceinline__ KeyBox(const PrefillParams& p_in, const PrefillTile& tile_in, int lane) : p(p_in), tile(tile_in) {
    column = lane % Traits::kBoxes;
    first = lane / Traits::kBoxes * (Traits::kPaged ? p.box_keys : Traits::kKeys);
    kv_head = tile.head / p.heads_per_kv;
  }
  __device__ __forceinline__ Place place(int n) const {
    const int key = n * Traits::kKeys + first;
    if constexpr (!Traits::kPaged) {
      return {0, key, Traits::kKeyBytes, first == 0};
    } else {
      if (n < 0) return {};
      const int left = tile.n_keys - n * Traits::kKeys;  // box_keys is a power of two.
      const int n_keys = min(Traits::kKeys, (left + p.box_keys - 1) & -p.box_keys);
      const bool wanted = first < n_keys;
      const int page = key / p.page_tokens;
      return {wanted ? p.tables[tile.table + page] : 0, key - page * p.page_tokens, static_cast<uint32_t>(n_keys * Traits::kBoxes * 128),
              wanted};
    }
  }
  __device__ __forceinline__ void load(Pipeline<Traits::kStages>& ring, Cursor<Traits::kStages>& at, const CUtensorMap* map,
                                       unsigned char* stage, const Place& from) const {
    Barrier& full = ring.full[at.stage];
    unsigned char* const to = stage + column * Traits::kKeys * 128 + first * 128;
    ring.wait_empty(at);
    if (column == 0 && first == 0) full.arrive_expecting(from.n_bytes);
    __syncwarp();
    if (from.wanted) {
      if constexpr (Traits::kPaged)
        load_box(map, to, full, column * kBoxColumns, from.row, kv_head, from.page);
      else
        load_box(map, to, full, column * kBoxColumns, kv_head, from.row, tile.batch);
    }
    at.advance();
  }
};

/// The first warp: draws tiles, and loads queries and keys.
template <typename Traits>
__device__ __forceinline__ void produce_keys(const PrefillParams& p, PrefillShared<Traits>& shared, int lane) {
  Cursor<Traits::kStages> key_at;
  Cursor<1> query_at;
  Cursor<2> work_at;
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

    // Queries go behind the first keys, whose stage is often free before theirs. Pages are looked up one tile ahead.
    const KeyBox<Traits> box(p, tile, lane);
    int n = key_tiles<Traits>(tile) - 1;
    auto now = box.place(n), next = box.place(n - 1);
    if (n >= 0) box.load(shared.keys, key_at, &p.k, shared.k[key_at.stage], now);
    shared.queries.wait_empty(query_at);
    if (lane == 0) {
      Barrier& query_full = shared.queries.full[0];
      query_full.arrive_expecting(Traits::kQueryBytes);
      for (int column = 0; column < Traits::kBoxes; ++column)
        load_box(&p.q, shared.q + column * Traits::kRows * 128, query_full, column * kBoxColumns, tile.head, tile.row, tile.batch);
    }
    query_at.advance();
    for (--n; n >= 0; --n) {
      now = next;
      next = box.place(n - 1);
      box.load(shared.keys, key_at, &p.k, shared.k[key_at.stage], now);
    }
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

/// The second warp: values of the tiles that the first one drew.
template <typename Traits>
__device__ __forceinline__ void produce_values(const PrefillParams& p, PrefillShared<Traits>& shared, int lane) {
  Cursor<Traits::kStages> value_at;
  Cursor<2> work_at;
  while (true) {
    shared.tiles.wait_full(work_at);
    const PrefillTile tile = shared.tile[work_at.stage];
    __syncwarp();  // Every lane has read.
    if (lane == 0) shared.tiles.release(work_at);
    work_at.advance();
    if (tile.n_rows == 0) return;
    const KeyBox<Traits> box(p, tile, lane);
    int n = key_tiles<Traits>(tile) - 1;
    auto now = box.place(n);
    for (; n >= 0; --n) {
      const auto next = box.place(n - 1);
      box.load(shared.values, value_at, &p.v, shared.v[value_at.stage], now);
      now = next;
    }
  }
}

}  // namespace minillm::cuda::sm90
