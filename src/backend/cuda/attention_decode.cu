// attention_decode.cu - attention of up to 64 rows over a paged 16-bit cache, at the memory's speed: decode, and short chunks.
// A work item is a row, a key head and a run of key tiles; blocks take items in turn. The query heads of a key head are the 16 rows of
// the matrix instruction, so that each key is read once. The four warps of a block take 16 keys each of a tile of 64, and copies of
// the next tiles are under way meanwhile. The last block of a row and head to finish merges its runs.
// How a row is cut depends on its own length and the model alone, so its result is the same in any batch; the launch depends on
// no length at all, so that it can be recorded.
// Sources: Dao et al. 2023, Flash-Decoding; Milakov & Gimelshein 2018, arXiv:1805.02867; GQA rows as in FlashAttention-3.
// Cost:    K and V once. Numerics: q and the weights rounded to the cache's type, sums in float32.
#include <cstdint>

#include "backend/cuda/check.h"
#include "backend/cuda/device/decode_tile.cuh"
#include "backend/cuda/device/element.cuh"
#include "backend/cuda/device/launch.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/device/rotate.cuh"
#include "backend/cuda/few_tokens_launch.cuh"
#include "backend/cuda/operations.h"

namespace minillm::cuda {
namespace {

constexpr int kLeastTiles = 4;  ///< Shorter runs spend their time on beginning and merging.
constexpr int kDecodeWarps = kTileThreads / 32, kGroupRows = 16;

struct DecodeArguments {
  float *out, *lse;
  const float* q;
  KeyLayout cache;
  DeviceStep step;
  AttentionScalars a;
  float* partial = nullptr;  ///< [item][head of the group][kDim + 2]
  unsigned int* n_done = nullptr;
  int target_runs = 0;
  bool one_row_each = false;  ///< Every row is the only new token of its sequence.
  AppendInputs append = {};   ///< With a q/k/v product: the queries come from it, and its keys and values go to the cache first.
};

template <int kDim>
constexpr int kStages = kDim <= 64 ? 4 : 3;

__device__ Visible visible_of(const DecodeArguments& p, int row) {
  Visible v;
  v.slot = p.step.slots[row];
  const int n_keys = p.step.key_counts[row];
  v.first = p.a.window > 0 ? static_cast<int>(max(int64_t{0}, min(int64_t{n_keys}, v.slot - p.a.window + 1))) : 0;
  v.last = p.a.causal ? max(v.first, min(n_keys, v.slot + 1)) : n_keys;
  return v;
}

/// Tiles begin at a multiple of 16 slots: 16 keys then lie in one page.
struct Cut {
  int begin, n_tiles, tiles_a_run, n_runs;
};
__device__ Cut cut_of(const Visible& v, int target_runs) {
  Cut c;
  c.begin = v.first / 16 * 16;
  c.n_tiles = max(0, (v.last - c.begin + kTileKeys - 1) / kTileKeys);
  c.tiles_a_run = max(kLeastTiles, (c.n_tiles + target_runs - 1) / target_runs);
  c.n_runs = max(1, (c.n_tiles + c.tiles_a_run - 1) / c.tiles_a_run);
  return c;
}

/// Up to 64 partial sums of a row and head, merged by a warp: lane i keeps the weights of partials i and i + 32.
struct Merge {
  float weight[2], top, total;
};
/// read(i, part) gives element `part` of partial i: its sums, then its maximum and total at kDim and kDim + 1.
template <int kDim, typename Read>
__device__ __forceinline__ Merge merge_of(int n, float floor, Read&& read, int lane) {
  float tops[2], totals[2];
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int i = lane + 32 * j;
    tops[j] = i < n ? read(i, kDim) : -INFINITY;
    totals[j] = i < n ? read(i, kDim + 1) : 0.0f;
  }
  Merge m;
  m.top = fmaxf(floor, fmaxf(tops[0], tops[1]));
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) m.top = fmaxf(m.top, __shfl_xor_sync(0xFFFFFFFFu, m.top, distance));
  const float base = m.top == -INFINITY ? 0.0f : m.top;
  m.weight[0] = exp2_fast(tops[0] - base);
  m.weight[1] = exp2_fast(tops[1] - base);
  m.total = warp_sum(totals[0] * m.weight[0] + totals[1] * m.weight[1]);
  return m;
}
/// out[j] = element lane + 32 j of the merged sums; every lane calls it. Many loads at once: they come from L2.
template <int kDim, typename Read>
__device__ __forceinline__ void merged(float (&out)[(kDim + 31) / 32], const Merge& m, int n, int lane, Read&& read) {
#pragma unroll
  for (float& o : out) o = 0.0f;
#pragma unroll(kDim <= 64 ? 16 : 8)
  for (int i = 0; i < n; ++i) {
    const float weight = __shfl_sync(0xFFFFFFFFu, i < 32 ? m.weight[0] : m.weight[1], i % 32);
#pragma unroll
    for (int j = 0; j < (kDim + 31) / 32; ++j)
      if (lane + 32 * j < kDim) out[j] = fmaf(weight, read(i, lane + 32 * j), out[j]);
  }
}

