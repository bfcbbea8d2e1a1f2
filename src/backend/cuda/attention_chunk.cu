// attention_chunk.cu - attention of many rows over a paged cache of 16 or 8 bits: prefill, with every option.
// A block owns up to 64 rows of one sequence and one query head; its four warps take 16 rows each, and all walk the same tiles of 64
// keys, whose copies run one tile ahead. Tiles that every row sees whole need no mask.
// Sources: Dao 2023, arXiv:2307.08691 (FlashAttention-2): rows stay, one division at the end, masks in the last tiles only.
// Cost:    4 T S D flops a head on the matrix units; K and V come from L2 once for each 64 rows and head.
// Numerics: q and the weights rounded to the cache's type, float16 over 8 bits (f8.cuh); sums and softmax in float32.
#include <cmath>
#include <cstdint>

#include "backend/cuda/check.h"
#include "backend/cuda/device/f8.cuh"
#include "backend/cuda/device/kv_tile.cuh"
#include "backend/cuda/device/launch.cuh"
#include "backend/cuda/device/softmax.cuh"
#include "backend/cuda/operations.h"

namespace minillm::cuda {
namespace {

constexpr int kScores = kTileKeys / 8;
constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

struct ChunkArguments {
  float *out, *lse;
  const float* q;
  KeyLayout cache;
  DeviceStep step;
  AttentionScalars a;
};

/// What the two rows of a lane see.
struct RowRange {
  int first[2], last[2], slot[2];
};

template <typename T, int kDim>
struct ChunkWarp {
  static constexpr bool kIsNarrow = sizeof(T) == 1;
  static constexpr int kUnits = kDim / 16;  ///< Of 16 elements: a chunk of an 8-bit row.
  using M = Multiplied<T>;
  uint32_t query[kDim / 16][4];
  float out[kDim / 8][4] = {};
  float max[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};  ///< Base 2; sums of this lane's columns only.

  __device__ __forceinline__ void load_query(const float* q, int64_t stride, int n_rows, int row, int lane) {
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int r = row + i % 2 * 8, d = k * 16 + (kIsNarrow ? lane % 4 * 4 + i / 2 * 2 : i / 2 * 8 + lane % 4 * 2);
        const float2 v = r < n_rows ? *reinterpret_cast<const float2*>(q + r * stride + d) : float2{0.0f, 0.0f};
        query[k][i] = pack2<M>(v.x, v.y);
      }
  }

  __device__ __forceinline__ void add_product(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) const {
    mma<M>(c, a[0], a[1], a[2], a[3], b0, b1);
  }

