// attention_schedule.cpp - tiles, and splits along the keys.
#include "backend/cpu/attention_schedule.h"

#include <algorithm>

#include "base/bytes.h"

namespace minillm::cpu {
namespace {

constexpr int64_t kTasksPerThread = 8;  ///< Aim: one task is at most an eighth of a thread's share, so that the last one ends soon.
constexpr int64_t kPiecesPerShare = 2;  ///< Splits are cheap: their pieces are smaller still.
constexpr int64_t kMinTileRows = 4 * kRowGroup;  ///< Below this a tile re-reads keys and values too often.
constexpr int64_t kMaxSplitRows = 8;             ///< Taller tiles have work enough for every thread by themselves.
constexpr int64_t kMatrixGroup = 32;             ///< Rows of a tile on matrices come in groups of this,
constexpr int64_t kMinMatrixRows = 192;          ///< and fewer of them do not pay for the conversion of keys and values.

struct Tile {
  int64_t row, n_rows;
  int64_t key_begin, key_end;  ///< What its rows see, taken together.
};

int64_t tile_rows(std::span<const AttentionSequence> sequences, const ScheduleLimits& limits) {
  if (limits.n_threads == 1) return limits.max_tile_rows;
  int64_t total = 0;
  for (const AttentionSequence& s : sequences) total += s.n_rows * limits.group * limits.n_kv_heads;
  const int64_t even = ceil_div(total, kTasksPerThread * limits.n_threads);
  return std::clamp(round_up(even, kRowGroup), std::min(kMinTileRows, limits.max_tile_rows), limits.max_tile_rows);
}

/// Heights of tiles: of most sequences, and of those on matrices.
struct Heights {
  int64_t usual, matrix, matrix_tokens;

  Heights(std::span<const AttentionSequence> sequences, const ScheduleLimits& limits)
      : usual(tile_rows(sequences, limits)), matrix(0), matrix_tokens(limits.matrix_tokens) {
    if (matrix_tokens == 0) return;
    matrix = limits.max_matrix_rows;
    if (limits.n_threads == 1) return;
    int64_t total = 0;
    for (const AttentionSequence& s : sequences) total += s.n_rows * limits.group * limits.n_kv_heads;
    const int64_t even = ceil_div(total, kTasksPerThread * limits.n_threads);
    matrix = std::clamp(round_up(even, kMatrixGroup), std::min(kMinMatrixRows, matrix), matrix);
  }
  bool on_matrices(const AttentionSequence& s) const { return matrix_tokens > 0 && s.n_rows >= matrix_tokens; }
  int64_t of(const AttentionSequence& s) const { return on_matrices(s) ? matrix : usual; }
};

Tile make_tile(const AttentionSequence& s, int64_t row, int64_t n_rows, const Visibility& visibility, int64_t group) {
  const int64_t n_keys = std::max<int64_t>(0, s.offset + s.n_rows);
  const int64_t first = s.offset + row / group, last = s.offset + (row + n_rows - 1) / group;
  return {row, n_rows, std::min(visibility.begin(first), n_keys), std::max<int64_t>(0, visibility.end(last, n_keys))};
}

/// Calls f(sequence index, tile) for every tile of one key/value head, the last rows of a sequence first.
template <typename F>
void for_each_tile(std::span<const AttentionSequence> sequences, const Visibility& visibility, int64_t group, const Heights& heights,
                   F&& f) {
  for (size_t i = 0; i < sequences.size(); ++i) {
    const int64_t n_rows = sequences[i].n_rows * group, height = heights.of(sequences[i]);
    for (int64_t t = ceil_div(n_rows, height) - 1; t >= 0; --t) {
      const int64_t row = t * height;
      f(static_cast<int64_t>(i), make_tile(sequences[i], row, std::min(height, n_rows - row), visibility, group));
    }
  }
}

int64_t cost(const Tile& tile) { return tile.n_rows * std::max<int64_t>(1, tile.key_end - tile.key_begin); }

int64_t split_height(const ScheduleLimits& limits) { return std::max(limits.group, kMaxSplitRows); }

}  // namespace

void make_schedule(AttentionSchedule& schedule, std::span<const AttentionSequence> sequences, const Visibility& visibility,
                   const ScheduleLimits& limits) {
  schedule.tasks.clear();
  schedule.merges.clear();
  schedule.n_partial_rows = 0;
  const Heights heights(sequences, limits);
  int64_t total = 0;
  for_each_tile(sequences, visibility, limits.group, heights, [&](int64_t, const Tile& tile) { total += cost(tile); });
  const int64_t share = std::max<int64_t>(1, total * limits.n_kv_heads / (kTasksPerThread * limits.n_threads));

  for_each_tile(sequences, visibility, limits.group, heights, [&](int64_t sequence, const Tile& tile) {
    const int64_t first_run = tile.key_begin / limits.run_tokens;
    const int64_t n_runs = std::max<int64_t>(0, ceil_div(tile.key_end, limits.run_tokens) - first_run);
    int64_t pieces =
        limits.n_threads == 1 || 2 * cost(tile) <= 3 * share ? 1 : std::min(n_runs, ceil_div(kPiecesPerShare * cost(tile), share));
    if (tile.n_rows > split_height(limits) || heights.on_matrices(sequences[static_cast<size_t>(sequence)])) pieces = 1;
    for (int64_t head = 0; head < limits.n_kv_heads; ++head) {
      AttentionTask task{sequence, head, tile.row, tile.n_rows, first_run, first_run + n_runs, n_runs, -1, first_run};
      const int64_t slots = n_runs * tile.n_rows;
      if (pieces <= 1 || schedule.n_partial_rows + slots > limits.max_partial_rows) {
        schedule.tasks.push_back(task);
        continue;
      }
      task.partial = schedule.n_partial_rows;
      schedule.n_partial_rows += slots;
      schedule.merges.push_back(task);
      const int64_t per_piece = ceil_div(n_runs, pieces);
      for (int64_t run = first_run; run < first_run + n_runs; run += per_piece) {
        task.run_begin = run;
        task.run_end = std::min(run + per_piece, first_run + n_runs);
        schedule.tasks.push_back(task);
      }
    }
  });
}

int64_t partial_rows_needed(const ScheduleLimits& limits, int64_t max_sequences, int64_t max_context) {
  if (limits.n_threads == 1) return 0;
  // A tile is split when it exceeds 3/2 of a share, and there are kTasksPerThread shares for each thread.
  const int64_t most_split = std::min(max_sequences * limits.n_kv_heads, kTasksPerThread * limits.n_threads);
  return most_split * split_height(limits) * ceil_div(max_context, limits.run_tokens);
}

int64_t tasks_needed(const ScheduleLimits& limits, int64_t max_rows, int64_t max_sequences) {
  const int64_t smallest = std::min(kMinTileRows, limits.max_tile_rows);
  const int64_t tiles = (max_sequences + ceil_div(max_rows * limits.group, smallest)) * limits.n_kv_heads;
  return tiles + (2 * kPiecesPerShare + 1) * kTasksPerThread * limits.n_threads;  // Pieces: rounded up each, of at most all shares.
}

}  // namespace minillm::cpu
