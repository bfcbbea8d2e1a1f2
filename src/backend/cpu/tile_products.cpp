// tile_products.cpp - splits a product into items of some columns by the rows of a group, and an item into stages: two panels over some
// units. A stage's weights are unpacked while the stage before it computes.
#include "backend/cpu/tile_products.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/row_groups.h"
#include "base/bytes.h"
#include "base/check.h"

namespace minillm::cpu {
namespace {

constexpr int64_t kTileRows = 16, kTileColumns = 2 * kPanelRows;
constexpr int64_t kStageUnits = 20;  ///< Most units of two panels that stay in the L1 cache: 40 of 48 KiB.
constexpr int64_t kPassRows = 512;   ///< Most rows whose sums, 128 bytes each, stay in the L2 cache.
constexpr int64_t kMostStages = 8;   ///< Pairs of panels an item; the first of them is unpacked with nothing beside it.
constexpr int64_t kItemsPerThread = 4;

constexpr int64_t kUnpackedValues = 2 * kStageUnits * RoundedRows::kTileValues;
constexpr int64_t kUnpackedBytes = kUnpackedValues * static_cast<int64_t>(sizeof(uint16_t));
constexpr int64_t kSumsBytes = kPassRows * kTileColumns * static_cast<int64_t>(sizeof(float));
constexpr int64_t kScratchBytes = 2 * kUnpackedBytes + kSumsBytes;

/// Two panels: adjacent ones of a segment (the last may come twice), or, in pairs, the same one of both segments.
struct PanelPair {
  const uint8_t* panels[2];
  Dtype dtypes[2];
  int64_t column, n_columns;  ///< Of the output; in pairs those of the first segment.
  int64_t stride;             ///< Bytes to the next pair's panels.
};

/// Cuts a weight into items of at most `run` pairs of one segment.
class PairItems {
 public:
  PairItems(const CpuWeight& w, bool pairs, int64_t run) : segments_(w.segments()), pairs_(pairs), run_(run) {
    for (const Segment& segment : segments_.first(pairs ? 1 : segments_.size())) count_ += ceil_div(pairs_of(segment), run_);
  }
  int64_t count() const { return count_; }
  /// Pairs of an item.
  int64_t length(int64_t item) const {
    const Segment& segment = find(item);
    return std::min(run_, pairs_of(segment) - item * run_);
  }
  PanelPair at(int64_t item, int64_t i) const {
    const Segment& segment = find(item);
    const int64_t pair = item * run_ + i, panel = pairs_ ? pair : 2 * pair;
    const Segment& other = pairs_ ? segments_[1] : segment;
    const int64_t last = ceil_div(segment.n_rows, kPanelRows) - 1, second = pairs_ ? panel : std::min(panel + 1, last);
    return {{segment.data + panel * segment.stride, other.data + second * other.stride},
            {segment.dtype, other.dtype},
            segment.first_row + panel * kPanelRows,
            std::min(segment.n_rows - panel * kPanelRows, pairs_ ? kPanelRows : kTileColumns),
            (pairs_ ? 1 : 2) * segment.stride};
  }

 private:
  int64_t pairs_of(const Segment& segment) const { return ceil_div(ceil_div(segment.n_rows, kPanelRows), pairs_ ? 1 : 2); }
  /// The segment of an item, which becomes its number in that segment.
  const Segment& find(int64_t& item) const {
    const Segment* segment = segments_.data();
    for (; item >= ceil_div(pairs_of(*segment), run_); ++segment) item -= ceil_div(pairs_of(*segment), run_);
    return *segment;
  }

  std::span<const Segment> segments_;
  bool pairs_;
  int64_t run_, count_ = 0;
};

/// Longest runs that leave every thread of a group enough items.
int64_t run_of(const CpuWeight& w, bool pairs, int64_t n_threads) {
  int64_t run = kMostStages;
  while (run > 1 && PairItems(w, pairs, run).count() < kItemsPerThread * n_threads) run /= 2;
  return run;
}

int64_t rounded_bytes(int64_t n_rows, int64_t k) {
  return round_up(n_rows, kTileRows) * round_up(k, kUnit) * static_cast<int64_t>(sizeof(uint16_t));
}

/// Bytes of a thread's float row.
int64_t row_stride(int64_t k) { return round_up(k * static_cast<int64_t>(sizeof(float)), 4096); }

/// One item: its stages over rows [row, end).
struct Worker {
  const Kernels& kernels;
  const TensorView& out;
  const RoundedRows& rows;
  const CpuWeight& w;
  const Beside& beside;
  const PairItems& items;
  int64_t item, n_chunks, chunk;
  int64_t first_row = 0;
  PanelPair pair = {};  ///< Whose rows become final.

