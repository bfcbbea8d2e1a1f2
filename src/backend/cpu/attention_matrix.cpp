// attention_matrix.cpp - the loops around the tile kernels: units of keys outside, groups of 32 rows inside.
#include "backend/cpu/attention_matrix.h"

#include <algorithm>
#include <limits>

#include "backend/cpu/attention_panels.h"
#include "base/bytes.h"

namespace minillm::cpu {
namespace {

constexpr int64_t kMostUnit = matrix_unit(1024), kTileElements = 256, kHalfTile = 512;
constexpr float kUnset = std::numeric_limits<float>::infinity();
/// Bound on |score|: with its offset it is converted to a 32-bit integer.
constexpr float kMostScore = 1 << 29;

int64_t aligned(int64_t bytes) { return round_up(bytes, 64); }
int64_t key_steps(int64_t head_dim) { return ceil_div(head_dim, 32); }
int64_t value_tiles(int64_t head_dim) { return 2 * ceil_div(head_dim, 32); }

/// One task under way.
struct Walk {
  const AttentionJob& job;
  const AttentionTask& task;
  const MatrixScratch& scratch;
  const MatrixKernels& kernels;
  const AttentionSequence& sequence;
  int64_t n_keys, unit, steps, tiles, n_groups;
  bool mapped;  ///< Scores need a cap or a slope.

  Walk(const AttentionJob& j, const AttentionTask& t, const MatrixScratch& s)
      : job(j),
        task(t),
        scratch(s),
        kernels(*j.kernels->matrices),
        sequence(j.sequences[static_cast<size_t>(t.sequence)]),
        n_keys(std::max<int64_t>(0, sequence.offset + sequence.n_rows)),
        unit(matrix_unit(j.params->block_size)),
        steps(key_steps(j.head_dim())),
        tiles(value_tiles(j.head_dim())),
        n_groups(ceil_div(t.n_rows, kMatrixRows)),
        mapped(j.params->softcap != 0.0f || !j.params->alibi_slopes.empty()) {}

  uint16_t* q_of(int64_t group) const { return scratch.q + group * steps * 2 * kHalfTile; }
  float* o_of(int64_t group) const { return scratch.o + group * tiles * 2 * kTileElements; }

  /// Rows of q, their positions and maps; everything else empty. Returns the largest magnitude of q.
  float begin() const {
    const int64_t n_rows = n_groups * kMatrixRows;
    std::fill_n(scratch.o, n_groups * tiles * 2 * kTileElements, 0.0f);
    std::fill_n(scratch.sums, n_rows * kKeyPanel, 0.0f);
    std::fill_n(scratch.offsets, n_rows, kUnset);
    std::fill_n(q_of(n_groups - 1), steps * 2 * kHalfTile, uint16_t{0});  // Rows past the last are zeros.
    const int64_t group = job.group();
    float most = 0.0f;
    for (int64_t r = 0; r < task.n_rows; ++r) {
      const int64_t token = (task.row + r) / group, head = task.kv_head * group + (task.row + r) % group;
      const float* q = job.q + ((sequence.first_row + token) * job.params->n_heads + head) * job.head_dim();
      scratch.maps[r] = score_map(*job.params, head);
      scratch.positions[r] = sequence.offset + token;
      const float factor = scratch.maps[r].cap != 0.0f ? scratch.maps[r].scale : scratch.maps[r].scale * kernels.score_scale;
      most = std::max(most, kernels.pack_query(q_of(r / kMatrixRows), r % kMatrixRows, q, factor, job.head_dim()));
    }
    std::fill_n(scratch.maps + task.n_rows, n_rows - task.n_rows, ScoreMap{});
    std::fill_n(scratch.positions + task.n_rows, n_rows - task.n_rows, scratch.positions[task.n_rows - 1]);
    return most;
  }

  struct Largest {
    float key, value;
  };
  /// Keys and values [first, first + n) in bfloat16; missing ones up to a multiple of 32 have values of zero.
  Largest pack(int64_t first, int64_t n) const {
    const int64_t element = static_cast<int64_t>(job.kv.element), panel_elements = steps * kHalfTile;
    Largest most{0.0f, 0.0f};
    for (int64_t at = 0; at < n; at += kSlicePanels * kKeyPanel) {
      const int64_t n_panels = std::min(kSlicePanels, ceil_div(n - at, kKeyPanel));
      const PanelSet keys = key_panels(job, task, (first + at) / kKeyPanel, n_panels, false, nullptr);
      const PanelSet values = value_panels(job, task, (first + at) / kKeyPanel, n_panels, false, nullptr);
      for (int64_t i = 0; i < n_panels; ++i) {
        const int64_t key = at + i * kKeyPanel;
        most.key = std::max(most.key, kernels.pack_keys[element](scratch.keys + key / kKeyPanel * panel_elements, keys.panels[i],
                                                                 std::min(kKeyPanel, n - key), job.head_dim()));
        if (i % 2 != 0) continue;
        const void* const pair[2] = {values.panels[i], values.panels[std::min(i + 1, n_panels - 1)]};
        most.value = std::max(
            most.value, kernels.pack_values[element](scratch.values + key / 32 * tiles * kHalfTile, pair, job.kv.storage->value_width(),
                                                     std::min<int64_t>(32, n - key), job.head_dim()));
      }
    }
    return most;
  }