/// The result of a row and head; every lane of a warp calls it.
template <int kDim, typename Read>
__device__ __forceinline__ void write_row(const DecodeArguments& p, int64_t row_head, int head, int n, Read&& read, int lane) {
  const float sink = p.a.sinks == nullptr ? -INFINITY : p.a.sinks[head] * kLog2E;
  const Merge m = merge_of<kDim>(n, sink, read, lane);
  const bool sees_any = m.top != -INFINITY;
  const float total = sees_any ? m.total + exp2_fast(sink - m.top) : 0.0f;
  float o[(kDim + 31) / 32];
  merged<kDim>(o, m, n, lane, read);
#pragma unroll
  for (int j = 0; j < (kDim + 31) / 32; ++j)
    if (lane + 32 * j < kDim) p.out[row_head * kDim + lane + 32 * j] = sees_any ? o[j] / total : 0.0f;
  if (p.lse != nullptr && lane == 0) p.lse[row_head] = sees_any ? (m.top + log2f(total)) * kLn2 : -INFINITY;
}

/// What the four warps left in shared memory, as one partial sum of the item, or the result where the row is one run.
template <int kDim>
__device__ __forceinline__ void finish_item(const DecodeArguments& p, const float* sums, const float* scalars, int row, int g, int group,
                                            const Cut& cut, int64_t item, int64_t first_item) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const auto of_warps = [&](int head) {
    return [=](int w, int part) {
      return part < kDim ? sums[(w * kGroupRows + head) * kDim + part] : scalars[(w * kGroupRows + head) * 2 + part - kDim];
    };
  };
  const int64_t first_head = int64_t{row} * p.a.n_heads + g * group;
  if (cut.n_runs == 1) {
    for (int head = warp; head < group; head += kDecodeWarps)
      write_row<kDim>(p, first_head + head, g * group + head, kDecodeWarps, of_warps(head), lane);
    return;
  }
  for (int head = warp; head < group; head += kDecodeWarps) {
    const auto read = of_warps(head);
    const Merge m = merge_of<kDim>(kDecodeWarps, -INFINITY, read, lane);
    float* to = p.partial + (item * group + head) * (kDim + 2);
    float o[(kDim + 31) / 32];
    merged<kDim>(o, m, kDecodeWarps, lane, read);
#pragma unroll
    for (int j = 0; j < (kDim + 31) / 32; ++j)
      if (lane + 32 * j < kDim) to[lane + 32 * j] = o[j];
    if (lane == 0) to[kDim] = m.top, to[kDim + 1] = m.total;
  }
  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const auto last = static_cast<unsigned int>(cut.n_runs - 1);
    is_last = atomicInc(&p.n_done[row * p.a.n_kv_heads + g], last) == last;  // Back to 0 for the next call.
  }
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  for (int head = warp; head < group; head += kDecodeWarps) {
    const float* from = p.partial + ((first_item + g) * group + head) * (kDim + 2);
    const int64_t stride = int64_t{p.a.n_kv_heads} * group * (kDim + 2);
    write_row<kDim>(
        p, first_head + head, g * group + head, cut.n_runs, [=](int i, int part) { return __ldcg(from + i * stride + part); }, lane);
  }
}

