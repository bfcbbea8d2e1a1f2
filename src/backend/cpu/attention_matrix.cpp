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

  int64_t rows_of(int64_t group) const { return std::min(kMatrixRows, task.n_rows - group * kMatrixRows); }

  /// Positions, indices and maps of the rows; no l or reference yet.
  void begin() const {
    const int64_t n_rows = n_groups * kMatrixRows, group = job.group();
    std::fill_n(scratch.sums, n_rows * kKeyPanel, 0.0f);
    std::fill_n(scratch.offsets, n_rows, kUnset);
    std::fill_n(q_of(n_groups - 1), steps * 2 * kHalfTile, uint16_t{0});  // Rows past the last are zeros.
    int64_t token = task.row / group, head = task.row % group;
    for (int64_t r = 0; r < n_rows; ++r) {
      scratch.maps[r] = r < group ? score_map(*job.params, task.kv_head * group + head) : scratch.maps[r - group];
      scratch.positions[r] = sequence.offset + token;
      scratch.indices[r] = (sequence.first_row + token) * job.params->n_heads + task.kv_head * group + head;
      if (r + 1 >= task.n_rows) continue;  // Rows past the last are as that one.
      head = head + 1 < group ? head + 1 : 0;
      token += head == 0;
    }
  }

  /// Asks for a group's rows of q, or of the output, while something else is computed.
  template <bool ForWriting>
  void fetch(const float* from, int64_t group) const {
    if (group >= n_groups) return;
    for (int64_t r = 0; r < rows_of(group); ++r) {
      const float* row = from + scratch.indices[group * kMatrixRows + r] * job.head_dim();
      for (int64_t d = 0; d < job.head_dim(); d += 16) __builtin_prefetch(row + d, ForWriting ? 1 : 0, 2);
    }
  }

  /// A group's rows of q in bfloat16; returns the largest magnitude.
  float pack_queries(int64_t group) const {
    alignas(64) uint16_t most[32] = {};
    for (int64_t r = 0; r < rows_of(group); ++r) {
      const int64_t row = group * kMatrixRows + r;
      const ScoreMap& map = scratch.maps[row];
      const float factor = map.cap != 0.0f ? map.scale : map.scale * kernels.score_scale;
      kernels.pack_query(q_of(group), r, job.q + scratch.indices[row] * job.head_dim(), factor, job.head_dim(), most);
    }
    return kernels.largest(most);
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

  /// A group's rows and the unit that starts at key `first` with n keys; what they see decides what is done. A bit of `started` tells of
  /// each group whether it has an o.
  void attend_group(int64_t group, int64_t first, int64_t n, uint32_t& started) const {
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
    g.fresh = (started >> group & 1) == 0;
    started |= uint32_t{1} << group;
    kernels.attend(g);
  }

  /// Whether the unit of n keys from `first` on is the last that the group sees anything of.
  bool is_last(int64_t group, int64_t first, int64_t n) const {
    const int64_t end = std::min(n_keys, job.visibility().end(scratch.positions[(group + 1) * kMatrixRows - 1], n_keys));
    return first < end && end <= first + n;
  }

  /// Divides and writes a group's rows.
  void finish(int64_t group, const TileScratch& rows) const {
    AttentionTask part = task;
    part.n_rows = rows_of(group);
    MatrixGroup g{};
    g.o = o_of(group);
    g.sums = scratch.sums + group * kMatrixRows * kKeyPanel;
    g.offsets = scratch.offsets + group * kMatrixRows;
    g.value_tiles = tiles;
    if (job.params->sinks.empty()) {
      for (int64_t r = 0; r < part.n_rows; ++r) {
        const int64_t index = scratch.indices[group * kMatrixRows + r];
        const RowTotal total = kernels.finish_row(job.out + index * job.head_dim(), g, r, job.head_dim());
        if (job.lse != nullptr) job.lse[index] = log_sum(total);
      }
      return;
    }
    float whole[4096];  // o is as wide as its tiles, which may be wider than a row of the scratch.
    for (int64_t r = 0; r < part.n_rows; ++r) {
      const int64_t row = group * kMatrixRows + r;
      rows.rows[r] = {scratch.positions[row], scratch.indices[row]};
      rows.totals[r] = kernels.unpack_row(whole, g, r);
      std::copy_n(whole, job.padded_width(), rows.total_o + r * job.padded_width());
    }
    write_rows(job, part, rows);
  }
};

}  // namespace

int64_t max_matrix_rows(int64_t head_dim) {
  constexpr int64_t kMost = 768;
  static_assert(kMost / kMatrixRows <= 32, "a bit for each group (attend_group)");
  return std::clamp<int64_t>(65536 / round_up(head_dim, 32) / kMatrixRows * kMatrixRows, 2 * kMatrixRows, kMost);
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
  take(scratch.scores, kMatrixRows * kMatrixSlice);
  take(scratch.ranges, kMatrixRows);
  take(scratch.maps, rows);
  take(scratch.positions, rows);
  take(scratch.indices, rows);
  return scratch;
}

int64_t MatrixScratch::bytes(int64_t head_dim) {
  const int64_t rows = max_matrix_rows(head_dim), width = round_up(head_dim, 32);
  return aligned(2 * rows * width) + 2 * aligned(2 * kMostUnit * width) + aligned(2 * kMatrixRows * kMostUnit) + aligned(4 * rows * width) +
         aligned(4 * rows * kKeyPanel) + aligned(4 * rows) + aligned(4 * kMatrixRows * kMatrixSlice) +
         aligned(kMatrixRows * static_cast<int64_t>(sizeof(KeyRange))) + aligned(rows * static_cast<int64_t>(sizeof(ScoreMap))) +
         2 * aligned(rows * static_cast<int64_t>(sizeof(int64_t)));
}

bool attend_matrix(const AttentionJob& job, const AttentionTask& task, const MatrixScratch& scratch, const TileScratch& rows) {
  const Walk walk(job, task, scratch);
  walk.begin();
  const Visibility visibility = job.visibility();
  const int64_t begin = visibility.begin(scratch.positions[0]) / walk.unit * walk.unit;
  const int64_t end = std::min(walk.n_keys, visibility.end(scratch.positions[task.n_rows - 1], walk.n_keys));
  const float most_score = kMostScore / static_cast<float>(job.head_dim());
  float most_q = 0.0f;
  bool fits = true;
  uint32_t started = 0;
  walk.fetch<false>(job.q, 0);  // Arrives while the first keys are packed.
  walk.kernels.begin();
  for (int64_t first = begin; first < end && fits; first += walk.unit) {
    const int64_t n = std::min(walk.unit, walk.n_keys - first);
    const auto most = walk.pack(first, n);
    for (int64_t group = 0; group < walk.n_groups; ++group) {
      // What lies in memory is fetched a group ahead: heads of a token are rows, so that no prefetcher follows them.
      if (first == begin) {
        most_q = std::max(most_q, walk.pack_queries(group));
        walk.fetch<false>(job.q, group + 1);
      }
      fits = most_q * most.key < most_score && most.value < kUnset;  // A NaN is neither.
      if (!fits) break;
      const bool last = walk.is_last(group, first, n);
      if (last) walk.fetch<true>(job.out, group);
      walk.attend_group(group, first, n, started);
      if (last) walk.finish(group, rows);
    }
  }
  walk.kernels.end();
  return fits;
}

}  // namespace minillm::cpu
