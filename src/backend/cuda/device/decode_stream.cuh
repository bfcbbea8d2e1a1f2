// decode_stream.cuh - the block of decode attention: who its warps are and where things lie in its shared memory; and the role of those
// that stream keys and values through the matrix units.
#pragma once

#include "backend/cuda/device/decode_feed.cuh"

namespace minillm::cuda {

constexpr int kHelpWarps = 4, kHelpThreads = 32 * kHelpWarps;

/// Heads of up to 8 kSets queries, of kDim elements.
template <typename T_, int kDim_, int kSets_>
struct DecodeTraits {
  using T = T_;  ///< As stored.
  using M = Multiplied<T>;
  static constexpr int kDim = kDim_, kSets = kSets_;
  /// Eight warps hide each other's latency; wide heads need the registers of all.
  static constexpr int kStreamWarps = kDim * kSets <= 128 ? 8 : 4;
  /// Tiles in 8 bits come twice as often: there a warp takes 32 keys of every fourth.
  static constexpr int kGroups = sizeof(T) == 1 && kStreamWarps == 8 ? 2 : 1;
  static constexpr int kTeamWarps = kDecodeTile / (kStepKeys * kGroups), kTeams = kStreamWarps / kTeamWarps;
  static constexpr int kMeetingThreads = 32 * kStreamWarps + kHelpThreads, kThreads = kMeetingThreads + 32 * kFeedWarps;
};

/// Named barriers, the first two for items of either parity.
constexpr int kQueriesReady = 1, kSumsReady = 3, kHelpersMeet = 5;
/// A set of queries in shared memory: 16 heads, then the token's key and its value, all of them rows of kQueryBytes.
constexpr int kTokenRow = kGroupRows, kQueryRows = kGroupRows + 2;

/// Where things lie in dynamic shared memory behind the ring, in bytes.
template <typename Traits>
struct DecodeShared {
  int queries, sums, scalars, heads, end;

  __host__ __device__ DecodeShared(int n_stages, int n_sums, int group, int rope_dim, bool appends) {
    constexpr int kFloat = sizeof(float), kDim = Traits::kDim, kStreamWarps = Traits::kStreamWarps;
    queries = n_stages * kTileBytes<typename Traits::T, kDim>;
    sums = queries + 2 * kQueryRows * kQueryBytes<kDim>;
    scalars = sums + n_sums * kStreamWarps * group * kDim * kFloat;
    heads = scalars + 2 * kStreamWarps * kGroupRows * 2 * kFloat;
    end = heads + (appends ? ((group + 2) * kDim + rope_dim) * kFloat : 0);
  }
};

/// A block's view of the launch: what the roles need.
template <typename Traits>
struct DecodeBlock {
  static constexpr int kDim = Traits::kDim, kStreamWarps = Traits::kStreamWarps;
  const DecodeArguments& p;
  const DecodeRows& rows;
  DecodeRing& ring;
  unsigned char* shared;
  DecodeShared<Traits> places;
  int warp, lane, group;  ///< warp: of its role.

  __device__ unsigned char* queries(int set) const { return shared + places.queries + set * kQueryRows * kQueryBytes<kDim>; }
  __device__ float* sums(int parity) const {
    return reinterpret_cast<float*>(shared + places.sums) + (p.n_sums == 2 ? parity : 0) * kStreamWarps * group * kDim;
  }
  __device__ float* scalars(int parity) const {
    return reinterpret_cast<float*>(shared + places.scalars) + parity * kStreamWarps * kGroupRows * 2;
  }
  __device__ bool appends() const { return p.append.qkv != nullptr; }
};

/// What the cache does not hold of a warp's 16 rows, which are slots [slot, slot + 16): zeros over values that may be NaN, and the
/// appending step's own token. `token`: its key, and its value a row behind.
template <typename T, int kDim>
__device__ __forceinline__ void complete_rows(unsigned char* tile, int row, int slot, const Visible& v, bool appends,
                                              const unsigned char* token, int lane) {
  constexpr int kChunks = kChunksOfRow<T, kDim>;
  const int last = stored_last(v, appends), at = v.slot - slot;
  if (slot >= v.first && slot + kStepKeys <= last) return;
  for (int i = lane; i < kStepKeys * kChunks; i += 32)
    if (const int s = slot + i / kChunks; s < v.first || s >= last)
      *reinterpret_cast<uint4*>(tile + kPartBytes<T, kDim> + place_of_chunk(row + i / kChunks, i % kChunks)) = uint4{};
  __syncwarp();
  if (appends && at >= 0 && at < kStepKeys)
    for (int i = lane; i < 2 * kChunks; i += 32)
      *reinterpret_cast<uint4*>(tile + i / kChunks * kPartBytes<T, kDim> + place_of_chunk(row + at, i % kChunks)) =
          *reinterpret_cast<const uint4*>(token + i / kChunks * kQueryBytes<kDim> + i % kChunks * 16);
#if __CUDA_ARCH__ >= 900
  fence_async_proxy();  // Before the copy engine's next tile here.
#endif
  __syncwarp();
}

/// The role of the streaming warps.
template <typename Traits>
__device__ __forceinline__ void stream(const DecodeBlock<Traits>& block) {
  constexpr int kDim = Traits::kDim;
  const DecodeArguments& p = block.p;
  const int warp = block.warp, lane = block.lane, team = warp / Traits::kTeamWarps,
            row_of_tile = warp % Traits::kTeamWarps * Traits::kGroups * kStepKeys;
  RingPlace at;
  ItemWalk walk;
  DecodeWarp<typename Traits::T, kDim, Traits::kSets, Traits::kGroups> mine;
  int set = 1;
  walk.next(block.ring, block.rows, lane);
  for (int parity = 0; !walk.done; walk.next(block.ring, block.rows, lane), parity ^= 1) {
    const Item& item = walk.item;
    const Visible visible = block.rows.cut[item.row].visible;
    named_sync(kQueriesReady + parity, Traits::kMeetingThreads);
    if (walk.needs_queries()) mine.load_query(block.queries(set ^= 1), lane);
    mine.clear();
    for (int i = 0; i < item.n_tiles; ++i) {
      block.ring.full[at.stage].wait(at.parity);
      if (i % Traits::kTeams == team) {
        unsigned char* const tile = block.shared + at.stage * kTileBytes<typename Traits::T, kDim>;
        const int slot = item.begin + i * kDecodeTile + row_of_tile;
        if (slot < visible.last && slot + mine.kKeys > visible.first) {
          const unsigned char* const token = block.queries(set) + kTokenRow * kQueryBytes<kDim>;
          for (int j = 0; j < mine.kKeys; j += kStepKeys)
            complete_rows<typename Traits::T, kDim>(tile, row_of_tile + j, slot + j, visible, block.appends(), token, lane);
          mine.step(shared_address(tile), row_of_tile, slot, visible, p.a, item.g * block.group, block.group, lane);
        }
      }
      // All teams let go of every tile, in order: else one could run ahead by more than a round, which a barrier does not tell apart.
      __syncwarp();
      if (lane == 0) block.ring.empty[at.stage].arrive();
      at.advance(p.n_stages);
    }
    mine.store(block.sums(parity) + warp * block.group * kDim, block.scalars(parity) + warp * kGroupRows * 2, block.group, lane);
    named_arrive(kSumsReady + parity, Traits::kMeetingThreads);
  }
}

}  // namespace minillm::cuda