  int64_t n_stages() const { return items.length(item) * n_chunks; }

  /// A stage's weights.
  struct Stage {
    UnpackTask task;
    Dtype dtypes[2] = {Dtype::kBF16, Dtype::kBF16};
    bool has_one_format() const { return dtypes[0] == dtypes[1]; }
  };
  Stage stage_of(int64_t stage, uint8_t* scratch) const {
    if (stage >= n_stages()) return {};
    const PanelPair of = items.at(item, stage / n_chunks);
    Stage result{.task = {.panels = {of.panels[0], of.panels[1]}, .first = stage % n_chunks * chunk, .k = w.cols(), .ahead = of.stride},
                 .dtypes = {of.dtypes[0], of.dtypes[1]}};
    result.task.n = std::min(chunk, rows.n_units - result.task.first);
    result.task.to = reinterpret_cast<uint16_t*>(scratch + stage % 2 * kUnpackedBytes);
    return result;
  }
  void unpack(const Stage& stage) const {
    if (stage.has_one_format()) return kernels.unpack_tiles[static_cast<size_t>(stage.dtypes[0])](stage.task);
    for (size_t i = 0; i < 2; ++i) {
      UnpackTask one = stage.task;
      one.n_panels = 1;
      one.panels[0] = stage.task.panels[i];
      one.to = stage.task.to + static_cast<int64_t>(i) * one.n * RoundedRows::kTileValues;
      kernels.unpack_tiles[static_cast<size_t>(stage.dtypes[i])](one);
    }
  }

  /// What becomes of final rows: memory that is written, or read and written.
  FetchTask fetch(int64_t row, int64_t n_rows) const {
    const int64_t n = w.rows(), n_lines = ceil_div(pair.n_columns * 4, 64);
    if (beside.rounded.values != nullptr)
      return {beside.rounded.strip(row / kTileRows) + pair.column / kUnit * RoundedRows::kTileValues, ceil_div(n_rows, kTileRows),
              beside.rounded.n_units * RoundedRows::kTileValues * 2, RoundedRows::kTileValues * 2 / 64};
    if (beside.updated != nullptr) return {beside.updated + row * n + pair.column, n_rows, n * 4, n_lines};
    if (beside.only_after) return {};
    return {out.f32() + row * n + pair.column, n_rows, n * 4, n_lines};
  }

  /// What the kernel does with final rows by itself: whole panels only.
  Finish finish() const {
    if (pair.n_columns != (beside.pairs ? kPanelRows : kTileColumns)) return Finish::kCall;
    if (!beside.only_after && !beside.after && !beside.pairs) return Finish::kStore;
    return beside.only_after ? beside.does : Finish::kCall;
  }

  void call(float* sums, int64_t row, int64_t n_rows) const {
    OutputBlock block{first_row + row, n_rows, pair.column, pair.n_columns, sums, beside.pairs ? sums + kPanelRows : nullptr, kTileColumns};
    if (!beside.only_after) {
      const int64_t n = w.rows();
      float* const to = out.f32() + block.row * n + pair.column;
      float* const second = beside.pairs ? to + w.segments()[1].first_row : nullptr;
      for (int64_t t = 0; t < n_rows; ++t) {
        std::memcpy(to + t * n, sums + t * kTileColumns, static_cast<size_t>(pair.n_columns) * sizeof(float));
        if (beside.pairs) std::memcpy(second + t * n, block.second + t * kTileColumns, static_cast<size_t>(pair.n_columns) * sizeof(float));
      }
      block.values = to;
      block.second = second;
      block.stride = n;
    }
    if (beside.after) beside.after(block);
  }

  void run(int64_t row, int64_t end, uint8_t* scratch) {
    first_row = row;
    Stage now = stage_of(0, scratch);
    unpack(now);
    for (int64_t stage = 0; stage < n_stages(); ++stage) {
      const Stage next = stage_of(stage + 1, scratch);
      pair = items.at(item, stage / n_chunks);
      TileProduct product{.weights = now.task.to,
                          .rows = rows.strip(row / kTileRows) + now.task.first * RoundedRows::kTileValues,
                          .strip_values = rows.n_units * RoundedRows::kTileValues,
                          .n_units = now.task.n,
                          .n_rows = end - row,
                          .first = now.task.first == 0,
                          .sums = reinterpret_cast<float*>(scratch + 2 * kUnpackedBytes),
                          .sums_blocks = n_chunks == 1 ? 2 : kPassRows / TileProduct::kBlockRows};
      if (next.has_one_format()) product.next = next.task;
      if (stage % n_chunks == n_chunks - 1) set_end(product);
      kernels.multiply_tiles[static_cast<size_t>(next.dtypes[0])](product);
      if (!next.has_one_format()) unpack(next);
      now = next;
    }
  }

