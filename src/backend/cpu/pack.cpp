// pack.cpp - checks the tensors, lays out the segments, fills the panels in parallel.
#include "backend/cpu/pack.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/panel.h"
#include "backend/cpu/panel_io.h"
#include "base/bytes.h"
#include "base/dequantise.h"
#include "base/dtype.h"

namespace minillm::cpu {
namespace {

constexpr int64_t kAlignment = 64;

/// The type a tensor is kept in. Throws for what cannot be packed.
Dtype packed_dtype(const ConstTensorView& tensor, std::optional<Dtype> convert_to) {
  if (tensor.dtype == Dtype::kI32 || tensor.dtype == Dtype::kF8)
    throw Error(ErrorCode::kUnsupported, "pack: ", name_of(tensor.dtype), " tensors are not weights");
  if (!convert_to) return tensor.dtype;
  if (is_quantised(*convert_to) || *convert_to == Dtype::kI32 || *convert_to == Dtype::kF8)
    throw Error(ErrorCode::kUnsupported, "pack: cannot convert to ", name_of(*convert_to), "; expected f32, f16 or bf16");
  return *convert_to;
}

void check_shapes(std::span<const ConstTensorView> tensors) {
  if (tensors.empty()) throw Error(ErrorCode::kInvalidArgument, "pack: no tensors");
  for (const ConstTensorView& tensor : tensors) {
    if (tensor.rank != 2 || tensor.shape[0] <= 0 || tensor.shape[1] <= 0)
      throw Error(ErrorCode::kInvalidArgument, "pack: a weight of rank ", tensor.rank, ", expected [N, K] with N and K above 0");
    if (tensor.shape[1] != tensors[0].shape[1])
      throw Error(ErrorCode::kInvalidArgument, "pack: rows of ", tensor.shape[1], " stacked with rows of ", tensors[0].shape[1]);
  }
}

void fill_rows(const ConstTensorView& from, const Segment& to, uint8_t* data, ThreadPool& pool) {
  const int64_t k = from.shape[1], source_bytes = static_cast<int64_t>(row_bytes(from.dtype, k));
  const uint8_t* rows = static_cast<const uint8_t*>(from.data);
  if (from.dtype == to.dtype) {
    std::memcpy(data, rows, static_cast<size_t>(to.n_rows * source_bytes));
    return;
  }
  const int64_t element = static_cast<int64_t>(block_bytes(to.dtype));
  pool.for_each(to.n_rows, [&](int64_t row, int) {
    // One row is a panel of which only the first lane is kept.
    std::vector<uint8_t> panel(static_cast<size_t>(k * kPanelRows * element));
    write_float_panel(to.dtype, from.dtype, rows + row * source_bytes, source_bytes, 1, k, panel.data());
    for (int64_t i = 0; i < k; ++i)
      std::memcpy(data + row * to.stride + i * element, panel.data() + i * kPanelRows * element, static_cast<size_t>(element));
  });
}

void fill_panels(const ConstTensorView& from, const Segment& to, uint8_t* data, ThreadPool& pool) {
  const int64_t k = from.shape[1], source_bytes = static_cast<int64_t>(row_bytes(from.dtype, k));
  const uint8_t* rows = static_cast<const uint8_t*>(from.data);
  pool.for_each(ceil_div(to.n_rows, kPanelRows), [&](int64_t panel, int) {
    const int64_t row = panel * kPanelRows, n_rows = std::min<int64_t>(kPanelRows, to.n_rows - row);
    const uint8_t* source = rows + row * source_bytes;
    if (is_quantised(to.dtype))
      write_quantised_panel(to.dtype, source, source_bytes, n_rows, k, data + panel * to.stride);
    else
      write_float_panel(to.dtype, from.dtype, source, source_bytes, n_rows, k, data + panel * to.stride);
  });
}

}  // namespace

int64_t panel_bytes(Dtype dtype, int64_t k) {
  if (!is_quantised(dtype)) return kPanelRows * static_cast<int64_t>(row_bytes(dtype, k));
  return k / block_elements(dtype) * panel_format(dtype).block_bytes();
}

CpuWeight::CpuWeight(int64_t rows, int64_t cols, WeightRole role, std::vector<Segment> segments, Buffer buffer)
    : PackedWeight(rows, cols), role_(role), segments_(std::move(segments)), buffer_(std::move(buffer)) {}

void CpuWeight::look_up(int64_t row, float* out) const {
  MINILLM_CHECK(role_ != WeightRole::kProduct && row >= 0 && row < rows(), "row ", row, " of ", rows());
  const Segment* segment = segments_.data();
  while (row >= segment->first_row + segment->n_rows) ++segment;
  row -= segment->first_row;
  if (role_ == WeightRole::kLookup) return dequantise_row(segment->dtype, segment->data + row * segment->stride, out, cols());
  read_panel_row(segment->dtype, segment->data + row / kPanelRows * segment->stride, row % kPanelRows, cols(), out);
}

const CpuWeight& own(const PackedWeight& w) {
  const auto* weight = dynamic_cast<const CpuWeight*>(&w);
  if (weight == nullptr) throw Error(ErrorCode::kInvalidArgument, "cpu: the weight was packed by another backend");
  return *weight;
}

std::unique_ptr<CpuWeight> pack_weight(std::span<const ConstTensorView> tensors, WeightRole role, std::optional<Dtype> convert_to,
                                       ThreadPool& pool, const std::function<Buffer(size_t)>& allocate) {
  check_shapes(tensors);
  const int64_t k = tensors[0].shape[1];
  std::vector<Segment> segments;
  std::vector<int64_t> offsets;
  int64_t n_rows = 0, n_bytes = 0;
  for (const ConstTensorView& tensor : tensors) {
    Segment segment{packed_dtype(tensor, convert_to), n_rows, tensor.shape[0], nullptr, 0};
    (void)row_bytes(tensor.dtype, k);  // Refuses a K that is not whole blocks.
    const bool rows_only = role == WeightRole::kLookup;
    segment.stride = rows_only ? static_cast<int64_t>(row_bytes(segment.dtype, k)) : panel_bytes(segment.dtype, k);
    const auto bytes = checked_mul(static_cast<uint64_t>(segment.stride),
                                   static_cast<uint64_t>(rows_only ? segment.n_rows : ceil_div(segment.n_rows, kPanelRows)));
    if (!bytes || *bytes > uint64_t{1} << 48)
      throw Error(ErrorCode::kOutOfMemory, "pack: ", segment.n_rows, " x ", k, " weights in ", name_of(segment.dtype));
    segments.push_back(segment);
    offsets.push_back(n_bytes);
    n_rows += segment.n_rows;
    n_bytes += round_up(static_cast<int64_t>(*bytes), kAlignment);
  }

  Buffer buffer = allocate(static_cast<size_t>(n_bytes));
  for (size_t i = 0; i < segments.size(); ++i) {
    uint8_t* data = static_cast<uint8_t*>(buffer.data()) + offsets[i];
    segments[i].data = data;
    (role == WeightRole::kLookup ? fill_rows : fill_panels)(tensors[i], segments[i], data, pool);
  }
  return std::make_unique<CpuWeight>(n_rows, k, role, std::move(segments), std::move(buffer));
}

}  // namespace minillm::cpu