/// The group's heads of the q/k/v product to `heads`, [query heads | key | value][kDim]; key and value only where the item holds the
/// row's token, and those go to the cache as well. Every load comes first: they take as long as all the rest.
template <typename T, int kDim>
__device__ __forceinline__ void prepare_heads(float* heads, const DecodeArguments& p, int row, int g, int group, bool holds_token) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_ready = group + (holds_token ? 2 : 0);
  const auto head_of = [&](int j) { return j < group ? g * group + j : p.a.n_heads + (j - group) * p.a.n_kv_heads + g; };
  float* angles = heads + (group + 2) * kDim;
  constexpr int kBatch = 4;
  for (int first = 0; first < n_ready * kDim; first += kBatch * kTileThreads) {
    float x[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int at = first + i * kTileThreads + threadIdx.x;
      if (at < n_ready * kDim) x[i] = raw_element(p.append, row, head_of(at / kDim), at % kDim);
    }
    if (first == 0)
      for (int i = threadIdx.x; i < p.append.shape.rope_dim; i += kTileThreads)
        angles[i] = p.append.angles[int64_t{row} * p.append.shape.rope_dim + i];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int at = first + i * kTileThreads + threadIdx.x;
      if (at < n_ready * kDim) heads[at] = x[i];
    }
  }
  __syncthreads();
  for (int j = warp; j < n_ready; j += kDecodeWarps) {
    prepare_head(heads + j * kDim, p.append, angles, head_of(j), lane);
    if (j < group) continue;
    T* to = static_cast<T*>(const_cast<void*>(j == group ? p.cache.keys : p.cache.values)) + place_of_token(p.step, p.cache, row, g);
    for (int d = lane; d < kDim; d += 32) to[d] = from_float<T>(heads[j * kDim + d]);
  }
}

/// The token's key and value to their rows of a tile in shared memory.
template <typename T, int kDim>
__device__ __forceinline__ void put_token(unsigned char* tile, int tile_row, const float* key_value) {
  for (int i = threadIdx.x; i < 2 * kDim; i += kTileThreads) {
    unsigned char* to = tile + ((i < kDim ? 0 : kTileKeys) + tile_row) * kKeyBytes<kDim>;
    reinterpret_cast<T*>(to)[i % kDim] = from_float<T>(key_value[i]);
  }
}

template <typename T, int kDim>
__global__ void __launch_bounds__(kTileThreads) decode_kernel(const __grid_constant__ DecodeArguments p) {
  using Warp = DecodeWarp<T, kDim>;
  constexpr int kTileBytes = 2 * kTileKeys * kKeyBytes<kDim>, kAhead = kStages<kDim> - 1;
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ float scalars[kDecodeWarps * kGroupRows * 2];
  __shared__ int first_items[kFewTokens + 1];
  const uint32_t tiles = shared_address(shared);
  auto* heads = reinterpret_cast<float*>(shared + kStages<kDim> * kTileBytes);
  const bool appends = p.append.qkv != nullptr;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = p.a.n_heads / p.a.n_kv_heads,
            n_rows = static_cast<int>(p.step.n_rows);
  let_successor_start();
  touch_parameters(p);
  // What describes the step was there before the step's first kernel, and so were all keys but the newest: no need to wait yet.
  bool waited = false;
  if (threadIdx.x < n_rows) first_items[threadIdx.x + 1] = cut_of(visible_of(p, threadIdx.x), p.target_runs).n_runs * p.a.n_kv_heads;
  if (threadIdx.x == 0) first_items[0] = 0;
  __syncthreads();
  if (threadIdx.x == 0)
    for (int r = 0; r < n_rows; ++r) first_items[r + 1] += first_items[r];
  __syncthreads();

  int row = 0;
  for (int item = blockIdx.x; item < first_items[n_rows]; item += gridDim.x) {
    while (item >= first_items[row + 1]) ++row;
    const Visible v = visible_of(p, row);
    Visible stored = v;  // What copies find in the cache.
    if (appends) stored.last = min(v.last, v.slot);
    const Cut cut = cut_of(v, p.target_runs);
    const int g = (item - first_items[row]) % p.a.n_kv_heads, run = (item - first_items[row]) / p.a.n_kv_heads;
    const int first_tile = run * cut.tiles_a_run, n_tiles = min(cut.tiles_a_run, cut.n_tiles - first_tile);
    const int32_t* table = p.step.tables + p.step.table_starts[row];
    const auto copy = [&](int i) {
      if (i < n_tiles)
        copy_tile<T, kDim>(tiles + i % kStages<kDim> * kTileBytes, p.cache, table, g, cut.begin + (first_tile + i) * kTileKeys, stored);
      commit_copies();
    };
    const bool is_old = appends || (p.one_row_each && cut.begin + (first_tile + kAhead) * kTileKeys <= v.slot);
    const int token_tile = (v.slot - cut.begin) / kTileKeys - first_tile;  ///< Of this item, where it is one.
    if (!is_old && !waited) wait_for_predecessor(), waited = true;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) copy(i);
    if (!waited) wait_for_predecessor(), waited = true;
    if (appends) {
      prepare_heads<T, kDim>(heads, p, row, g, group, token_tile >= 0 && token_tile < n_tiles);
      __syncthreads();
    }
    Warp mine;
    mine.load_query(appends ? heads : p.q + (int64_t{row} * p.a.n_heads + g * group) * kDim, group, lane);
    for (int i = 0; i < n_tiles; ++i) {
      wait_for_copies<kAhead - 1>();
      __syncthreads();  // The tile has arrived for all, and all have left the one that the next copy overwrites.
      copy(i + kAhead);
      if (appends && i == token_tile) {
        put_token<T, kDim>(shared + i % kStages<kDim> * kTileBytes, (v.slot - cut.begin) % kTileKeys, heads + group * kDim);
        __syncthreads();
      }
      const uint32_t keys = tiles + i % kStages<kDim> * kTileBytes + warp * 16 * kKeyBytes<kDim>;
      mine.step(keys, keys + kTileKeys * kKeyBytes<kDim>, cut.begin + (first_tile + i) * kTileKeys + warp * 16, v, p.a, g * group, group,
                lane);
    }
    wait_for_copies<0>();
    __syncthreads();
    auto* sums = reinterpret_cast<float*>(shared);
    mine.store(sums + warp * kGroupRows * kDim, scalars + warp * kGroupRows * 2, lane);
    __syncthreads();
    finish_item<kDim>(p, sums, scalars, row, g, group, cut, item, first_items[row]);
    __syncthreads();  // Before the next item's copies.
  }
  // A block without items need not wait: that others do is enough, and its place is free for the next kernel.
}