  /// The last product of a pair: its rows become final.
  void set_end(TileProduct& product) const {
    product.fetch = fetch(first_row, product.n_rows);
    product.finish = finish();
    product.out = (product.finish == Finish::kAdd ? beside.updated : out.f32()) + first_row * w.rows() + pair.column;
    product.out_stride = w.rows();
    product.rounded = beside.rounded;
    product.first_row = first_row;
    product.column = pair.column;
    product.context = this;
    product.call = [](const void* self, float* sums, int64_t at, int64_t n) { static_cast<const Worker*>(self)->call(sums, at, n); };
  }
};

}  // namespace

TileProducts::TileProducts(ThreadPool& pool, const Kernels& kernels, std::function<Buffer(size_t)> allocate)
    : pool_(pool), kernels_(kernels), allocate_(std::move(allocate)) {
  if (exist()) scratch_ = allocate_(static_cast<size_t>(kScratchBytes * pool_.n_threads()));
}

bool TileProducts::take(const CpuWeight& w, int64_t n_rows) const {
  return exist() && n_rows >= kFewestRows && std::ranges::all_of(w.segments(), [&](const Segment& s) {
           return kernels_.unpack_tiles[static_cast<size_t>(s.dtype)] != nullptr;
         });
}

RoundedRows TileProducts::reserved(Buffer& buffer, int64_t n_rows, int64_t k) {
  const int64_t n_units = ceil_div(k, kUnit), bytes = rounded_bytes(n_rows, k);
  if (static_cast<int64_t>(buffer.bytes()) < bytes) {
    buffer = Buffer();  // Freed first: both at once may not fit.
    buffer = allocate_(static_cast<size_t>(bytes));
    std::memset(buffer.data(), 0, buffer.bytes());  // The last strip may hold rows that no step has.
  }
  return {static_cast<uint16_t*>(buffer.data()), n_units};
}

int64_t TileProducts::bytes(int64_t max_rows, int64_t max_k, int n_threads) {
  const int64_t rows = max_rows < kFewestRows ? 0 : 2 * rounded_bytes(max_rows, max_k) + row_stride(max_k) * n_threads;
  return kScratchBytes * n_threads + rows;
}

RoundedRows TileProducts::room(int64_t n_rows, int64_t k) { return reserved(made_rows_, n_rows, k); }

void TileProducts::reserve(int64_t max_rows, int64_t max_k) {
  if (!exist() || max_rows < kFewestRows) return;
  (void)reserved(rows_, max_rows, max_k);
  (void)reserved(made_rows_, max_rows, max_k);
  const int64_t bytes = row_stride(max_k) * pool_.n_threads();
  if (static_cast<int64_t>(row_.bytes()) < bytes) row_ = allocate_(static_cast<size_t>(bytes));
}

RoundedRows TileProducts::round(ConstTensorView x, const Beside& beside) {
  const int64_t n_rows = x.dim(0), k = x.dim(1);
  reserve(n_rows, k);
  const RoundedRows rows = reserved(rows_, n_rows, k);
  for_each_row(pool_, n_rows, kTileRows, [&](int64_t t, int thread) {
    const float* row = x.f32() + t * k;
    if (beside.before) {
      float* const to = reinterpret_cast<float*>(static_cast<uint8_t*>(row_.data()) + thread * row_stride(k));
      beside.before(t, to);
      row = to;
    }
    kernels_.round_row(row, k, rows, t);
  });
  return rows;
}

void TileProducts::matmul(TensorView out, ConstTensorView x, const CpuWeight& w, const Beside& beside) {
  matmul(out, round(x, beside), w, beside);
}

void TileProducts::matmul(TensorView out, const RoundedRows& rows, const CpuWeight& w, const Beside& beside) {
  const RowGroups groups(out.dim(0), pool_.n_threads());
  const int64_t threads_a_group = ceil_div(pool_.n_threads(), groups.count), n_chunks = ceil_div(rows.n_units, kStageUnits);
  const PairItems items(w, beside.pairs, run_of(w, beside.pairs, threads_a_group));
  pool_.for_each_in_groups(groups.count, items.count(), [&](int64_t group, int64_t item, int thread) {
    Worker worker{kernels_, out, rows, w, beside, items, item, n_chunks, ceil_div(rows.n_units, n_chunks)};
    uint8_t* const scratch = static_cast<uint8_t*>(scratch_.data()) + thread * kScratchBytes;
    for (int64_t row = groups.begin(group); row < groups.end(group); row += kPassRows)
      worker.run(row, std::min(groups.end(group), row + kPassRows), scratch);
  });
}

}  // namespace minillm::cpu
