// products.cpp - splits a product into items of whole panels and runs them on the pool.
#include "backend/cpu/products.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/bytes.h"
#include "base/check.h"
#include "base/dtype.h"

namespace minillm::cpu {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kFloatChunk = kChunk / 4;  ///< As many bytes unpacked as kChunk codes.
constexpr int64_t kItemsPerThread = 4;       ///< At least, where the rows allow it: threads are not equally fast.
constexpr int64_t kFewRows = 3;              ///< Rows up to which gemv, again and again on what is in the cache, beats the rest.
constexpr int64_t kPackedRows = 40;    ///< Rows up to which unpacking in registers, every 8 rows anew, beats unpacking into the cache.
constexpr int64_t kPrepareInline = 4;  ///< Rows below which waking the others costs more.

/// Bytes of each part of a thread's Unpacked.
constexpr int64_t kCodesBytes = kMaxTilePanels * kPanelRows * kChunk;
constexpr int64_t kScalesBytes = kMaxTilePanels * kPanelRows * (kChunk / kUnit) * 2 * static_cast<int64_t>(sizeof(float));
constexpr int64_t kOffsetsBytes = kScalesBytes / 2;
constexpr int64_t kSumsBytes = kTileSums * static_cast<int64_t>(sizeof(float));
constexpr int64_t kUnpackedBytes = kCodesBytes + kScalesBytes + kOffsetsBytes + kSumsBytes;

/// Adjacent panels of one segment, and the column of the output where they begin.
struct Part {
  Dtype dtype;
  PanelSpan span;
  int64_t column;
  int64_t bytes() const { return ceil_div(span.n_rows, kPanelRows) * span.panel_bytes; }
};

/// Cuts a weight into items: one part of `panels_an_item` panels, or, in pairs, the same panels of both segments.
class Items {
 public:
  Items(const CpuWeight& w, int64_t panels_an_item, bool pairs) : w_(w), panels_(panels_an_item), pairs_(pairs) {
    for (const Segment& segment : w.segments().first(pairs ? 1 : w.segments().size())) count_ += of(segment);
  }
  int64_t count() const { return count_; }
  int parts() const { return pairs_ ? 2 : 1; }

  Part at(int64_t item, int part) const {
    const Segment* segment = w_.segments().data();
    if (pairs_)
      segment += part;
    else
      for (; item >= of(*segment); ++segment) item -= of(*segment);
    const int64_t panel = item * panels_, row = panel * kPanelRows, n_rows = std::min(segment->n_rows - row, panels_ * kPanelRows);
    return {segment->dtype, {segment->data + panel * segment->stride, segment->stride, n_rows, w_.cols()}, segment->first_row + row};
  }
  /// What an item computes of rows [row, row + n_rows) of `out`; of a pair, the first half.
  OutputBlock block(float* out, int64_t item, int64_t row, int64_t n_rows) const {
    const Part part = at(item, 0);
    float* const values = out + row * w_.rows() + part.column;
    return {row, n_rows, part.column, part.span.n_rows, values, pairs_ ? values + w_.segments()[1].first_row : nullptr, w_.rows()};
  }
  /// The item that a thread begins as number `place` of the pool's loop, for loops in which each thread reads adjacent items one after
  /// the other: the pool's thread t begins places t, t + n_threads, ...
  int64_t adjacent(int64_t place, int n_threads) const {
    const int64_t owner = place % n_threads, longer = count_ % n_threads;
    return owner * (count_ / n_threads) + std::min(owner, longer) + place / n_threads;
  }
  /// What a thread that works on this part is likely to read next: the pair's other half, or the item after those of the others.
  std::optional<Part> after(int64_t item, int part, int n_threads) const {
    if (part + 1 < parts()) return at(item, part + 1);
    if (item + n_threads < count_) return at(item + n_threads, 0);
    return {};
  }

 private:
  int64_t of(const Segment& segment) const { return ceil_div(ceil_div(segment.n_rows, kPanelRows), panels_); }

  const CpuWeight& w_;
  int64_t panels_;
  bool pairs_;
  int64_t count_ = 0;
};

bool has_kind(const CpuWeight& w, UnitKind kind) {
  return std::ranges::any_of(w.segments(), [kind](const Segment& s) { return is_quantised(s.dtype) && unit_kind(s.dtype) == kind; });
}

/// Starts to load a block of a matrix of rows of `width`.
void fetch_block(const float* matrix, const OutputBlock& block, int64_t width) {
  constexpr int64_t kLine = 16;
  for (int64_t row = block.row; row < block.row + block.n_rows; ++row)
    for (int64_t column = block.column; column < block.column + block.n_columns; column += kLine)
      __builtin_prefetch(matrix + row * width + column, 1);
}

}  // namespace

Products::Products(ThreadPool& pool, const Kernels& kernels, std::function<Buffer(size_t)> allocate)
    : pool_(pool), kernels_(kernels), allocate_(std::move(allocate)), tiles_(pool, kernels, allocate_) {
  unpacked_ = allocate_(static_cast<size_t>(kUnpackedBytes * pool_.n_threads()));
  std::memset(unpacked_.data(), 0, unpacked_.bytes());  // A tile may read panels that a weight does not have.
}

