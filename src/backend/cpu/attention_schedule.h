// attention_schedule.h - how one attention call is cut into tasks for threads.
// A task is a tile of packed rows of one (sequence, key/value head) over a stretch of runs of keys. Packed row r is query head
// r % group of token r / group (group = H / G): the heads that share keys and values are rows of one tile, so these are read once.
// None of these choices changes a result: every row goes through the same runs in the same order (attention_kernels.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace minillm::cpu {

/// Rows of one sequence; row i stands at position `offset` + i and the keys are 0 .. offset + n_rows - 1.
/// On dense tensors the offset is Sk - Sq and may be negative: those rows see nothing.
struct AttentionSequence {
  int64_t first_row = 0, n_rows = 0, offset = 0;
  const int32_t* pages = nullptr;  ///< Block table; null on dense tensors.
};

/// Which keys a row may see.
struct Visibility {
  bool causal = true;
  int64_t window = 0;

  /// First key seen by the row at `position`, and one past the last, of `n_keys`; empty when begin >= end.
  int64_t begin(int64_t position) const noexcept { return window > 0 && position + 1 > window ? position + 1 - window : 0; }
  int64_t end(int64_t position, int64_t n_keys) const noexcept { return !causal ? n_keys : position + 1 < n_keys ? position + 1 : n_keys; }
};

struct AttentionTask {
  int64_t sequence, kv_head;
  int64_t row, n_rows;         ///< Packed rows of the tile.
  int64_t run_begin, run_end;  ///< Runs of this task.
  int64_t tile_runs;           ///< Runs of the whole tile.
  int64_t partial;             ///< Slot of the tile's first partial row, or -1: the task is the whole tile and writes the output.
  int64_t first_run;           ///< First run of the tile; run r keeps row i in slot partial + (r - first_run) n_rows + i.
};

struct ScheduleLimits {
  int64_t group = 1, n_kv_heads = 1;
  int64_t run_tokens = 512;
  int64_t max_tile_rows = 96;
  int64_t max_partial_rows = 0;
  int n_threads = 1;
  int64_t matrix_tokens = 0;    ///< Sequences of at least this many rows take tiles of their own kind, never split; 0: none does.
  int64_t max_matrix_rows = 0;  ///< The tallest of these.
};

struct AttentionSchedule {
  std::vector<AttentionTask> tasks;   ///< In the order to start them: within a sequence the longest first.
  std::vector<AttentionTask> merges;  ///< Tiles that were split, to be merged once all tasks are done.
  int64_t n_partial_rows = 0;
};

/// Rows of a tile are a multiple of this where there are enough of them (the register tiles' height).
inline constexpr int64_t kRowGroup = 6;

/// Fills `schedule`, reusing its memory. Tiles get smaller when there are few rows for the threads; a tile that is still
/// too large a share of the work (decode, long context) is split along the keys while partial rows are left.
void make_schedule(AttentionSchedule& schedule, std::span<const AttentionSequence> sequences, const Visibility& visibility,
                   const ScheduleLimits& limits);

/// Partial rows that make_schedule can use for sequences up to `max_context`.
int64_t partial_rows_needed(const ScheduleLimits& limits, int64_t max_sequences, int64_t max_context);
/// Tasks and merges that it can make for `max_rows` rows in all.
int64_t tasks_needed(const ScheduleLimits& limits, int64_t max_rows, int64_t max_sequences);

}  // namespace minillm::cpu