  __device__ __forceinline__ void scores_of(float (&c)[kScores][4], uint32_t keys, int lane) const {
    constexpr int kLoads = kIsNarrow ? (kUnits + 1) / 2 : kUnits;  // Of two chunks of 16 keys.
#pragma unroll
    for (int k = 0; k < kLoads; ++k)
#pragma unroll
      for (int n = 0; n < kScores / 2; ++n) {
        uint32_t b[4];
        load_tiles(b, keys + (n * 16 + lane / 16 * 8 + lane % 8) * kKeyBytes<T, kDim> + (2 * k + lane / 8 % 2) * 16);
        if constexpr (kIsNarrow) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            if (2 * k + i % 2 >= kUnits) continue;
            uint32_t pairs[2];
            widen4(pairs, b[i]);
            add_product(c[2 * n + i / 2], query[2 * k + i % 2], pairs[0], pairs[1]);
          }
        } else {
          add_product(c[2 * n], query[k], b[0], b[1]);
          add_product(c[2 * n + 1], query[k], b[2], b[3]);
        }
      }
  }

  /// Scores to base-2 exponents, -inf where a row does not see a key.
  __device__ __forceinline__ void mask(float (&c)[kScores][4], int slot, const RowRange& range, const AttentionScalars& a, int head,
                                       int lane) const {
    const float slope = a.alibi == nullptr ? 0.0f : a.alibi[head];
#pragma unroll
    for (int n = 0; n < kScores; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int s = slot + n * 8 + lane % 4 * 2 + i % 2, r = i / 2;
        float x = c[n][i] * a.scale;
        if (a.softcap != 0.0f) x = a.softcap * tanhf(x / a.softcap);
        x -= slope * fabsf(static_cast<float>(range.slot[r] - s));
        c[n][i] = s >= range.first[r] && s < range.last[r] ? x * kLog2E : -INFINITY;
      }
  }

  __device__ __forceinline__ void weigh(float (&c)[kScores][4], uint32_t values, int lane) {
    float keep[2], base[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = max[r];
#pragma unroll
      for (int n = 0; n < kScores; ++n) top = fmaxf(top, fmaxf(c[n][2 * r], c[n][2 * r + 1]));
      top = row_max(top);
      base[r] = top == -INFINITY ? 0.0f : top;
      keep[r] = exp2_fast(max[r] - base[r]);
      max[r] = top;
      sum[r] *= keep[r];
    }
#pragma unroll
    for (int n = 0; n < kScores; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        c[n][i] = exp2_fast(c[n][i] - base[i / 2]);
        sum[i / 2] += c[n][i];
      }
#pragma unroll
    for (auto& o : out) o[0] *= keep[0], o[1] *= keep[0], o[2] *= keep[1], o[3] *= keep[1];
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) {
      const uint32_t p[4] = {pack2<M>(c[2 * k][0], c[2 * k][1]), pack2<M>(c[2 * k][2], c[2 * k][3]),
                             pack2<M>(c[2 * k + 1][0], c[2 * k + 1][1]), pack2<M>(c[2 * k + 1][2], c[2 * k + 1][3])};
      add_values(p, values + (k * 16 + lane / 8 % 2 * 8 + lane % 8) * kKeyBytes<T, kDim> + lane / 16 * 16);
    }
  }

  /// values: the lane's row of 16 keys' values, and its chunk of every two.
  __device__ __forceinline__ void add_values(const uint32_t (&p)[4], uint32_t values) {
    constexpr int kLoads = kIsNarrow ? (kUnits + 1) / 2 : kUnits;
#pragma unroll
    for (int n = 0; n < kLoads; ++n) {
      uint32_t b[4];
      load_tiles_transposed(b, values + n * 32);
      if constexpr (kIsNarrow) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int unit = 2 * n + i;
          if (unit >= kUnits) continue;
          uint32_t low[2], high[2];
          widen4_across(low, b[2 * i]);
          widen4_across(high, b[2 * i + 1]);
          add_product(out[2 * unit], p, low[0], high[0]);
          add_product(out[2 * unit + 1], p, low[1], high[1]);
        }
      } else {
        add_product(out[2 * n], p, b[0], b[1]);
        add_product(out[2 * n + 1], p, b[2], b[3]);
      }
    }
  }

  /// `row_head`: row * H + head of the warp's lane's first row; the second is 8 rows further.
  __device__ __forceinline__ void store(const ChunkArguments& p, int64_t first_row, int n_rows, int row, int head, int lane) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] = row_sum(sum[r]);
      const float sink = p.a.sinks == nullptr ? -INFINITY : p.a.sinks[head] * kLog2E, top = fmaxf(max[r], sink);
      const bool sees_any = top != -INFINITY;
      const float share = sees_any ? exp2_fast(max[r] - top) : 0.0f, total = sees_any ? sum[r] * share + exp2_fast(sink - top) : 1.0f;
      if (row + 8 * r >= n_rows) continue;
      const int64_t at = (first_row + row + 8 * r) * p.a.n_heads + head;
      const float factor = share / total;
#pragma unroll
      for (int n = 0; n < kUnits; ++n) {
        float* const to = p.out + at * kDim + n * 16;
        const float a = out[2 * n][2 * r], b = out[2 * n][2 * r + 1], c = out[2 * n + 1][2 * r], d = out[2 * n + 1][2 * r + 1];
        if constexpr (kIsNarrow) {  // Even elements of the 16, then odd ones.
          *reinterpret_cast<float4*>(to + lane % 4 * 4) = {a * factor, c * factor, b * factor, d * factor};
        } else {
          *reinterpret_cast<float2*>(to + lane % 4 * 2) = {a * factor, b * factor};
          *reinterpret_cast<float2*>(to + 8 + lane % 4 * 2) = {c * factor, d * factor};
        }
      }
      if (p.lse != nullptr && lane % 4 == 0) p.lse[at] = sees_any ? (top + log2f(total)) * kLn2 : -INFINITY;
    }
  }
};

