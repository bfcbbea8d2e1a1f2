// decode_feed.cuh - the warps that keep decode attention's ring of tiles full, by turns a tile each: tile after tile and item after item of
// the block's shares, as far ahead of the products as the ring is long. From sm_90 on a lane copies a box through the copy engine
// (tma.cuh); before, a warp copies 16 bytes a lane, to the same places. The first of them draws the shares.
#pragma once

#include "backend/cuda/device/decode_tile.cuh"
#include "backend/cuda/device/launch.cuh"
#include "backend/cuda/device/tma.cuh"

namespace minillm::cuda {

constexpr int kFeedWarps = 4;  ///< One is not enough: where a tile lies takes as long to find out as a small tile takes to arrive.
/// A warp must have seen a stage's round before last: with more warps than stages it would not.
__device__ __forceinline__ int feeding_warps(int n_stages) { return min(kFeedWarps, n_stages); }
constexpr int kMostStages = 8;
/// What the feeding warp tells the others: tiles that have arrived, and the shares they belong to.
struct DecodeRing {
  Barrier full[kMostStages], empty[kMostStages];
  Barrier share_full[2], share_empty[2];
  Share share[2];

  __device__ __forceinline__ void init(int n_stages, int feed_arrivals, int stream_warps, int reading_warps) {
    for (int i = 0; i < n_stages; ++i) {
      full[i].init(feed_arrivals);
      empty[i].init(stream_warps);
    }
    for (int i = 0; i < 2; ++i) {
      share_full[i].init(1);
      share_empty[i].init(reading_warps);
    }
#if __CUDA_ARCH__ >= 900
    fence_barrier_init();
#endif
  }
};
/// A place in the ring, and the parity of its round.
struct RingPlace {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void advance(int n_stages, int n = 1) {
    for (stage += n; stage >= n_stages; stage -= n_stages) parity ^= 1;
  }
};
/// A warp's walk over the block's items, from share to share as the feeding warp announces them.
struct ItemWalk {
  Item item;
  Share share{0, 0};
  RingPlace at;
  bool done = false;

  __device__ __forceinline__ void next(DecodeRing& ring, const DecodeRows& rows, int lane) {
    if (!needs_share()) return item.advance(rows);
    ring.share_full[at.stage].wait(at.parity);
    share = ring.share[at.stage];
    __syncwarp();  // Every lane has read.
    if (lane == 0) ring.share_empty[at.stage].arrive();
    at.advance(2);
    done = share.first == share.last;
    if (!done) item.start(rows, share.first);
  }
  __device__ __forceinline__ bool needs_share() const { return item.index + 1 >= share.last; }
  /// A set of queries serves the items of a head in a row.
  __device__ __forceinline__ bool needs_queries() const { return item.index == share.first || item.run == 0; }
};

#if __CUDA_ARCH__ >= 900
constexpr int kFeedArrivals = 1;
#else
constexpr int kFeedArrivals = 32;
#endif

/// The cache does not hold an appending step's token yet.
__device__ __forceinline__ int stored_last(const Visible& v, bool appends) { return appends ? min(v.last, v.slot) : v.last; }

/// A feeding warp's next tile: of which item, and this lane's box of it, 128 bytes of each key or value.
struct FeedTile {
  ItemWalk walk;
  int i = 0;     ///< Of the item.
  Share wanted;  ///< Slots of the tile that are copied.
  int32_t page = 0;
  int place = 0;  ///< Slot in the page.
  bool copies = false;
};

template <typename T, int kDim>
struct Feeder {
  const DecodeArguments& p;
  const DecodeRows& rows;
  DecodeRing& ring;
  unsigned char* tiles;
  int warp, lane;  ///< warp: of this role.
  bool appends;
  int ticket;     ///< Of the share announced last.
  bool is_ahead;  ///< It is not this warp's yet.
  RingPlace announced, at;
  FeedTile tile;

  // A lane's part of every tile.
  __device__ __forceinline__ int column() const { return lane % kBoxesOfRow<T, kDim>; }
  __device__ __forceinline__ int part() const { return lane / kBoxesOfRow<T, kDim> % 2; }
  __device__ __forceinline__ int offset() const { return lane / (2 * kBoxesOfRow<T, kDim>)*p.box_keys; }

  /// The next share to all; the first is the block's by its number, the others are drawn.
  __device__ __forceinline__ void announce_share() {
    const int n_blocks = static_cast<int>(gridDim.x), n_shares = rows.n_shares(n_blocks);
    unsigned int* const n_drawn = p.n_done + int64_t{kFewTokens} * p.a.n_heads;
    Share share{0, 0};
    if (ticket < 0) share = rows.share(ticket = blockIdx.x, n_blocks);
    while (share.first == share.last && n_shares > n_blocks && ticket < n_shares) {
      wait_for_predecessor();  // It may be this kernel at another layer, and draw from the same counter.
      if (lane == 0) ticket = n_blocks + static_cast<int>(atomicAdd(n_drawn, 1u));
      ticket = __shfl_sync(0xFFFFFFFFu, ticket, 0);
      // Each block draws one ticket too many; the last of those leaves the counter as it was.
      if (ticket == n_shares + n_blocks - 1 && lane == 0) *n_drawn = 0;
      share = rows.share(ticket, n_blocks);
    }
    ring.share_empty[announced.stage].wait(announced.parity ^ 1);
    if (lane == 0) {
      ring.share[announced.stage] = share;
      ring.share_full[announced.stage].arrive();
    }
    __syncwarp();
    announced.advance(2);
    is_ahead = true;
  }
  /// In a share's last item, if all others have read the share before: when that item ends, the next one is known.
  __device__ __forceinline__ void announce_early() {
    if (warp != 0 || is_ahead || tile.walk.done || !tile.walk.needs_share()) return;
    if (__all_sync(0xFFFFFFFFu, ring.share_empty[announced.stage].test(announced.parity ^ 1))) announce_share();
  }
  __device__ __forceinline__ void next_item() {
    if (tile.walk.needs_share()) {
      if (warp == 0 && !is_ahead) announce_share();
      is_ahead = false;
    }
    tile.walk.next(ring, rows, lane);
  }