Unpacked Products::unpacked(int thread) const {
  uint8_t* at = static_cast<uint8_t*>(unpacked_.data()) + thread * kUnpackedBytes;
  const auto floats = [at](int64_t offset) { return reinterpret_cast<float*>(at + offset); };
  return {at, floats(kCodesBytes), floats(kCodesBytes + kScalesBytes), floats(kCodesBytes + kScalesBytes + kOffsetsBytes)};
}

QuantisedRows Products::activations(int64_t n_rows, const CpuWeight& w) {
  const int64_t k = w.cols();
  reserve_quantised(n_rows, k);
  uint8_t* at = static_cast<uint8_t*>(activations_.data());
  const auto take = [&at](int64_t bytes) {
    uint8_t* part = at;
    at += round_up(bytes, kAlignment);
    return part;
  };
  const int64_t units = k / kUnit;
  const int64_t strip_rows = n_rows <= kFewRows ? 1 : kStripRows;
  n_rows = round_up(n_rows, strip_rows);
  QuantisedRows rows;
  rows.k = k;
  rows.strip_rows = strip_rows;
  rows.has_sums = has_kind(w, UnitKind::kZero) || has_kind(w, UnitKind::kWide);
  rows.has_halves = has_kind(w, UnitKind::kHalves);
  for (ActivationTerm* term : {&rows.high, &rows.low}) {
    term->codes = reinterpret_cast<int8_t*>(take(n_rows * k));
    term->negative_sums = reinterpret_cast<int32_t*>(take(n_rows * units * 4));
    term->negative_halves = reinterpret_cast<int32_t*>(take(n_rows * units * 8));
  }
  rows.fine = take(n_rows * units);
  rows.scales = reinterpret_cast<float*>(take(n_rows * units * 4));
  rows.scaled_sums = reinterpret_cast<float*>(take(n_rows * units * 4));
  return rows;
}

void Products::reserve(int64_t max_rows, int64_t max_k) {
  if (!tiles_.exist()) return reserve_quantised(max_rows, max_k);
  tiles_.reserve(max_rows, max_k);
  reserve_quantised(std::min(max_rows, TileProducts::kFewestRows - 1), max_k);
}

void Products::reserve_quantised(int64_t max_rows, int64_t max_k) {
  const int64_t bytes = round_up(max_rows, kStripRows) * (2 * max_k + ceil_div(max_k, kUnit) * 33) + 9 * kAlignment;
  if (static_cast<int64_t>(activations_.bytes()) >= bytes) return;
  activations_ = Buffer();  // Freed first: both at once may not fit.
  activations_ = allocate_(static_cast<size_t>(bytes));
}

QuantisedRows Products::prepare(ConstTensorView x, const CpuWeight& w, const Beside& beside) {
  const int64_t n_rows = x.dim(0), k = x.dim(1);
  const bool quantised = std::ranges::any_of(w.segments(), [](const Segment& s) { return is_quantised(s.dtype); });
  const QuantisedRows rows = quantised ? activations(n_rows, w) : QuantisedRows();
  if (!quantised && !beside.before) return rows;
  const auto one = [&](int64_t t, int) {
    if (beside.before) beside.before(t, nullptr);
    if (quantised) kernels_.quantise_row(x.f32() + t * k, rows, t);
  };
  if (n_rows >= kPrepareInline) {
    for_each_row(pool_, n_rows, std::min<int64_t>(ceil_div(n_rows, pool_.n_threads()), kStripRows), one);
  } else {
    const FlushSubnormals flush;
    for (int64_t t = 0; t < n_rows; ++t) one(t, 0);
  }
  return rows;
}

void Products::multiply_few(float* out, const float* x, const QuantisedRows& quantised, int64_t n_rows, const CpuWeight& w,
                            const Beside& beside) {
  int64_t panels = 4;  // What gemv likes to read at once; fewer only to keep every thread busy.
  while (panels > 1 && Items(w, panels, beside.pairs).count() < kItemsPerThread * pool_.n_threads()) panels /= 2;
  const Items items(w, panels, beside.pairs);
  const int n_threads = pool_.n_threads();
  pool_.for_each(items.count(), [&](int64_t place, int) {
    const int64_t item = items.adjacent(place, n_threads);
    for (int i = 0; i < items.parts(); ++i) {
      Part part = items.at(item, i);
      const auto format = static_cast<size_t>(part.dtype);
      if (i + 1 < items.parts())
        part.span.next = items.at(item, i + 1).span.data;
      else if (place + n_threads < items.count())
        part.span.next = items.at(item + 1, 0).span.data;
      for (int64_t t = 0; t < n_rows; ++t) {  // The first row reads the item from memory, the others from the cache.
        float* const to = out + t * w.rows() + part.column;
        if (is_quantised(part.dtype))
          kernels_.gemv[format](part.span, quantised, t, to);
        else
          kernels_.float_gemv[format](part.span, x + t * w.cols(), to);
      }
    }
    if (beside.after) beside.after(items.block(out, item, 0, n_rows));
  });
}

