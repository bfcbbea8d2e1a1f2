// attention_standard.cpp - two passes over the keys for each tile of rows: all scores, then probabilities and values.
#include "backend/cpu/attention_standard.h"

#include <algorithm>
#include <limits>

#include "base/bytes.h"

namespace minillm::cpu {
namespace {

int64_t n_keys_of(const AttentionSequence& s) { return std::max<int64_t>(0, s.offset + s.n_rows); }

int64_t floats_of(const AttentionJob& job, const AttentionSequence& s) { return job.params->n_heads * s.n_rows * n_keys_of(s); }

/// The matrix row of row r of the tile.
float* matrix_row(const AttentionJob& job, const AttentionTask& task, int64_t r, float* scores, int64_t stride) {
  const int64_t packed = task.row + r, group = job.group();
  const int64_t n_rows = job.sequences[static_cast<size_t>(task.sequence)].n_rows;
  return scores + (packed % group * n_rows + packed / group) * stride;
}

struct Blocks {
  int64_t begin, end, size;
};

Blocks blocks_of(const AttentionJob& job, const AttentionTask& task) {
  return {task.run_begin * job.run_tokens(),
          std::min(task.run_end * job.run_tokens(), n_keys_of(job.sequences[static_cast<size_t>(task.sequence)])), job.params->block_size};
}

}  // namespace

StandardScores::StandardScores(const AttentionJob& job) {
  for (const AttentionSequence& s : job.sequences) n_floats_ += floats_of(job, s);
}

int64_t StandardScores::start_of(const AttentionJob& job, const AttentionTask& task) const {
  int64_t start = 0;
  for (int64_t i = 0; i < task.sequence; ++i) start += floats_of(job, job.sequences[static_cast<size_t>(i)]);
  const AttentionSequence& s = job.sequences[static_cast<size_t>(task.sequence)];
  return start + task.kv_head * job.group() * s.n_rows * n_keys_of(s);
}

int64_t StandardScores::stride_of(const AttentionJob& job, const AttentionTask& task) {
  return n_keys_of(job.sequences[static_cast<size_t>(task.sequence)]);
}

void attend_standard(const AttentionJob& job, const AttentionTask& task, const TileScratch& scratch, float* scores, int64_t stride) {
  const Blocks blocks = blocks_of(job, task);
  const int64_t width = job.padded_width();
  constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
  begin_tile(job, task, scratch);
  std::fill_n(scratch.run_o, task.n_rows * width, 0.0f);
  for (int64_t r = 0; r < task.n_rows; ++r) {
    scratch.run_max[r] = kMinusInfinity;
    std::fill_n(scratch.run_sums + r * kKeyPanel, kKeyPanel, 0.0f);
    std::fill_n(matrix_row(job, task, r, scores, stride), stride, kMinusInfinity);
  }
  for (int64_t block = blocks.begin; block < blocks.end; block += blocks.size) {
    const BlockRows rows = visible_rows(job, task, block, scratch);
    block_scores(job, task, rows, block, scratch);
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      float* row = scratch.scores + r * blocks.size;
      const KeyRange range = scratch.ranges[r];
      scratch.run_max[r] = std::max(scratch.run_max[r], job.kernels->map_scores(row, range, scratch.maps[r]));
      std::copy(row + range.begin, row + range.end, matrix_row(job, task, r, scores, stride) + block + range.begin);
    }
  }
  for (int64_t block = blocks.begin; block < blocks.end; block += blocks.size) {
    const BlockRows rows = visible_rows(job, task, block, scratch);
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      const KeyRange range = scratch.ranges[r];
      float* row = scratch.scores + r * blocks.size;
      float* kept = matrix_row(job, task, r, scores, stride) + block;
      std::fill(row + range.begin / kKeyPanel * kKeyPanel, row + round_up(range.end, kKeyPanel), kMinusInfinity);
      std::copy(kept + range.begin, kept + range.end, row + range.begin);
      job.kernels->exponentials(row, range, scratch.maps[r], scratch.run_max[r], scratch.run_sums + r * kKeyPanel);
      std::copy(row + range.begin, row + range.end, kept + range.begin);
    }
    block_values(job, task, rows, block, scratch);
  }
  for (int64_t r = 0; r < task.n_rows; ++r) {
    scratch.totals[r] = {scratch.run_max[r], job.kernels->sum_lanes(scratch.run_sums + r * kKeyPanel)};
    std::copy_n(scratch.run_o + r * width, width, scratch.total_o + r * width);
  }
  write_rows(job, task, scratch);
}

}  // namespace minillm::cpu
