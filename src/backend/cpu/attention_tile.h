// attention_tile.h - one task of an attention call: a tile of query rows over runs of keys, with a thread's own scratch.
#pragma once

#include <cstdint>
#include <span>

#include "backend/backend.h"
#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/attention_schedule.h"
#include "backend/cpu/kv_storage.h"

namespace minillm::cpu {

inline constexpr int64_t kRunTokens = 512;  ///< Keys of a run, unless a block is longer (design.md section 6).
inline constexpr int64_t kMaxTileRows = 192;
inline constexpr int64_t kMaxTileScores = 32768;  ///< Rows times block size of a tile: 128 KiB, a small part of L2.
inline constexpr int64_t kSlicePanels = 8;        ///< Panels converted at a time: a 128-key slice of one vector column stays in L1.

/// Where keys and values are: pages of a storage, or dense rows [B, Sk, G, D].
struct KvSource {
  const CpuKvStorage* storage = nullptr;  ///< Null for dense.
  int64_t layer = 0;
  const float* dense_k = nullptr;
  const float* dense_v = nullptr;
  KvElement element = KvElement::kF32;
};

/// One attention call; everything a task needs beside its own numbers.
struct AttentionJob {
  const AttentionKernels* kernels = nullptr;
  const AttentionParams* params = nullptr;
  std::span<const AttentionSequence> sequences;
  KvSource kv;
  const float* q = nullptr;    ///< [T, H, D]
  float* out = nullptr;        ///< [T, H, D]
  float* lse = nullptr;        ///< [T, H] or null
  float* partial_o = nullptr;  ///< [partial rows][padded width]
  RowTotal* partial_totals = nullptr;
  std::span<const AttentionTask> tasks;  ///< Of this call, in the order in which threads take them.
  int n_threads = 1;

  int64_t head_dim() const noexcept { return params->head_dim; }
  int64_t padded_width() const noexcept { return (params->head_dim + kKeyPanel - 1) / kKeyPanel * kKeyPanel; }
  int64_t group() const noexcept { return params->n_heads / params->n_kv_heads; }
  int64_t run_tokens() const noexcept { return params->block_size > kRunTokens ? params->block_size : kRunTokens; }
  Visibility visibility() const noexcept { return {params->causal, params->window}; }
};

/// How the scores of one head come from q.k.
ScoreMap score_map(const AttentionParams& params, int64_t head);

/// Tallest tile whose scores of one block fit.
int64_t max_tile_rows(int64_t block_size);

/// What a row of a tile is: set once a task.
struct TileRow {
  int64_t position;  ///< Among the sequence's slots.
  int64_t index;     ///< Row of q and out seen as [T H, D].
};

/// What a thread works in, laid out in one allocation.
struct TileScratch {
  float* q;         ///< [kMaxTileRows][D], or [D][task.n_rows] where the task reads_directly().
  float* run_o;     ///< [kMaxTileRows][padded width]
  float* total_o;   ///< the same
  float* scores;    ///< [kMaxTileScores]
  float* slice;     ///< [kSlicePanels][16][padded width]: keys or values in float32.
  float* run_max;   ///< [kMaxTileRows]
  float* run_sums;  ///< [kMaxTileRows][16]
  ScoreMap* maps;   ///< Their distances belong to the current block.
  RowTotal* totals;
  KeyRange* ranges;  ///< Of the current block.
  TileRow* rows;

  static int64_t bytes(int64_t head_dim);
  static TileScratch carve(void* memory, int64_t head_dim);
};

/// Runs one task of flash attention: writes the output rows, or partial rows where the tile is split.
void attend_tile(const AttentionJob& job, const AttentionTask& task, const TileScratch& scratch);
/// Merges the partial rows of a split tile in order and writes the output rows.
void merge_tile(const AttentionJob& job, const AttentionTask& task, const TileScratch& scratch);
/// The logarithm of the sum of a row's exponentials.
float log_sum(const RowTotal& total);
/// Adds the sink, divides, and writes output and log-sum-exp of the task's rows from scratch.total_o and totals.
void write_rows(const AttentionJob& job, const AttentionTask& task, const TileScratch& scratch);
/// Fills scratch.rows and gathers the task's rows of q into scratch.q.
void begin_tile(const AttentionJob& job, const AttentionTask& task, const TileScratch& scratch);

/// One block of keys: the rows that see anything of it. Also sets their ranges and distances in the scratch.
struct BlockRows {
  int64_t begin = 0, end = 0;          ///< Rows of the tile with something to see; empty when equal.
  int64_t key_begin = 0, key_end = 0;  ///< Keys of the block that any of them sees.
};
BlockRows visible_rows(const AttentionJob& job, const AttentionTask& task, int64_t block_begin, const TileScratch& scratch);

/// Raw q.k of the block's visible keys into scratch.scores, [n_rows][block_size].
void block_scores(const AttentionJob& job, const AttentionTask& task, const BlockRows& rows, int64_t block_begin,
                  const TileScratch& scratch);
/// run_o += probabilities in scratch.scores times the block's values.
void block_values(const AttentionJob& job, const AttentionTask& task, const BlockRows& rows, int64_t block_begin,
                  const TileScratch& scratch);

}  // namespace minillm::cpu