template <typename T, int kDim>
__global__ void __launch_bounds__(kTileThreads) chunk_kernel(const __grid_constant__ ChunkArguments p) {
  constexpr int kTileBytes = 2 * kTileKeys * kKeyBytes<T, kDim>;
  extern __shared__ __align__(16) unsigned char shared[];
  const uint32_t tiles = shared_address(shared);
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
  const int head = blockIdx.x, tile = static_cast<int>(p.step.n_tiles) - 1 - blockIdx.y;  // The longest first.
  const int g = head / (p.a.n_heads / p.a.n_kv_heads);
  let_successor_start();
  wait_for_predecessor();
  const int first_row = p.step.tiles[2 * tile], n_rows = p.step.tiles[2 * tile + 1];
  const int slot = p.step.slots[first_row], n_keys = p.step.key_counts[first_row],
            window = static_cast<int>(min(p.a.window, int64_t{1} << 30));
  const int32_t* table = p.step.tables + p.step.table_starts[first_row];
  const Visible v{window > 0 ? max(0, slot - window + 1) : 0, p.a.causal ? min(n_keys, slot + n_rows) : n_keys, slot};
  RowRange range;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    range.slot[r] = slot + row + 8 * r;
    range.first[r] = window > 0 ? range.slot[r] - window + 1 : 0;
    range.last[r] = p.a.causal ? min(n_keys, range.slot[r] + 1) : n_keys;
  }
  const int begin = v.first / 16 * 16, n_tiles = max(0, (v.last - begin + kTileKeys - 1) / kTileKeys);
  const auto copy = [&](int i) {
    if (i < n_tiles) copy_tile<T, kDim>(tiles + i % 2 * kTileBytes, p.cache, table, g, begin + i * kTileKeys, v);
    commit_copies();
  };
  copy(0);
  ChunkWarp<T, kDim> mine;
  mine.load_query(p.q + (int64_t{first_row} * p.a.n_heads + head) * kDim, int64_t{p.a.n_heads} * kDim, n_rows, row, lane);
  const bool is_plain = p.a.softcap == 0.0f && p.a.alibi == nullptr;
  for (int i = 0; i < n_tiles; ++i) {
    wait_for_copies<0>();
    __syncthreads();  // The tile has arrived for all, and all have left the one that the next copy overwrites.
    copy(i + 1);
    const uint32_t keys = tiles + i % 2 * kTileBytes;
    const int first = begin + i * kTileKeys, end = first + kTileKeys;
    float c[kScores][4] = {};
    mine.scores_of(c, keys, lane);
    const bool all_see = end <= n_keys && (!p.a.causal || end <= slot + 1) && (window == 0 || first > slot + n_rows - 1 - window);
    if (is_plain && all_see) {
      const float scale = p.a.scale * kLog2E;
#pragma unroll
      for (auto& x : c) x[0] *= scale, x[1] *= scale, x[2] *= scale, x[3] *= scale;
    } else {
      mine.mask(c, first, range, p.a, head, lane);
    }
    mine.weigh(c, keys + kTileKeys * kKeyBytes<T, kDim>, lane);
  }
  mine.store(p, first_row, n_rows, row, head, lane);
}

template <typename T, int kDim>
void launch_chunks(const ChunkArguments& p, cudaStream_t stream) {
  constexpr size_t kShared = size_t{2} * 2 * kTileKeys * kKeyBytes<T, kDim>;
  allow_shared(chunk_kernel<T, kDim>, kShared);
  launch(chunk_kernel<T, kDim>, dim3(static_cast<unsigned>(p.a.n_heads), static_cast<unsigned>(p.step.n_tiles)), kTileThreads, kShared,
         stream, p);
}

template <typename T>
void launch_chunks_for_width(const ChunkArguments& p, cudaStream_t stream) {
  visit_width(p.a.head_dim, [&]<int kDim>() { launch_chunks<T, kDim>(p, stream); });
}

}  // namespace

bool attends_in_chunks(const KeyLayout& cache, const AttentionRows& rows, const AttentionScalars& a) {
  return is_tile_width(a.head_dim) && rows.queries_per_batch == 0 && cache.dtype != Dtype::kF32 && rows.step.n_tiles < 65536;
}

void chunk_attention(float* out, float* lse, const float* q, const KeyLayout& cache, const DeviceStep& step,
                     const AttentionScalars& scalars, cudaStream_t stream) {
  if (step.n_rows == 0) return;
  const ChunkArguments p{out, lse, q, cache, step, scalars};
  if (cache.dtype == Dtype::kF16)
    launch_chunks_for_width<__half>(p, stream);
  else if (cache.dtype == Dtype::kF8)
    launch_chunks_for_width<__nv_fp8_e4m3>(p, stream);
  else
    launch_chunks_for_width<__nv_bfloat16>(p, stream);
}

}  // namespace minillm::cuda