template <typename T, int kDim>
void launch_decode(const DecodeArguments& p, cudaStream_t stream) {
  constexpr size_t kTiles = size_t{kStages<kDim>} * 2 * kTileKeys * kKeyBytes<kDim>;
  static_assert(kTiles >= size_t{kDecodeWarps} * kGroupRows * kDim * sizeof(float));
  const size_t heads = p.append.qkv == nullptr ? 0 : static_cast<size_t>(p.a.n_heads / p.a.n_kv_heads + 3) * kDim * sizeof(float);
  allow_shared(decode_kernel<T, kDim>, kTiles + heads);
  launch(decode_kernel<T, kDim>, static_cast<unsigned>((kDim <= 64 ? 3 : 2) * multiprocessors()), kTileThreads, kTiles + heads, stream, p);
}

template <typename T>
void launch_decode_for_width(const DecodeArguments& p, cudaStream_t stream) {
  visit_width(p.a.head_dim, [&]<int kDim>() { launch_decode<T, kDim>(p, stream); });
}

int target_runs(const AttentionScalars& a) {
  const int blocks = 2 * multiprocessors();
  return std::clamp(blocks / a.n_kv_heads, 16, 64);
}

size_t counter_bytes(const AttentionScalars& a) { return static_cast<size_t>(kFewTokens * a.n_kv_heads) * sizeof(unsigned int); }

}  // namespace

bool decodes(const KeyLayout& cache, const AttentionRows& rows, const AttentionScalars& a) {
  return is_tile_width(a.head_dim) && rows.queries_per_batch == 0 && rows.n_rows <= kFewTokens && cache.dtype != Dtype::kF32 &&
         a.n_heads / a.n_kv_heads <= kGroupRows;
}

size_t decode_scratch_bytes(int64_t n_rows, const AttentionScalars& a) {
  return counter_bytes(a) + static_cast<size_t>(n_rows * target_runs(a) * a.n_heads * (a.head_dim + 2)) * sizeof(float);
}
size_t decode_counter_bytes(const AttentionScalars& a) { return counter_bytes(a); }

namespace {

void attend(DecodeArguments p, const AttentionScalars& scalars, void* scratch, cudaStream_t stream) {
  if (p.step.n_rows == 0) return;
  p.n_done = static_cast<unsigned int*>(scratch);
  p.partial = reinterpret_cast<float*>(static_cast<char*>(scratch) + counter_bytes(scalars));
  p.target_runs = target_runs(scalars);
  p.one_row_each = p.step.one_row_each;
  if (p.cache.dtype == Dtype::kF16)
    launch_decode_for_width<__half>(p, stream);
  else
    launch_decode_for_width<__nv_bfloat16>(p, stream);
}

}  // namespace

void decode_attention(float* out, float* lse, const float* q, const KeyLayout& cache, const DeviceStep& step,
                      const AttentionScalars& scalars, void* scratch, cudaStream_t stream) {
  attend({out, lse, q, cache, step, scalars}, scalars, scratch, stream);
}

void append_and_attend(float* out, const AppendInputs& in, const KeyLayout& cache, const DeviceStep& step, const AttentionScalars& scalars,
                       void* scratch, cudaStream_t stream) {
  DecodeArguments p{out, nullptr, nullptr, cache, step, scalars};
  p.append = in;
  attend(p, scalars, scratch, stream);
}

}  // namespace minillm::cuda