  /// On into the item of tile.i, and what must be known of the tile. False where that would take a new share and !may_wait.
  __device__ __forceinline__ bool find(bool may_wait) {
    ItemWalk& walk = tile.walk;
    while (!walk.done && tile.i >= walk.item.n_tiles) {
      if (!may_wait && walk.needs_share()) return false;
      tile.i -= walk.item.n_tiles;
      next_item();
    }
    if (walk.done) return true;
    const RowCut& c = rows.cut[walk.item.row];
    const int slot = walk.item.begin + tile.i * kDecodeTile, last = stored_last(c.visible, appends) - slot;
    // What the row sees and the cache holds, in whole boxes; box_keys is a power of two.
    tile.wanted = {max(0, c.visible.first - slot) & -p.box_keys, min(kDecodeTile, (last + p.box_keys - 1) & -p.box_keys)};
    const int page = (slot + offset()) / p.cache.page_tokens;
    tile.copies = offset() >= tile.wanted.first && offset() < tile.wanted.last;
    tile.place = slot + offset() - page * p.cache.page_tokens;
    if (tile.copies) tile.page = p.step.tables[c.table_start + page];
    return true;
  }

  /// The next tile is looked up before this one waits for its stage, but never waited for: what others wait for is sent first.
  __device__ __forceinline__ void run() {
    const int n_warps = feeding_warps(p.n_stages);
    next_item();
    tile.i = warp;
    find(true);
    at.advance(p.n_stages, warp);
    // All keys but the newest were there before the step's first kernel: where those come from the helpers, there is no need to wait.
    if (!appends) wait_for_predecessor();
    while (!tile.walk.done) {
      const FeedTile now = tile;
      tile.i += n_warps;
      const bool found = find(false);
      ring.empty[at.stage].wait(at.parity ^ 1);
      copy(now);
      at.advance(p.n_stages, n_warps);
      announce_early();
      if (!found) find(true);
    }
  }

  __device__ __forceinline__ void copy(const FeedTile& now) const {
    Barrier& full = ring.full[at.stage];
#if __CUDA_ARCH__ >= 900
    unsigned char* const to = tiles + at.stage * kTileBytes<T, kDim> + part() * kPartBytes<T, kDim> + column() * kBoxBytes + offset() * 128;
    const int n_slots = max(0, now.wanted.last - now.wanted.first);
    if (lane == 0) full.arrive_expecting(static_cast<uint32_t>(n_slots * (2 * kBoxesOfRow<T, kDim> * 128)));
    __syncwarp();
    if (now.copies)
      load_box_once(part() == 0 ? &p.keys : &p.values, to, full, column() * kBoxColumns, now.place, now.walk.item.g, now.page);
#else
    copy_by_lanes(now);
    full.arrive_after_copies();
#endif
  }

  __device__ __forceinline__ void copy_by_lanes(const FeedTile& now) const {
    constexpr int kChunks = kChunksOfRow<T, kDim>;
    unsigned char* const to = tiles + at.stage * kTileBytes<T, kDim>;
    const Item& item = now.walk.item;
    const int32_t* table = p.step.tables + rows.cut[item.row].table_start;
    for (int i = lane; i < kDecodeTile * kChunks; i += 32) {
      const int row = i / kChunks, chunk = i % kChunks, s = item.begin + now.i * kDecodeTile + row;
      if (row < now.wanted.first || row >= now.wanted.last) continue;
      const int64_t from = table[s / p.cache.page_tokens] * p.cache.page_stride + s % p.cache.page_tokens * p.cache.token_stride +
                           item.g * p.cache.head_stride + chunk * (16 / static_cast<int>(sizeof(T)));
      copy16_async(shared_address(to + place_of_chunk(row, chunk)), static_cast<const T*>(p.cache.keys) + from, true);
      copy16_async(shared_address(to + kPartBytes<T, kDim> + place_of_chunk(row, chunk)), static_cast<const T*>(p.cache.values) + from,
                   true);
    }
  }
};

/// The role of the feeding warps.
template <typename T, int kDim>
__device__ __forceinline__ void feed(const DecodeArguments& p, const DecodeRows& rows, DecodeRing& ring, unsigned char* tiles, int warp,
                                     int lane) {
  if (warp >= feeding_warps(p.n_stages)) return;
#if __CUDA_ARCH__ >= 900
  prefetch_map(&p.keys);
  prefetch_map(&p.values);
#endif
  Feeder<T, kDim>{p, rows, ring, tiles, warp, lane, p.append.qkv != nullptr, -1, false, {}, {}, {}}.run();
}

}  // namespace minillm::cuda
