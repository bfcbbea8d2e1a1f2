// attention_decode.cu - attention of up to 64 rows over a paged 16-bit cache, at the memory's speed: decode, and short chunks.
// One block a multiprocessor computes its share of the items (decode_items.cuh: a row, a key head, a run of keys). Its warps have roles:
//   4 feed     keep a ring of tiles of 64 keys and values full, on into the next item while this one is in work (decode_feed.cuh)
//   8 stream   two teams take the tiles by turns; a warp takes 16 keys of a tile against all query heads of the key head (decode_tile.cuh)
//   4 help     make the next item's queries ready and merge the sums of the last one: nothing of that holds up a stream (decode_merge.cuh)
// Stream and help meet twice an item, at named barriers: queries ready, sums ready. docs/KERNELS.md has the picture.
// The launch depends on no length, so that it can be recorded.
// Sources: Dao et al. 2023, Flash-Decoding; Milakov & Gimelshein 2018, arXiv:1805.02867; roles of warps as in FlashAttention-3.
// Cost:    K and V once. Numerics: q and the weights rounded to the cache's type, sums in float32.
#include <algorithm>
#include <cstdint>
#include <numeric>

#include "backend/cuda/check.h"
#include "backend/cuda/device/decode_feed.cuh"
#include "backend/cuda/device/decode_merge.cuh"
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/launch.cuh"
#include "backend/cuda/device/rotate.cuh"
#include "backend/cuda/driver.h"
#include "backend/cuda/few_tokens_launch.cuh"
#include "backend/cuda/operations.h"

namespace minillm::cuda {
namespace {

constexpr int kHelpWarps = 4, kHelpThreads = 32 * kHelpWarps;

/// Heads of up to 8 kSets queries, of kDim elements.
template <typename T_, int kDim_, int kSets_>
struct DecodeTraits {
  using T = T_;
  static constexpr int kDim = kDim_, kSets = kSets_;
  static constexpr int kTeams = kDim * kSets <= 128 ? 2 : 1;  ///< Two hide each other's latency; wide heads need the registers of both.
  static constexpr int kTeamWarps = kDecodeTile / kStepKeys, kStreamWarps = kTeams * kTeamWarps;
  static constexpr int kMeetingThreads = 32 * kStreamWarps + kHelpThreads, kThreads = kMeetingThreads + 32 * kFeedWarps;
};

/// Of a run; shorter ones spend their time on beginning and merging. Of long rows there are runs enough.
constexpr int kLeastTiles = 4, kLeastTilesOfLong = 8, kLongTiles = 128;
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
    queries = n_stages * kTileBytes<kDim>;
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
template <int kDim>
__device__ __forceinline__ void complete_rows(unsigned char* tile, int row, int slot, const Visible& v, bool appends,
                                              const unsigned char* token, int lane) {
  constexpr int kChunks = kDim / 8;
  const int last = stored_last(v, appends), at = v.slot - slot;
  if (slot >= v.first && slot + kStepKeys <= last) return;
  for (int i = lane; i < kStepKeys * kChunks; i += 32)
    if (const int s = slot + i / kChunks; s < v.first || s >= last)
      *reinterpret_cast<uint4*>(tile + kPartBytes<kDim> + place_of_chunk(row + i / kChunks, i % kChunks)) = uint4{};
  __syncwarp();
  if (appends && at >= 0 && at < kStepKeys)
    for (int i = lane; i < 2 * kChunks; i += 32)
      *reinterpret_cast<uint4*>(tile + i / kChunks * kPartBytes<kDim> + place_of_chunk(row + at, i % kChunks)) =
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
  const int warp = block.warp, lane = block.lane, team = warp / Traits::kTeamWarps, row_of_tile = warp % Traits::kTeamWarps * kStepKeys;
  RingPlace at;
  ItemWalk walk;
  DecodeWarp<typename Traits::T, kDim, Traits::kSets> mine;
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
        unsigned char* const tile = block.shared + at.stage * kTileBytes<kDim>;
        const int slot = item.begin + i * kDecodeTile + row_of_tile;
        if (slot < visible.last && slot + kStepKeys > visible.first) {
          complete_rows<kDim>(tile, row_of_tile, slot, visible, block.appends(), block.queries(set) + kTokenRow * kQueryBytes<kDim>, lane);
          mine.step(shared_address(tile), row_of_tile, slot, visible, p.a, item.g * block.group, block.group, lane);
        }
      }
      // Both teams let go of every tile, in order: else one could run ahead by more than a round, which a barrier does not tell apart.
      __syncwarp();
      if (lane == 0) block.ring.empty[at.stage].arrive();
      at.advance(p.n_stages);
    }
    mine.store(block.sums(parity) + warp * block.group * kDim, block.scalars(parity) + warp * kGroupRows * 2, block.group, lane);
    named_arrive(kSumsReady + parity, Traits::kMeetingThreads);
  }
}