  /// A group's rows and the unit that starts at key `first` with n keys; what they see decides what is done.
  void attend_group(int64_t group, int64_t first, int64_t n) const {
    const Visibility visibility = job.visibility();
    const int64_t row = group * kMatrixRows;
    const int64_t* positions = scratch.positions + row;
    const auto begin_of = [&](int64_t r) { return visibility.begin(positions[r]) - first; };
    const auto end_of = [&](int64_t r) { return visibility.end(positions[r], n_keys) - first; };
    // Both ends never decrease from row to row.
    const int64_t begin = std::max<int64_t>(0, begin_of(0)), end = std::min(n, end_of(kMatrixRows - 1));
    if (begin >= end) return;
    MatrixGroup g{};
    g.key_begin = begin / 32 * 32;
    g.key_end = round_up(end, 32);
    if (begin_of(kMatrixRows - 1) > g.key_begin || end_of(0) < g.key_end) {
      for (int64_t r = 0; r < kMatrixRows; ++r) scratch.ranges[r] = {begin_of(r), std::min(n, end_of(r))};
      g.ranges = scratch.ranges;
    }
    if (mapped) {
      for (int64_t r = 0; r < kMatrixRows; ++r) scratch.maps[row + r].distance = positions[r] - first;
      g.maps = scratch.maps + row;
    }
    g.q = q_of(group);
    g.keys = scratch.keys;
    g.values = scratch.values;
    g.o = o_of(group);
    g.sums = scratch.sums + row * kKeyPanel;
    g.offsets = scratch.offsets + row;
    g.scores = scratch.scores;
    g.weights = scratch.weights;
    g.key_steps = steps;
    g.value_tiles = tiles;
    kernels.attend(g);
  }

  /// Divides and writes, as many rows at a time as a TileScratch holds.
  void finish(const TileScratch& rows) const {
    const int64_t width = job.padded_width(), group = job.group();
    for (int64_t done = 0; done < task.n_rows; done += kMatrixRows) {
      AttentionTask part = task;
      part.n_rows = std::min(kMatrixRows, task.n_rows - done);
      MatrixGroup g{};
      g.o = o_of(done / kMatrixRows);
      g.sums = scratch.sums + done * kKeyPanel;
      g.offsets = scratch.offsets + done;
      g.value_tiles = tiles;
      for (int64_t r = 0; r < part.n_rows; ++r) {
        const int64_t packed = task.row + done + r, token = packed / group, head = task.kv_head * group + packed % group;
        float whole[4096];  // o is as wide as its tiles, which may be wider than a row of the scratch.
        rows.rows[r] = {sequence.offset + token, (sequence.first_row + token) * job.params->n_heads + head};
        rows.totals[r] = kernels.unpack_row(whole, g, r);
        std::copy_n(whole, width, rows.total_o + r * width);
      }
      write_rows(job, part, rows);
    }
  }
};

}  // namespace

int64_t max_matrix_rows(int64_t head_dim) {
  return std::clamp<int64_t>(65536 / round_up(head_dim, 32) / kMatrixRows * kMatrixRows, 2 * kMatrixRows, 768);
}

MatrixScratch MatrixScratch::carve(void* memory, int64_t head_dim) {
  std::byte* at = static_cast<std::byte*>(memory);
  const auto take = [&at]<typename T>(T*& part, int64_t n) {
    part = reinterpret_cast<T*>(at);
    at += aligned(n * static_cast<int64_t>(sizeof(T)));
  };
  const int64_t rows = max_matrix_rows(head_dim), width = round_up(head_dim, 32);
  MatrixScratch scratch{};
  take(scratch.q, rows * width);
  take(scratch.keys, kMostUnit * width);
  take(scratch.values, kMostUnit * width);
  take(scratch.weights, kMatrixRows * kMostUnit);
  take(scratch.o, rows * width);
  take(scratch.sums, rows * kKeyPanel);
  take(scratch.offsets, rows);
  take(scratch.scores, kMatrixRows * kMostUnit);
  take(scratch.ranges, kMatrixRows);
  take(scratch.maps, rows);
  take(scratch.positions, rows);
  return scratch;
}

int64_t MatrixScratch::bytes(int64_t head_dim) {
  const int64_t rows = max_matrix_rows(head_dim), width = round_up(head_dim, 32);
  return aligned(2 * rows * width) + 2 * aligned(2 * kMostUnit * width) + aligned(2 * kMatrixRows * kMostUnit) + aligned(4 * rows * width) +
         aligned(4 * rows * kKeyPanel) + aligned(4 * rows) + aligned(4 * kMatrixRows * kMostUnit) +
         aligned(kMatrixRows * static_cast<int64_t>(sizeof(KeyRange))) + aligned(rows * static_cast<int64_t>(sizeof(ScoreMap))) +
         aligned(rows * static_cast<int64_t>(sizeof(int64_t)));
}

bool attend_matrix(const AttentionJob& job, const AttentionTask& task, const MatrixScratch& scratch, const TileScratch& rows) {
  const Walk walk(job, task, scratch);
  const float most_q = walk.begin();
  const Visibility visibility = job.visibility();
  const int64_t begin = visibility.begin(scratch.positions[0]);
  const int64_t end = std::min(walk.n_keys, visibility.end(scratch.positions[task.n_rows - 1], walk.n_keys));
  const float most_key = kMostScore / static_cast<float>(job.head_dim());
  walk.kernels.begin();
  bool fits = true;
  for (int64_t first = begin / walk.unit * walk.unit; first < end && fits; first += walk.unit) {
    const int64_t n = std::min(walk.unit, walk.n_keys - first);
    const auto most = walk.pack(first, n);
    fits = most_q * most.key < most_key && most.value < kUnset;  // A NaN is neither.
    for (int64_t group = 0; group < walk.n_groups && fits; ++group) walk.attend_group(group, first, n);
  }
  walk.kernels.end();
  if (fits) walk.finish(rows);
  return fits;
}

}  // namespace minillm::cpu
