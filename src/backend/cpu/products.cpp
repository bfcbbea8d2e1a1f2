// products.cpp - splits a product into items of whole panels and runs them on the pool.
#include "backend/cpu/products.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/check.h"
#include "base/dtype.h"

namespace minillm::cpu {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kFloatChunk = kChunk / 4;  ///< As many bytes unpacked as kChunk codes.
constexpr int64_t kItemsPerThread = 4;       ///< At least, where the rows allow it: threads are not equally fast.
constexpr int64_t kQuantiseInline = 4;       ///< Rows below which waking the others costs more.

/// Bytes of each part of a thread's Unpacked.
constexpr int64_t kCodesBytes = kMaxTilePanels * kPanelRows * kChunk;
constexpr int64_t kScalesBytes = kMaxTilePanels * kPanelRows * (kChunk / kUnit) * 2 * static_cast<int64_t>(sizeof(float));
constexpr int64_t kOffsetsBytes = kScalesBytes / 2;

/// Cuts the panels of every segment into items of `panels_an_item`.
struct Items {
  std::span<const Segment> segments;
  int64_t panels_an_item;

  int64_t of(const Segment& segment) const { return ceil_div(ceil_div(segment.n_rows, kPanelRows), panels_an_item); }
  int64_t count() const {
    int64_t n = 0;
    for (const Segment& segment : segments) n += of(segment);
    return n;
  }
  /// The segment of `item`, and the item's panels in it.
  std::pair<const Segment*, PanelSpan> at(int64_t item, int64_t k) const {
    const Segment* segment = segments.data();
    for (; item >= of(*segment); ++segment) item -= of(*segment);
    const int64_t panel = item * panels_an_item, row = panel * kPanelRows;
    const int64_t n_rows = std::min(segment->n_rows - row, panels_an_item * kPanelRows);
    return {segment, {segment->data + panel * segment->stride, segment->stride, n_rows, k}};
  }
};

}  // namespace

Products::Products(ThreadPool& pool, const Kernels& kernels, std::function<Buffer(size_t)> allocate)
    : pool_(pool), kernels_(kernels), allocate_(std::move(allocate)) {
  unpacked_ = allocate_(static_cast<size_t>((kCodesBytes + kScalesBytes + kOffsetsBytes) * pool_.n_threads()));
  std::memset(unpacked_.data(), 0, unpacked_.bytes());  // A tile may read panels that a weight does not have.
}

Unpacked Products::unpacked(int thread) const {
  uint8_t* at = static_cast<uint8_t*>(unpacked_.data()) + thread * (kCodesBytes + kScalesBytes + kOffsetsBytes);
  return {at, reinterpret_cast<float*>(at + kCodesBytes), reinterpret_cast<float*>(at + kCodesBytes + kScalesBytes)};
}

QuantisedRows Products::activations(int64_t n_rows, int64_t k) {
  reserve(n_rows, k);
  uint8_t* at = static_cast<uint8_t*>(activations_.data());
  const auto take = [&at](int64_t bytes) {
    uint8_t* part = at;
    at += round_up(bytes, kAlignment);
    return part;
  };
  const int64_t units = k / kUnit;
  QuantisedRows rows;
  rows.k = k;
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
  const int64_t bytes = max_rows * (2 * max_k + ceil_div(max_k, kUnit) * 33) + 9 * kAlignment;
  if (static_cast<int64_t>(activations_.bytes()) >= bytes) return;
  activations_ = Buffer();  // Freed first: both at once may not fit.
  activations_ = allocate_(static_cast<size_t>(bytes));
}

void Products::quantise(const QuantisedRows& to, const float* x, int64_t n_rows) {
  const auto one = [&](int64_t t, int) { kernels_.quantise_row(x + t * to.k, to, t); };
  if (n_rows >= kQuantiseInline) return pool_.for_each(n_rows, one);
  const FlushSubnormals flush;
  for (int64_t t = 0; t < n_rows; ++t) one(t, 0);
}

void Products::multiply_row(float* out, const float* x, const QuantisedRows& quantised, const CpuWeight& w) {
  int64_t panels = 4;  // What gemv likes to read at once; fewer only to keep every thread busy.
  while (panels > 1 && Items{w.segments(), panels}.count() < kItemsPerThread * pool_.n_threads()) panels /= 2;
  const Items items{w.segments(), panels};
  pool_.for_each(items.count(), [&](int64_t item, int) {
    const auto [segment, span] = items.at(item, w.cols());
    float* to = out + segment->first_row + (span.data - segment->data) / segment->stride * kPanelRows;
    const auto format = static_cast<size_t>(segment->dtype);
    if (is_quantised(segment->dtype))
      kernels_.gemv[format](span, quantised, 0, to);
    else
      kernels_.float_gemv[format](span, x, to);
  });
}

void Products::multiply_rows(float* out, const float* x, const QuantisedRows& quantised, int64_t n_rows, const CpuWeight& w) {
  const Items items{w.segments(), kernels_.tile_panels};
  const int64_t k = w.cols();
  pool_.for_each(items.count(), [&](int64_t item, int thread) {
    const auto [segment, span] = items.at(item, k);
    const auto format = static_cast<size_t>(segment->dtype);
    const bool quantised_weight = is_quantised(segment->dtype);
    Tile tile;
    tile.weights = unpacked(thread);
    tile.n_rows = span.n_rows;
    tile.n_tokens = n_rows;
    tile.out = out + segment->first_row + (span.data - segment->data) / segment->stride * kPanelRows;
    tile.out_stride = w.rows();
    const int64_t chunk = quantised_weight ? kChunk : kFloatChunk;
    for (tile.k0 = 0; tile.k0 < k; tile.k0 += chunk) {
      tile.n_k = std::min(chunk, k - tile.k0);
      if (quantised_weight) {
        kernels_.unpack[format](span, tile.k0, tile.n_k, tile.weights);
        kernels_.gemm[static_cast<size_t>(unit_kind(segment->dtype))](tile, quantised, zero_shift(segment->dtype));
      } else {
        kernels_.float_unpack[format](span, tile.k0, tile.n_k, tile.weights);
        kernels_.float_gemm(tile, x, k);
      }
    }
  });
}

void Products::matmul(TensorView out, ConstTensorView x, const CpuWeight& w) {
  const int64_t n_rows = x.dim(0), k = w.cols();
  MINILLM_CHECK(x.dim(1) == k && out.dim(0) == n_rows && out.dim(1) == w.rows(), "x ", n_rows, " x ", x.dim(1), ", w ", w.rows(), " x ", k,
                ", out ", out.dim(0), " x ", out.dim(1));
  if (w.role() == WeightRole::kLookup) throw Error(ErrorCode::kInvalidArgument, "matmul: the weight was packed for row lookups only");
  if (n_rows == 0) return;
  QuantisedRows quantised;
  if (std::ranges::any_of(w.segments(), [](const Segment& s) { return is_quantised(s.dtype); })) {
    quantised = activations(n_rows, k);
    quantise(quantised, x.f32(), n_rows);
  }
  if (n_rows == 1)
    multiply_row(out.f32(), x.f32(), quantised, w);
  else
    multiply_rows(out.f32(), x.f32(), quantised, n_rows, w);
}

}  // namespace minillm::cpu
