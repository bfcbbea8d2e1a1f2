// attention_prefill_traits.cuh - tile sizes of the Hopper prefill kernel, what follows from them, and what blocks share.
#pragma once

#include "backend/cuda/device/tma.cuh"
#include "backend/cuda/sm90/pipeline.cuh"
#include "backend/cuda/sm90/schedule.cuh"

namespace minillm::cuda::sm90 {

/// One query tile of one head. Row r of it sees the keys [0, min(n_keys, first_sees + r)) where causal, else all n_keys.
struct PrefillTile {
  int row, n_rows;  ///< In the batch entry, or in the whole step where paged.
  int n_keys, first_sees;
  int head, batch;
  int table;  ///< Paged: where the sequence's block table begins.
};

/// As the host lists the tiles of a paged step, those with the most keys first.
struct StepTile {
  int row, n_rows, n_keys, first_sees, table;
};

struct PrefillParams {
  CUtensorMap q, out;  ///< [B, S, heads, D] as dimensions (D, head, token, batch); paged: all rows of the step are one batch entry.
  CUtensorMap k, v;    ///< The same, or paged: (D, token of the page, head, page).
  float* lse;          ///< [B, H, Sq] or null.
  int* tickets;        ///< Two zeroed counters, zero again when the kernel ends.
  TileSchedule schedule;
  int n_queries, n_keys;  ///< Sq, Sk
  int heads_per_kv;       ///< H / G
  float scale;
  bool half_output;  ///< The output is float16, else bfloat16.
  // Paged:
  const StepTile* step_tiles;
  const int32_t* tables;
  int page_tokens, box_keys;  ///< A box of keys lies in one page.
  void* rows_out;             ///< What `out` maps, for tiles that end before their last row.
};

/// Tile sizes and what follows from them.
template <typename T, int kHeadDim_, int kWarpgroups_, int kKeys_, bool kCausal_, bool kPaged_ = false>
struct PrefillTraits {
  using Element = T;
  static constexpr int kHeadDim = kHeadDim_;        ///< D: 64, 128 or 256
  static constexpr int kWarpgroups = kWarpgroups_;  ///< Consumers, 64 query rows each.
  static constexpr int kKeys = kKeys_;              ///< Keys a tile.
  static constexpr bool kCausal = kCausal_;
  static constexpr bool kPaged = kPaged_;
  static constexpr int kRows = 64 * kWarpgroups;
  static constexpr int kStages = 2;
  static constexpr int kThreads = 128 * (kWarpgroups + 1);
  static constexpr int kBoxes = kHeadDim / kBoxColumns;
  static constexpr uint32_t kQueryBytes = kRows * kHeadDim * sizeof(T);
  static constexpr uint32_t kKeyBytes = kKeys * kHeadDim * sizeof(T);
  /// 64 K registers a block, shared out so that consumers hold S, P and O without spilling (FlashAttention-3's figures).
  static constexpr int kProducerRegisters = kWarpgroups == 3 ? 32 : 24;
  static constexpr int kConsumerRegisters = kWarpgroups == 3 ? 160 : 240;
  /// The output tile gets its own memory where there is room, so that the next queries load under this tile's tail.
  static constexpr bool kSeparateOutput = 2 * kQueryBytes + 2 * kStages * kKeyBytes + 1024 <= 227 * 1024;
  /// Ping-pong pays while softmax takes about as long as the products; at D = 256 it is a quarter of them.
  static constexpr bool kPingPong = kHeadDim <= 128;
};

template <typename Traits>
struct PrefillShared {
  alignas(1024) unsigned char q[Traits::kQueryBytes];
  alignas(1024) unsigned char k[Traits::kStages][Traits::kKeyBytes];
  alignas(1024) unsigned char v[Traits::kStages][Traits::kKeyBytes];
  alignas(1024) unsigned char out[Traits::kSeparateOutput ? Traits::kQueryBytes : 1024];
  Pipeline<Traits::kStages> keys, values;
  Pipeline<1> queries;
  Pipeline<2> tiles;
  PrefillTile tile[2];  ///< n_rows 0: no more.
};

/// Key tiles that the query tile sees.
template <typename Traits>
__device__ __forceinline__ int key_tiles(const PrefillTile& tile) {
  const int end = Traits::kCausal ? min(tile.n_keys, tile.first_sees + tile.n_rows - 1) : tile.n_keys;
  return max(0, (end + Traits::kKeys - 1) / Traits::kKeys);
}

/// Query tile number `index` in the order of the schedule.
template <typename Traits>
__device__ __forceinline__ PrefillTile tile_at(const PrefillParams& p, int index) {
  if (index >= p.schedule.n_tiles) return {};
  const TileSchedule::Tile tile = p.schedule.tile(index);
  if constexpr (Traits::kPaged) {
    const StepTile step = p.step_tiles[tile.row_tile];
    return {step.row, step.n_rows, step.n_keys, step.first_sees, tile.head, 0, step.table};
  } else {
    const int row = tile.row_tile * Traits::kRows;
    return {row, min(Traits::kRows, p.n_queries - row), p.n_keys, row + 1 + p.n_keys - p.n_queries, tile.head, tile.batch, 0};
  }
}

}  // namespace minillm::cuda::sm90