/// The group's heads of the q/k/v product, biased, normed and rotated, to `to`; key and value only where the item holds the row's token,
/// and those go to the cache as well. Every load comes first: they take as long as all the rest.
template <typename Traits>
__device__ __forceinline__ void prepare_heads(const DecodeBlock<Traits>& block, const Item& item, unsigned char* to) {
  using T = typename Traits::T;
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
    auto* row = reinterpret_cast<T*>(to + (j < group ? j : kTokenRow + j - group) * kQueryBytes<kDim>);
    for (int d = lane; d < kDim; d += 32) row[d] = from_float<T>(head[d]);
    if (j < group) continue;
    T* stored =
        static_cast<T*>(const_cast<void*>(j == group ? p.cache.keys : p.cache.values)) + place_of_token(p.step, p.cache, item.row, item.g);
    for (int d = lane; d < kDim; d += 32) stored[d] = row[d];
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
        reinterpret_cast<uint32_t*>(to + i / (kDim / 2) * kQueryBytes<kDim>)[i % (kDim / 2)] = pack2<typename Traits::T>(x.x, x.y);
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

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, 1) decode_kernel(const __grid_constant__ DecodeArguments p) {
  constexpr int kDim = Traits::kDim, kStreamWarps = Traits::kStreamWarps;
  extern __shared__ __align__(1024) unsigned char shared[];
  __shared__ DecodeRows rows;
  __shared__ DecodeRing ring;
  let_successor_start();
  touch_parameters(p);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = p.a.n_heads / p.a.n_kv_heads;
  const DecodeShared<Traits> places(p.n_stages, p.n_sums, group, p.append.shape.rope_dim, p.append.qkv != nullptr);
  for (int i = threadIdx.x; i < 2 * kQueryRows * kQueryBytes<kDim> / 16; i += Traits::kThreads)
    reinterpret_cast<uint4*>(shared + places.queries)[i] = uint4{};  // Heads past the group stay zeros.
  if (threadIdx.x == Traits::kThreads - 1)
    ring.init(p.n_stages, kFeedArrivals, kStreamWarps, kStreamWarps + kHelpWarps + feeding_warps(p.n_stages));
  // What describes the step was there before the step's first kernel: no need to wait for the one before this.
  rows.load(p);
  const int n_blocks = static_cast<int>(gridDim.x);
  // A block without items need not wait: that others do is enough, and its place is free for the next kernel.
  if (rows.n_items() <= n_blocks && static_cast<int>(blockIdx.x) >= rows.n_items()) return;
  if (warp < kStreamWarps)
    stream<Traits>({p, rows, ring, shared, places, warp, lane, group});
  else if (warp < kStreamWarps + kHelpWarps)
    help<Traits>({p, rows, ring, shared, places, warp - kStreamWarps, lane, group});
  else
    feed<typename Traits::T, kDim>(p, rows, ring, shared, warp - kStreamWarps - kHelpWarps, lane);
}

/// What the current device lets a block have, and whether it has the copy engine.
struct DecodeDevice {
  int most_shared = 0;
  bool copies_boxes = false;
};
const DecodeDevice& decode_device() {
  static const DecodeDevice device = [] {
    int id = 0, major = 0;
    DecodeDevice d;
    MINILLM_CUDA(cudaGetDevice(&id));
    MINILLM_CUDA(cudaDeviceGetAttribute(&d.most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, id));
    MINILLM_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, id));
    d.copies_boxes = major >= 9;
    return d;
  }();
  return device;
}

