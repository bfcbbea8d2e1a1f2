// attention_matrix.h - one task of flash attention on tiles of bfloat16: many rows over a 16-bit cache, where the instruction set
// has such tiles (attention_kernels.h tells the order of operations).
// Keys and values of a unit are converted once for all rows of the task, which is why its tiles are tall.
#pragma once

#include <cstdint>

#include "backend/cpu/attention_tile.h"

namespace minillm::cpu {

/// Steps of at least this many tokens of a sequence: fewer rows do not pay for the conversion. A sequence's choice, not a tile's,
/// so that a row's bits do not depend on where tiles end.
inline constexpr int64_t kMatrixTokens = 16;

/// Whether attention over `element` may take this way at all.
inline bool has_matrices(const AttentionKernels& kernels, bool paged, KvElement element) {
  return kernels.matrices != nullptr && paged && (element == KvElement::kF16 || element == KvElement::kBF16);
}
/// Whether the rows of a sequence do.
inline bool uses_matrices(const AttentionJob& job, const AttentionTask& task) {
  return has_matrices(*job.kernels, job.kv.storage != nullptr, job.kv.element) &&
         job.sequences[static_cast<size_t>(task.sequence)].n_rows >= kMatrixTokens;
}

/// Tallest tile: 1.5 to 2 MiB of L2 hold its queries, its sums and a unit of keys and values.
int64_t max_matrix_rows(int64_t head_dim);

/// What a thread works in beside a TileScratch; layouts as in MatrixGroup, group after group.
struct MatrixScratch {
  uint16_t* q;
  uint16_t* keys;
  uint16_t* values;
  uint16_t* weights;
  float* o;
  float* sums;
  float* offsets;
  float* scores;
  KeyRange* ranges;    ///< Of a group in the current unit.
  ScoreMap* maps;      ///< Of all rows.
  int64_t* positions;  ///< The same.
  int64_t* indices;    ///< The same: row of q and out seen as [T H, D].

  static int64_t bytes(int64_t head_dim);
  static MatrixScratch carve(void* memory, int64_t head_dim);
};

/// Runs one task; writes its output rows. False, with some rows written or none, where a number that it met is not finite or so large that
/// scores might not be representable: the task is one for float32 then.
bool attend_matrix(const AttentionJob& job, const AttentionTask& task, const MatrixScratch& scratch, const TileScratch& rows);

}  // namespace minillm::cpu