bool Products::stays_packed(const CpuWeight& w, int64_t n_rows) const {
  return n_rows <= kPackedRows &&
         std::ranges::all_of(w.segments(), [&](const Segment& s) { return kernels_.gemm_packed[static_cast<size_t>(s.dtype)] != nullptr; });
}

void Products::multiply_packed(float* out, const QuantisedRows& quantised, int64_t n_rows, const CpuWeight& w, const Beside& beside) {
  const Items items(w, kernels_.packed_panels, beside.pairs);
  pool_.for_each(items.count(), [&](int64_t item, int thread) {
    for (int i = 0; i < items.parts(); ++i) {
      const Part part = items.at(item, i);
      const std::optional<Part> next = items.after(item, i, pool_.n_threads());
      PackedTile tile;
      tile.weights = part.span;
      tile.n_tokens = n_rows;
      tile.out = out + part.column;
      tile.out_stride = w.rows();
      tile.sums = unpacked(thread).sums;
      if (beside.updated != nullptr) fetch_block(beside.updated, items.block(out, item, 0, n_rows), w.rows());
      if (next) {
        tile.ahead = next->span.data;
        tile.ahead_bytes = next->bytes();
      }
      kernels_.gemm_packed[static_cast<size_t>(part.dtype)](tile, quantised);
    }
    if (beside.after) beside.after(items.block(out, item, 0, n_rows));
  });
}

void Products::multiply_rows(float* out, const float* x, const QuantisedRows& quantised, int64_t n_rows, const CpuWeight& w,
                             const Beside& beside) {
  const Items items(w, kernels_.tile_panels, beside.pairs);
  const int64_t k = w.cols();
  const RowGroups groups(n_rows, pool_.n_threads());
  const auto multiply = [&](const Part& part, const std::optional<Part>& next, int64_t first_row, int64_t end_row, int thread) {
    const auto format = static_cast<size_t>(part.dtype);
    const bool quantised_weight = is_quantised(part.dtype);
    const int64_t chunk = quantised_weight ? kChunk : kFloatChunk, next_bytes = next ? next->bytes() : 0;
    Tile tile;
    tile.weights = unpacked(thread);
    tile.n_rows = part.span.n_rows;
    tile.first_token = first_row;
    tile.n_tokens = end_row - first_row;
    tile.out = out + first_row * w.rows() + part.column;
    tile.out_stride = w.rows();
    for (tile.k0 = 0; tile.k0 < k; tile.k0 += chunk) {
      tile.n_k = std::min(chunk, k - tile.k0);
      if (quantised_weight) {
        tile.ahead = next ? next->span.data + next_bytes * tile.k0 / k : nullptr;
        tile.ahead_bytes = next_bytes * tile.n_k / k;
        kernels_.unpack[format](part.span, tile.k0, tile.n_k, tile.weights);
        kernels_.gemm[static_cast<size_t>(unit_kind(part.dtype))](tile, quantised, zero_shift(part.dtype));
      } else {
        kernels_.float_unpack[format](part.span, tile.k0, tile.n_k, tile.weights);
        kernels_.float_gemm(tile, x, k);
      }
    }
  };
  const int threads_a_group = static_cast<int>(ceil_div(pool_.n_threads(), groups.count));
  pool_.for_each_in_groups(groups.count, items.count(), [&](int64_t group, int64_t item, int thread) {
    const int64_t first = groups.begin(group), end = groups.end(group);
    for (int i = 0; i < items.parts(); ++i) multiply(items.at(item, i), items.after(item, i, threads_a_group), first, end, thread);
    if (beside.after) beside.after(items.block(out, item, first, end - first));
  });
}

void Products::matmul(TensorView out, ConstTensorView x, const CpuWeight& w, const Beside& beside) {
  const int64_t n_rows = x.dim(0), k = w.cols();
  MINILLM_CHECK(x.dim(1) == k && out.dim(0) == n_rows && out.dim(1) == w.rows(), "x ", n_rows, " x ", x.dim(1), ", w ", w.rows(), " x ", k,
                ", out ", out.dim(0), " x ", out.dim(1));
  MINILLM_CHECK(!beside.pairs || is_pair(w), w.segments().size(), " tensors, not a pair");
  if (w.role() == WeightRole::kLookup) throw Error(ErrorCode::kInvalidArgument, "matmul: the weight was packed for row lookups only");
  if (n_rows == 0) return;
  if (tiles_.take(w, n_rows)) return tiles_.matmul(out, x, w, beside);
  const QuantisedRows rows = prepare(x, w, beside);
  if (n_rows <= kFewRows)
    multiply_few(out.f32(), x.f32(), rows, n_rows, w, beside);
  else if (stays_packed(w, n_rows))
    multiply_packed(out.f32(), rows, n_rows, w, beside);
  else
    multiply_rows(out.f32(), x.f32(), rows, n_rows, w, beside);
}

bool is_pair(const CpuWeight& w) noexcept {
  const std::span<const Segment> segments = w.segments();
  return segments.size() == 2 && segments[0].n_rows == segments[1].n_rows;
}

}  // namespace minillm::cpu
