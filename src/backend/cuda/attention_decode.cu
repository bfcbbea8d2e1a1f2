// attention_decode.cu - attention of up to 64 rows over a paged cache of 16 or 8 bits, at the memory's speed: decode, and short chunks.
// One block a multiprocessor computes its share of the items (decode_items.cuh: a row, a key head, a run of keys). Its warps have roles:
//   4 feed     keep a ring of tiles of 64 keys and values full, on into the next item while this one is in work (decode_feed.cuh)
//   8 stream   teams take the tiles by turns; a warp takes 16 or 32 keys of a tile against all query heads of the key head
//   (decode_tile.cuh) 4 help     make the next item's queries ready and merge the sums of the last one: nothing of that holds up a stream
//   (decode_merge.cuh)
// Stream and help meet twice an item, at named barriers: queries ready, sums ready. docs/KERNELS.md has the picture.
// The launch depends on no length, so that it can be recorded.
// Sources: Dao et al. 2023, Flash-Decoding; Milakov & Gimelshein 2018, arXiv:1805.02867; roles of warps as in FlashAttention-3.
// Cost:    K and V once. Numerics: q and the weights rounded to the cache's type, float16 over 8 bits; sums in float32.
#include <algorithm>
#include <cstdint>
#include <numeric>

#include "backend/cuda/check.h"
#include "backend/cuda/device/decode_help.cuh"
#include "backend/cuda/device/launch.cuh"
#include "backend/cuda/driver.h"
#include "backend/cuda/few_tokens_launch.cuh"
#include "backend/cuda/operations.h"

namespace minillm::cuda {
namespace {

/// Of a run; shorter ones spend their time on beginning and merging. Of long rows there are runs enough.
constexpr int kLeastTiles = 4, kLeastTilesOfLong = 8, kLongTiles = 128;
/// In 8 bits a tile takes half the time; where key heads are few, one sequence needs its runs to fill the device.
constexpr int kLeastNarrowTilesOfLong = 16, kManyHeads = 8;

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
  p.n_stages = std::clamp(kRingBytes / kTileBytes<typename Traits::T, Traits::kDim>, 2, kMostStages);
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
    const int64_t narrow = cache.dtype == Dtype::kF8 ? 2 : 1;  // Elements in 16 bits, in which boxes count.
    const int64_t sizes[4] = {scalars.head_dim / narrow, cache.page_tokens, scalars.n_kv_heads, cache.n_pages};
    const int64_t strides[3] = {cache.token_stride / narrow, cache.head_stride / narrow, cache.page_stride / narrow};
    p.keys = box_map(cache.keys, sizes, strides, 1, p.box_keys, true);
    p.values = box_map(cache.values, sizes, strides, 1, p.box_keys, true);
  }
  p.n_done = static_cast<unsigned int*>(scratch);
  p.partial = reinterpret_cast<float*>(static_cast<char*>(scratch) + counter_bytes(scalars));
  p.target_runs = target_runs(scalars);
  p.least_tiles[0] = kLeastTiles,
  p.least_tiles[1] = cache.dtype == Dtype::kF8 && scalars.n_kv_heads >= kManyHeads ? kLeastNarrowTilesOfLong : kLeastTilesOfLong,
  p.long_tiles = kLongTiles;
  if (p.cache.dtype == Dtype::kF16)
    launch_decode_for_width<__half>(p, stream);
  else if (p.cache.dtype == Dtype::kF8)
    launch_decode_for_width<__nv_fp8_e4m3>(p, stream);
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
