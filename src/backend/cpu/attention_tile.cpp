// attention_tile.cpp - flash attention over one tile of rows: for each run, for each block of it: scores, softmax, values.
// Source: Dao 2023, arXiv:2307.08691 (query tile stays, keys and values stream past, un-normalised o, one division at the end).
#include "backend/cpu/attention_tile.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/attention_panels.h"
#include "base/bytes.h"

namespace minillm::cpu {
namespace {

constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
int64_t aligned(int64_t bytes) { return round_up(bytes, 64); }

void reset_run(const AttentionJob& job, const AttentionTask& task, const TileScratch& scratch) {
  std::fill_n(scratch.run_o, task.n_rows * job.padded_width(), 0.0f);
  std::fill_n(scratch.run_max, task.n_rows, kMinusInfinity);
  std::fill_n(scratch.run_sums, task.n_rows * kKeyPanel, 0.0f);
}

void reset_totals(const AttentionJob& job, const AttentionTask& task, const TileScratch& scratch) {
  std::fill_n(scratch.total_o, task.n_rows * job.padded_width(), 0.0f);
  std::fill_n(scratch.totals, task.n_rows, RowTotal{kMinusInfinity, 0.0f});
}

void softmax_rows(const AttentionJob& job, const BlockRows& rows, const TileScratch& scratch) {
  const int64_t width = job.padded_width(), block = job.params->block_size;
  job.kernels->softmax_rows({.scores = scratch.scores + rows.begin * block,
                             .score_stride = block,
                             .o = scratch.run_o + rows.begin * width,
                             .o_stride = width,
                             .padded_width = width,
                             .n_rows = rows.end - rows.begin,
                             .ranges = scratch.ranges + rows.begin,
                             .maps = scratch.maps + rows.begin,
                             .max = scratch.run_max + rows.begin,
                             .sums = scratch.run_sums + rows.begin * kKeyPanel});
}

/// Rows of `rows` that see any of the block's keys [begin, end).
KeyRange rows_of_slice(const BlockRows& rows, const KeyRange* ranges, int64_t begin, int64_t end) {
  KeyRange found{rows.begin, rows.end};
  while (found.begin < found.end && ranges[found.begin].end <= begin) ++found.begin;
  while (found.begin < found.end && ranges[found.end - 1].begin >= end) --found.end;
  return found;
}

/// Run number `run` of the task is complete. The first one of a tile is its total as it stands: the two change places.
void close_run(const AttentionJob& job, const AttentionTask& task, int64_t run, TileScratch& scratch) {
  const int64_t width = job.padded_width();
  const bool first = run == task.first_run, whole = task.partial < 0;
  if (whole && first) std::swap(scratch.run_o, scratch.total_o);
  for (int64_t r = 0; r < task.n_rows; ++r) {
    const RowTotal part{scratch.run_max[r], job.kernels->sum_lanes(scratch.run_sums + r * kKeyPanel)};
    if (whole && first) {
      scratch.totals[r] = part;
    } else if (whole) {
      job.kernels->merge(scratch.total_o + r * width, scratch.totals[r], scratch.run_o + r * width, part, width);
    } else {
      const int64_t slot = task.partial + (run - task.first_run) * task.n_rows + r;
      std::copy_n(scratch.run_o + r * width, width, job.partial_o + slot * width);
      job.partial_totals[slot] = part;
    }
  }
}

}  // namespace

ScoreMap score_map(const AttentionParams& params, int64_t head) {
  const double cap = params.softcap, scale = params.scale;
  ScoreMap map{};
  map.scale = static_cast<float>(cap != 0.0 ? scale / cap : scale * kLog2E);
  map.cap = static_cast<float>(cap * kLog2E);
  map.slope = params.alibi_slopes.empty() ? 0.0f : static_cast<float>(-params.alibi_slopes[static_cast<size_t>(head)] * kLog2E);
  return map;
}

int64_t max_tile_rows(int64_t block_size) { return std::min(kMaxTileRows, kMaxTileScores / block_size / kRowGroup * kRowGroup); }

int64_t TileScratch::bytes(int64_t head_dim) {
  const auto floats = [](int64_t n) { return aligned(n * static_cast<int64_t>(sizeof(float))); };
  const int64_t width = round_up(head_dim, kKeyPanel);
  return floats(kMaxTileRows * head_dim) + 2 * floats(kMaxTileRows * width) + floats(kMaxTileScores) +
         floats(kSlicePanels * kKeyPanel * width) + floats(kMaxTileRows) + floats(kMaxTileRows * kKeyPanel) +
         aligned(kMaxTileRows * static_cast<int64_t>(sizeof(ScoreMap))) + aligned(kMaxTileRows * static_cast<int64_t>(sizeof(RowTotal))) +
         aligned(kMaxTileRows * static_cast<int64_t>(sizeof(KeyRange))) + aligned(kMaxTileRows * static_cast<int64_t>(sizeof(TileRow)));
}

TileScratch TileScratch::carve(void* memory, int64_t head_dim) {
  std::byte* at = static_cast<std::byte*>(memory);
  const auto take = [&at]<typename T>(T*& part, int64_t n) {
    part = reinterpret_cast<T*>(at);
    at += aligned(n * static_cast<int64_t>(sizeof(T)));
  };
  const int64_t width = round_up(head_dim, kKeyPanel);
  TileScratch scratch{};
  take(scratch.q, kMaxTileRows * head_dim);
  take(scratch.run_o, kMaxTileRows * width);
  take(scratch.total_o, kMaxTileRows * width);
  take(scratch.scores, kMaxTileScores);
  take(scratch.slice, kSlicePanels * kKeyPanel * width);
  take(scratch.run_max, kMaxTileRows);
  take(scratch.run_sums, kMaxTileRows * kKeyPanel);
  take(scratch.maps, kMaxTileRows);
  take(scratch.totals, kMaxTileRows);
  take(scratch.ranges, kMaxTileRows);
  take(scratch.rows, kMaxTileRows);
  return scratch;
}

void begin_tile(const AttentionJob& job, const AttentionTask& task, const TileScratch& scratch) {
  const AttentionSequence& sequence = job.sequences[static_cast<size_t>(task.sequence)];
  const int64_t group = job.group(), width = job.head_dim();
  const bool transposed = reads_directly(job, task);
  for (int64_t r = 0; r < task.n_rows; ++r) {
    const int64_t token = (task.row + r) / group, head = task.kv_head * group + (task.row + r) % group;
    const int64_t index = (sequence.first_row + token) * job.params->n_heads + head;
    scratch.rows[r] = {sequence.offset + token, index};
    scratch.maps[r] = score_map(*job.params, head);
    const float* q = job.q + index * width;
    if (!transposed) {
      std::copy_n(q, width, scratch.q + r * width);
      continue;
    }
    for (int64_t d = 0; d < width; ++d) scratch.q[d * task.n_rows + r] = q[d];
  }
}

BlockRows visible_rows(const AttentionJob& job, const AttentionTask& task, int64_t block_begin, const TileScratch& scratch) {
  const AttentionSequence& sequence = job.sequences[static_cast<size_t>(task.sequence)];
  const int64_t n_keys = std::max<int64_t>(0, sequence.offset + sequence.n_rows), block = job.params->block_size;
  const Visibility visibility = job.visibility();
  BlockRows rows;
  const bool alibi = !job.params->alibi_slopes.empty();
  if (!alibi && visibility.begin(scratch.rows[task.n_rows - 1].position) <= block_begin &&
      visibility.end(scratch.rows[0].position, n_keys) >= block_begin + block) {  // Every row sees all of it: the usual case.
    std::fill_n(scratch.ranges, task.n_rows, KeyRange{0, block});
    return {0, task.n_rows, 0, block};
  }
  for (int64_t r = 0; r < task.n_rows; ++r) {
    const int64_t position = scratch.rows[r].position;
    const KeyRange range{std::clamp<int64_t>(visibility.begin(position) - block_begin, 0, block),
                         std::clamp<int64_t>(visibility.end(position, n_keys) - block_begin, 0, block)};
    scratch.ranges[r] = range;
    scratch.maps[r].distance = position - block_begin;
    if (range.begin >= range.end) continue;
    if (rows.begin == rows.end) rows = {r, r, range.begin, 0};
    rows.end = r + 1;
    rows.key_end = range.end;  // Both ends never decrease from row to row.
  }
  return rows;
}

void block_scores(const AttentionJob& job, const AttentionTask& task, const BlockRows& rows, int64_t block_begin,
                  const TileScratch& scratch) {
  const int64_t block = job.params->block_size, last = ceil_div(rows.key_end, kKeyPanel);
  const bool direct = reads_directly(job, task);
  for (int64_t panel = rows.key_begin / kKeyPanel; panel < last; panel += kSlicePanels) {
    const int64_t n = std::min(kSlicePanels, last - panel);
    const KeyRange seen = rows_of_slice(rows, scratch.ranges, panel * kKeyPanel, (panel + n) * kKeyPanel);
    if (seen.begin >= seen.end) continue;
    const int64_t first = block_begin / kKeyPanel + panel;
    const PanelSet keys = key_panels(job, task, first, n, !direct, scratch.slice);
    PanelSet later;
    if (direct) later = panels_to_fetch(job, task, first, keys, true);
    job.kernels->scores[static_cast<size_t>(keys.element)]({.scores = scratch.scores + seen.begin * block + panel * kKeyPanel,
                                                            .score_stride = block,
                                                            .q = scratch.q + seen.begin * (direct ? 1 : job.head_dim()),
                                                            .q_stride = direct ? task.n_rows : job.head_dim(),
                                                            .n_rows = seen.end - seen.begin,
                                                            .head_dim = job.head_dim(),
                                                            .k_panels = keys.panels,
                                                            .n_panels = n,
                                                            .prefetch = direct ? later.panels : nullptr,
                                                            .ranges = scratch.ranges + seen.begin,
                                                            .first_key = panel * kKeyPanel});
  }
}

void block_values(const AttentionJob& job, const AttentionTask& task, const BlockRows& rows, int64_t block_begin,
                  const TileScratch& scratch) {
  const int64_t block = job.params->block_size, last = ceil_div(rows.key_end, kKeyPanel), width = job.padded_width();
  const bool direct = reads_directly(job, task);
  for (int64_t panel = rows.key_begin / kKeyPanel; panel < last; panel += kSlicePanels) {
    const int64_t n = std::min(kSlicePanels, last - panel);
    const KeyRange seen = rows_of_slice(rows, scratch.ranges, panel * kKeyPanel, (panel + n) * kKeyPanel);
    if (seen.begin >= seen.end) continue;
    const int64_t first = block_begin / kKeyPanel + panel;
    const PanelSet values = value_panels(job, task, first, n, !direct, scratch.slice);
    PanelSet later;
    if (direct) later = panels_to_fetch(job, task, first, values, false);
    job.kernels->values[static_cast<size_t>(values.element)]({.o = scratch.run_o + seen.begin * width,
                                                              .o_stride = width,
                                                              .padded_width = width,
                                                              .p = scratch.scores + seen.begin * block,
                                                              .p_stride = block,
                                                              .n_rows = seen.end - seen.begin,
                                                              .ranges = scratch.ranges + seen.begin,
                                                              .v_panels = values.panels,
                                                              .v_stride = values.stride,
                                                              .n_panels = n,
                                                              .first_key = panel * kKeyPanel,
                                                              .prefetch = direct ? later.panels : nullptr});
  }
}

void attend_tile(const AttentionJob& job, const AttentionTask& task, const TileScratch& memory) {
  TileScratch scratch = memory;
  begin_tile(job, task, scratch);
  if (task.tile_runs == 0) reset_totals(job, task, scratch);
  const int64_t run_tokens = job.run_tokens();
  for (int64_t run = task.run_begin; run < task.run_end; ++run) {
    reset_run(job, task, scratch);
    for (int64_t block = run * run_tokens; block < (run + 1) * run_tokens; block += job.params->block_size) {
      const BlockRows rows = visible_rows(job, task, block, scratch);
      if (rows.begin == rows.end) continue;
      block_scores(job, task, rows, block, scratch);
      softmax_rows(job, rows, scratch);
      block_values(job, task, rows, block, scratch);
    }
    close_run(job, task, run, scratch);
  }
  if (task.partial < 0) write_rows(job, task, scratch);
}

void merge_tile(const AttentionJob& job, const AttentionTask& task, const TileScratch& scratch) {
  const int64_t width = job.padded_width();
  begin_tile(job, task, scratch);
  for (int64_t i = 0; i < task.tile_runs * task.n_rows; ++i) {
    const int64_t r = i % task.n_rows, slot = task.partial + i;
    const float* o = job.partial_o + slot * width;
    if (i == r) {
      std::copy_n(o, width, scratch.total_o + r * width);
      scratch.totals[r] = job.partial_totals[slot];
    } else {
      job.kernels->merge(scratch.total_o + r * width, scratch.totals[r], o, job.partial_totals[slot], width);
    }
  }
  write_rows(job, task, scratch);
}

float log_sum(const RowTotal& total) {
  if (total.sum == 0.0f) return kMinusInfinity;
  return static_cast<float>((static_cast<double>(total.max) + std::log2(static_cast<double>(total.sum))) * kLn2);
}

void write_rows(const AttentionJob& job, const AttentionTask& task, const TileScratch& scratch) {
  const AttentionParams& params = *job.params;
  const int64_t width = job.padded_width();
  if (!params.sinks.empty()) std::fill_n(scratch.run_o, width, 0.0f);  // A sink carries no value.
  for (int64_t r = 0; r < task.n_rows; ++r) {
    float* o = scratch.total_o + r * width;
    RowTotal& total = scratch.totals[r];
    const int64_t index = scratch.rows[r].index;
    if (!params.sinks.empty()) {
      const float sink = static_cast<float>(params.sinks[static_cast<size_t>(index % params.n_heads)] * kLog2E);
      if (sink != kMinusInfinity) job.kernels->merge(o, total, scratch.run_o, {sink, 1.0f}, width);
    }
    job.kernels->divide(job.out + index * job.head_dim(), o, total.sum, job.head_dim());
    if (job.lse == nullptr) continue;
    job.lse[index] = log_sum(total);
  }
}

}  // namespace minillm::cpu
