// decode_feed.cuh - the warp that keeps decode attention's ring of tiles full: tile after tile and item after item of the block's share,
// as far ahead of the products as the ring is long. From sm_90 on a lane copies a box through the copy engine (tma.cuh); before, the
// warp copies 16 bytes a lane, to the same places.
#pragma once

#include "backend/cuda/device/decode_tile.cuh"
#include "backend/cuda/device/launch.cuh"
#include "backend/cuda/device/tma.cuh"

namespace minillm::cuda {

constexpr int kMostStages = 8;
struct DecodeRing {
  Barrier full[kMostStages], empty[kMostStages];
};
/// A place in the ring, and the parity of its round.
struct RingPlace {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void advance(int n_stages) {
    if (++stage == n_stages) stage = 0, parity ^= 1;
  }
};
#if __CUDA_ARCH__ >= 900
constexpr int kFeedArrivals = 1;
#else
constexpr int kFeedArrivals = 32;
#endif

/// Slots of a tile that are copied, counted from its first: those that the row sees and the cache holds, in whole boxes.
struct Wanted {
  int first, last;
};
/// The cache does not hold an appending step's token yet.
__device__ __forceinline__ int stored_last(const Visible& v, bool appends) { return appends ? min(v.last, v.slot) : v.last; }
__device__ __forceinline__ Wanted wanted_of(const Visible& v, int slot, int box_keys, bool appends) {
  return {max(0, v.first - slot) / box_keys * box_keys, min(kDecodeTile, (stored_last(v, appends) - slot + box_keys - 1) / box_keys * box_keys)};
}

/// A lane's box of a tile: `first` slots into it, 64 columns of keys or values.
template <int kDim>
struct FeedBox {
  int part, column, first;
  __device__ __forceinline__ FeedBox(int lane, int box_keys) {
    column = lane % kBoxesOfRow<kDim>;
    part = lane / kBoxesOfRow<kDim> % 2;
    first = lane / (2 * kBoxesOfRow<kDim>)*box_keys;
  }
};

template <typename T, int kDim>
__device__ __forceinline__ void copy_tile_by_lanes(unsigned char* to, const DecodeArguments& p, const int32_t* table, const Item& item, int slot,
                                                   const Wanted& wanted, int lane) {
  constexpr int kChunks = kDim / 8;
  for (int i = lane; i < kDecodeTile * kChunks; i += 32) {
    const int row = i / kChunks, chunk = i % kChunks, s = slot + row;
    if (row < wanted.first || row >= wanted.last) continue;
    const int64_t at = table[s / p.cache.page_tokens] * p.cache.page_stride + s % p.cache.page_tokens * p.cache.token_stride +
                       item.g * p.cache.head_stride + chunk * 8;
    copy16_async(shared_address(to + place_of_chunk(row, chunk)), static_cast<const T*>(p.cache.keys) + at, true);
    copy16_async(shared_address(to + kPartBytes<kDim> + place_of_chunk(row, chunk)), static_cast<const T*>(p.cache.values) + at, true);
  }
}

/// The role of the feeding warp, for items [first, last).
template <typename T, int kDim>
__device__ __forceinline__ void feed(const DecodeArguments& p, const DecodeRows& rows, DecodeRing& ring, unsigned char* tiles, int first,
                                     int last, int lane) {
  const bool appends = p.append.qkv != nullptr;
  // All keys but the newest were there before the step's first kernel: where those come from the helpers, there is no need to wait.
  if (!appends) wait_for_predecessor();
  RingPlace at;
  int row = 0;
  for (int index = first; index < last; ++index) {
    const Item item = item_at(p, rows, index, row);
    row = item.row;
    const int32_t* table = p.step.tables + rows.table_start[row];
#if __CUDA_ARCH__ >= 900
    const FeedBox<kDim> box(lane, p.box_keys);
    const CUtensorMap* const map = box.part == 0 ? &p.keys : &p.values;
    const auto page_of = [&](int i) {  // Asked for a tile ahead, so that nothing but the copies follows the wait for a stage.
      const Wanted w = wanted_of(item.visible, item.begin + i * kDecodeTile, p.box_keys, appends);
      return i < item.n_tiles && box.first >= w.first && box.first < w.last
                 ? table[(item.begin + i * kDecodeTile + box.first) / p.cache.page_tokens]
                 : -1;
    };
    int32_t page = page_of(0);
#endif
    for (int i = 0; i < item.n_tiles; ++i) {
      const int slot = item.begin + i * kDecodeTile;
      const Wanted wanted = wanted_of(item.visible, slot, p.box_keys, appends);
      unsigned char* const to = tiles + at.stage * kTileBytes<kDim>;
      ring.empty[at.stage].wait(at.parity ^ 1);
#if __CUDA_ARCH__ >= 900
      if (lane == 0)
        ring.full[at.stage].arrive_expecting(static_cast<uint32_t>(max(0, wanted.last - wanted.first) * 2 * kBoxesOfRow<kDim> * 128));
      __syncwarp();
      if (page >= 0)
        load_box(map, to + box.part * kPartBytes<kDim> + box.column * kBoxBytes + box.first * 128, ring.full[at.stage],
                 box.column * kBoxColumns, (slot + box.first) % p.cache.page_tokens, item.g, page);
      page = page_of(i + 1);
#else
      copy_tile_by_lanes<T, kDim>(to, p, table, item, slot, wanted, lane);
      ring.full[at.stage].arrive_after_copies();
#endif
      at.advance(p.n_stages);
    }
  }
}

}  // namespace minillm::cuda