template <typename Traits>
void launch_decode(DecodeArguments p, cudaStream_t stream) {
  constexpr int kRingBytes = 160 * 1024;
  const int group = p.a.n_heads / p.a.n_kv_heads;
  const int most = decode_device().most_shared - static_cast<int>(sizeof(DecodeRows) + sizeof(DecodeRing)) - 1024;
  const auto bytes = [&] {
    return DecodeShared<Traits>(p.n_stages, p.n_sums, group, p.append.shape.rope_dim, p.append.qkv != nullptr).end;
  };
  p.n_sums = 2;
  p.n_stages = std::clamp(kRingBytes / kTileBytes<Traits::kDim>, 2, kMostStages);
  while (p.n_stages > 2 && bytes() > most) --p.n_stages;
  if (bytes() > most) p.n_sums = 1;
  const auto shared = static_cast<size_t>(bytes());
  allow_shared(decode_kernel<Traits>, shared);
  launch(decode_kernel<Traits>, static_cast<unsigned>(multiprocessors()), Traits::kThreads, shared, stream, p);
}

template <typename T>
void launch_decode_for_width(const DecodeArguments& p, cudaStream_t stream) {
  visit_width(p.a.head_dim, [&]<int kDim>() {
    if (p.a.n_heads / p.a.n_kv_heads <= 8)
      launch_decode<DecodeTraits<T, kDim, 1>>(p, stream);
    else
      launch_decode<DecodeTraits<T, kDim, 2>>(p, stream);
  });
}

int target_runs(const AttentionScalars& a) { return decode_runs(multiprocessors(), a.n_kv_heads); }

/// Of each row and head, and of the shares; partial sums behind them are read in pairs.
size_t counter_bytes(const AttentionScalars& a) { return static_cast<size_t>(kFewTokens * a.n_heads + 2) * sizeof(unsigned int); }

}  // namespace

bool decodes(const KeyLayout& cache, const AttentionRows& rows, const AttentionScalars& a) {
  return is_tile_width(a.head_dim) && rows.queries_per_batch == 0 && rows.n_rows <= kFewTokens && cache.dtype != Dtype::kF32 &&
         a.n_heads / a.n_kv_heads <= kGroupRows;
}

size_t decode_scratch_bytes(int64_t n_rows, const AttentionScalars& a) {
  return counter_bytes(a) + decode_partial_bytes(n_rows, target_runs(a), a.n_heads, a.head_dim);
}
size_t decode_counter_bytes(const AttentionScalars& a) { return counter_bytes(a); }

namespace {

void attend(DecodeArguments p, const AttentionScalars& scalars, void* scratch, cudaStream_t stream) {
  if (p.step.n_rows == 0) return;
  const KeyLayout& cache = p.cache;
  p.box_keys = std::gcd(cache.page_tokens, kDecodeTile);
  if (decode_device().copies_boxes) {
    const int64_t sizes[4] = {scalars.head_dim, cache.page_tokens, scalars.n_kv_heads, cache.n_pages};
    const int64_t strides[3] = {cache.token_stride, cache.head_stride, cache.page_stride};
    p.keys = box_map(cache.keys, sizes, strides, 1, p.box_keys, true);
    p.values = box_map(cache.values, sizes, strides, 1, p.box_keys, true);
  }
  p.n_done = static_cast<unsigned int*>(scratch);
  p.partial = reinterpret_cast<float*>(static_cast<char*>(scratch) + counter_bytes(scalars));
  p.target_runs = target_runs(scalars);
  p.least_tiles[0] = kLeastTiles, p.least_tiles[1] = kLeastTilesOfLong, p.long_tiles = kLongTiles;
  if (p.cache.dtype == Dtype::kF16)
    launch_decode_for_width<__half>(p, stream);
  else
    launch_decode_for_width<__nv_bfloat16>(p, stream);
}

}  // namespace

void decode_attention(float* out, float* lse, const float* q, const KeyLayout& cache, const DeviceStep& step,
                      const AttentionScalars& scalars, void* scratch, cudaStream_t stream) {
  DecodeArguments p{};
  p.out = out, p.lse = lse, p.q = q, p.cache = cache, p.step = step, p.a = scalars;
  attend(p, scalars, scratch, stream);
}

void append_and_attend(float* out, const AppendInputs& in, const KeyLayout& cache, const DeviceStep& step, const AttentionScalars& scalars,
                       void* scratch, cudaStream_t stream) {
  DecodeArguments p{};
  p.out = out, p.cache = cache, p.step = step, p.a = scalars, p.append = in;
  attend(p, scalars, scratch, stream);
}

}  // namespace minillm::cuda
