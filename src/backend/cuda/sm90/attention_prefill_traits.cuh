// attention_prefill_traits.cuh - tile sizes of the Hopper prefill kernel, what follows from them, and what blocks share.
#pragma once

#include "backend/cuda/sm90/pipeline.cuh"
#include "backend/cuda/sm90/schedule.cuh"
#include "backend/cuda/sm90/tma.cuh"

namespace minillm::cuda::sm90 {

struct PrefillParams {
  CUtensorMap q, k, v, out;  ///< [B, S, heads, D] as dimensions (D, head, token, batch).
  float* lse;                ///< [B, H, Sq] or null.
  int* tickets;              ///< Two zeroed counters, zero again when the kernel ends.
  TileSchedule schedule;
  int n_queries, n_keys;  ///< Sq, Sk
  int heads_per_kv;       ///< H / G
  float scale;
};

/// Tile sizes and what follows from them.
template <typename T, int kHeadDim_, int kWarpgroups_, int kKeys_, bool kCausal_>
struct PrefillTraits {
  using Element = T;
  static constexpr int kHeadDim = kHeadDim_;        ///< D: 64, 128 or 256
  static constexpr int kWarpgroups = kWarpgroups_;  ///< Consumers, 64 query rows each.
  static constexpr int kKeys = kKeys_;              ///< Keys a tile.
  static constexpr bool kCausal = kCausal_;
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
  int tile_index[2];
};

/// Key tiles that the query tile sees.
template <typename Traits>
__device__ __forceinline__ int key_tiles(const PrefillParams& p, int row_tile) {
  const int all = (p.n_keys + Traits::kKeys - 1) / Traits::kKeys;
  if (!Traits::kCausal) return all;
  const int end = (row_tile + 1) * Traits::kRows + p.n_keys - p.n_queries;  // One past the last key of the last row.
  return max(0, min(all, (end + Traits::kKeys - 1) / Traits::kKeys));
}

}  // namespace minillm::cuda::sm90
