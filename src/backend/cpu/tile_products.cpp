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
    for (const Segment& segment : segments_.first(pairs ? 1 : segments_.size())) {
      count_ += ceil_div(pairs_of(segment), run_);
      most_ = std::max(most_, pairs_of(segment));
    }
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
  int64_t run_, count_ = 0, most_ = 0;
};

/// Longest runs that leave every thread of a group enough items.
int64_t run_of(const CpuWeight& w, bool pairs, int64_t n_threads) {
  int64_t run = kMostStages;
  while (run > 1 && PairItems(w, pairs, run).count() < kItemsPerThread * n_threads) run /= 2;
  return run;
}

}  // namespace

TileProducts::TileProducts(ThreadPool& pool, const Kernels& kernels, std::function<Buffer(size_t)> allocate)
    : pool_(pool), kernels_(kernels), allocate_(std::move(allocate)) {
  if (exist()) scratch_ = allocate_(static_cast<size_t>(kScratchBytes * pool_.n_threads()));
}

bool TileProducts::take(const CpuWeight& w, int64_t n_rows) const {
  return exist() && n_rows >= kFewestRows &&
         std::ranges::all_of(w.segments(), [&](const Segment& s) { return kernels_.unpack_unit[static_cast<size_t>(s.dtype)] != nullptr; });
}

void TileProducts::reserve(int64_t max_rows, int64_t max_k) {
  const int64_t bytes = round_up(max_rows, kTileRows) * round_up(max_k, kUnit) * static_cast<int64_t>(sizeof(uint16_t));
  if (!exist() || static_cast<int64_t>(rows_.bytes()) >= bytes) return;
  rows_ = Buffer();  // Freed first: both at once may not fit.
  rows_ = allocate_(static_cast<size_t>(bytes));
  std::memset(rows_.data(), 0, rows_.bytes());  // The last strip may hold rows that no step has.
}

RoundedRows TileProducts::round(ConstTensorView x, const Beside& beside) {
  const int64_t n_rows = x.dim(0), k = x.dim(1);
  reserve(n_rows, k);
  const RoundedRows rows{static_cast<uint16_t*>(rows_.data()), ceil_div(k, kUnit)};
  for_each_row(pool_, n_rows, kTileRows, [&](int64_t t, int) {
    if (beside.before) beside.before(t);
    kernels_.round_row(x.f32() + t * k, k, rows, t);
  });
  return rows;
}

void TileProducts::matmul(TensorView out, ConstTensorView x, const CpuWeight& w, const Beside& beside) {
  const RoundedRows rows = round(x, beside);
  const int64_t n_rows = x.dim(0), n = w.rows();
  const RowGroups groups(n_rows, pool_.n_threads());
  const int64_t threads_a_group = ceil_div(pool_.n_threads(), groups.count);
  const PairItems items(w, beside.pairs, run_of(w, beside.pairs, threads_a_group));
  const int64_t n_chunks = ceil_div(rows.n_units, kStageUnits), chunk = ceil_div(rows.n_units, n_chunks);

  const auto give = [&](const PanelPair& pair, float* sums, int64_t row, int64_t end) {
    OutputBlock block{row, end - row, pair.column, pair.n_columns, sums, beside.pairs ? sums + kPanelRows : nullptr, kTileColumns};
    if (!beside.after || !beside.only_after) {
      float* const to = out.f32() + row * n + pair.column;
      const int64_t half = n / 2;  // Of a pair.
      for (int64_t t = 0; t < block.n_rows; ++t) {
        const auto copy = [&](float* at, const float* from) {
          std::memcpy(at + t * n, from + t * kTileColumns, static_cast<size_t>(pair.n_columns) * sizeof(float));
        };
        copy(to, block.values);
        if (beside.pairs) copy(to + half, block.second);
      }
      block.values = to;
      block.second = beside.pairs ? to + half : nullptr;
      block.stride = n;
    }
    if (beside.after) beside.after(block);
  };

  pool_.for_each_in_groups(groups.count, items.count(), [&](int64_t group, int64_t item, int thread) {
    uint8_t* const scratch = static_cast<uint8_t*>(scratch_.data()) + thread * kScratchBytes;
    float* const sums = reinterpret_cast<float*>(scratch + 2 * kUnpackedBytes);
    const int64_t n_stages = items.length(item) * n_chunks;
    const auto task = [&](int64_t stage) {
      if (stage >= n_stages) return UnpackTask();
      const PanelPair pair = items.at(item, stage / n_chunks);
      UnpackTask result{.panels = {pair.panels[0], pair.panels[1]}, .first = stage % n_chunks * chunk, .k = w.cols(), .ahead = pair.stride};
      for (size_t i = 0; i < 2; ++i) result.unpack[i] = kernels_.unpack_unit[static_cast<size_t>(pair.dtypes[i])];
      result.n = std::min(chunk, rows.n_units - result.first);
      result.to = reinterpret_cast<uint16_t*>(scratch + stage % 2 * kUnpackedBytes);
      return result;
    };
    for (int64_t row = groups.begin(group); row < groups.end(group); row += kPassRows) {
      const int64_t end = std::min(groups.end(group), row + kPassRows);
      UnpackTask now = task(0);
      kernels_.unpack_tiles(now);
      for (int64_t stage = 0; stage < n_stages; ++stage) {
        const UnpackTask next = task(stage + 1);
        kernels_.multiply_tiles({.weights = now.to,
                                 .rows = rows.strip(row / kTileRows) + now.first * RoundedRows::kTileValues,
                                 .strip_values = rows.n_units * RoundedRows::kTileValues,
                                 .n_units = now.n,
                                 .n_strips = ceil_div(end - row, kTileRows),
                                 .first = now.first == 0,
                                 .sums = sums,
                                 .next = next});
        if (stage % n_chunks == n_chunks - 1) give(items.at(item, stage / n_chunks), sums, row, end);
        now = next;
      }
    }
  });
}

}  // namespace minillm::cpu
