// attention_standard.h - attention with the whole score matrix in memory: the check of flash attention and its baseline.
//   scores [H, Sq, Sk] of every sequence, one softmax over each row, then one product with V.
// The same register tiles as flash attention, so that the difference in speed is the algorithm's; results equal to rounding.
// Order of sums, whatever the batch: scores as in attention_kernels.h, the row's sum in 16 lanes, values over keys in order.
#pragma once

#include <cstdint>

#include "backend/cpu/attention_tile.h"

namespace minillm::cpu {

/// The score matrices of a call, one after the other: [sequence][H][n_rows][n_keys].
class StandardScores {
 public:
  explicit StandardScores(const AttentionJob& job);
  int64_t n_floats() const noexcept { return n_floats_; }
  /// First row of the task's sequence and key/value head; packed row r is row (r % group) * n_rows + r / group of it.
  int64_t start_of(const AttentionJob& job, const AttentionTask& task) const;
  static int64_t stride_of(const AttentionJob& job, const AttentionTask& task);

 private:
  int64_t n_floats_ = 0;
};

/// The rows of one whole tile. `scores` and `stride` as StandardScores says.
void attend_standard(const AttentionJob& job, const AttentionTask& task, const TileScratch& scratch, float* scores, int64_t stride);

}  // namespace minillm::cpu
