// reference_backend.cpp - memory, weights and the machine's limits of the oracle.
#include "backend/reference/reference_backend.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "backend/reference/kv_pages.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/dequantise.h"
#include "base/half.h"
#include "minillm/metrics.h"

namespace minillm {

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<reference::ReferenceBackend>(); }

}  // namespace minillm

namespace minillm::reference {
namespace {

/// Rounds every value to `dtype` and back.
void round_to(Dtype dtype, std::span<float> values) {
  for (float& v : values) v = dtype == Dtype::kF16 ? half_to_float(float_to_half(v)) : bfloat16_to_float(float_to_bfloat16(v));
}

}  // namespace

double load(ConstTensorView view, int64_t i) {
  if (view.dtype == Dtype::kF32) return static_cast<const float*>(view.data)[i];
  const uint16_t bits = static_cast<const uint16_t*>(view.data)[i];
  MINILLM_CHECK(view.dtype == Dtype::kF16 || view.dtype == Dtype::kBF16, "reference: no scalar of ", name_of(view.dtype));
  return view.dtype == Dtype::kF16 ? half_to_float(bits) : bfloat16_to_float(bits);
}

Buffer ReferenceBackend::allocate(size_t bytes) {
  constexpr size_t kAlignment = 64;
  const auto room = checked_add(bytes, kAlignment - 1);
  void* data = room ? std::aligned_alloc(kAlignment, std::max(kAlignment, *room / kAlignment * kAlignment)) : nullptr;
  if (data == nullptr) throw Error(ErrorCode::kOutOfMemory, "reference: no room for ", readable_bytes(bytes));
  std::memset(data, 0xFF, bytes);  // All ones is NaN in every float type: what is read before it is written shows.
  memory_->current += static_cast<int64_t>(bytes);
  memory_->peak = std::max(memory_->peak, memory_->current);
  return {data, bytes, [memory = memory_, bytes](void* p) {
            memory->current -= static_cast<int64_t>(bytes);
            std::free(p);
          }};
}

void ReferenceBackend::upload(void* to, const void* from_host, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from_host, bytes);
}

void ReferenceBackend::download(void* to_host, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to_host, from, bytes);
}

std::unique_ptr<KvStorage> ReferenceBackend::make_kv_storage(const KvShape& shape) { return std::make_unique<KvPages>(shape); }

std::unique_ptr<PackedWeight> ReferenceBackend::pack(std::span<const ConstTensorView> tensors, WeightRole,
                                                     std::optional<Dtype> convert_to) {
  if (tensors.empty()) throw Error(ErrorCode::kInvalidArgument, "pack: no tensors");
  if (convert_to && *convert_to != Dtype::kF32 && *convert_to != Dtype::kF16 && *convert_to != Dtype::kBF16)
    throw Error(ErrorCode::kUnsupported, "pack: cannot convert to ", name_of(*convert_to), ": expected f32, f16 or bf16");
  int64_t n_rows = 0;
  for (const ConstTensorView& tensor : tensors) {
    if (tensor.rank != 2) throw Error(ErrorCode::kInvalidArgument, "pack: a weight of rank ", tensor.rank, ": expected [N, K]");
    if (tensor.dim(1) != tensors[0].dim(1))
      throw Error(ErrorCode::kInvalidArgument, "pack: rows of ", tensor.dim(1), " elements stacked on rows of ", tensors[0].dim(1));
    if (tensor.dtype == Dtype::kI32 || tensor.dtype == Dtype::kF8)
      throw Error(ErrorCode::kUnsupported, "pack: dtype ", name_of(tensor.dtype));
    n_rows += tensor.dim(0);
  }
  const int64_t n_cols = tensors[0].dim(1);
  auto weight = std::make_unique<ReferenceWeight>(n_rows, n_cols,
                                                  allocate(static_cast<size_t>(n_rows) * static_cast<size_t>(n_cols) * sizeof(float)));
  int64_t next = 0;
  for (const ConstTensorView& tensor : tensors) {
    const size_t stride = row_bytes(tensor.dtype, n_cols);
    for (int64_t n = 0; n < tensor.dim(0); ++n) {
      float* row = weight->row(next++);
      dequantise_row(tensor.dtype, static_cast<const std::byte*>(tensor.data) + static_cast<size_t>(n) * stride, row, n_cols);
      if (convert_to && *convert_to != Dtype::kF32) round_to(*convert_to, {row, static_cast<size_t>(n_cols)});
    }
  }
  return weight;
}

void ReferenceBackend::begin_step(const Batch& batch) {
  const int64_t n_rows = static_cast<int64_t>(batch.tokens.size());
  MINILLM_CHECK(batch.positions.size() == batch.tokens.size(), batch.positions.size(), " positions for ", n_rows, " tokens");
  int64_t next = 0;
  for (const SequenceSlice& sequence : batch.sequences) {
    MINILLM_CHECK(sequence.first_row == next && sequence.n_rows >= 0 && sequence.n_cached >= 0, "a sequence of ", sequence.n_rows,
                  " rows from row ", sequence.first_row, " after ", sequence.n_cached, " cached: the rows before end at ", next);
    next += sequence.n_rows;
  }
  MINILLM_CHECK(next == n_rows, "sequences cover ", next, " of ", n_rows, " rows");
  Backend::begin_step(batch);
}

MachinePeaks ReferenceBackend::measure_peaks() {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); };
  constexpr int64_t kFloats = int64_t{16} << 20;  // 64 MiB: larger than most last-level caches.
  const std::vector<float> values(static_cast<size_t>(kFloats), 1.0f);
  MachinePeaks peaks;
  double sum = 0;
  for (int repeat = 0; repeat < 3; ++repeat) {
    const Clock::time_point start = Clock::now();
    for (const float v : values) sum += v;
    const double seconds = seconds_since(start);
    peaks.read_gb_s = std::max(peaks.read_gb_s, 4e-9 * static_cast<double>(kFloats) / seconds);
  }
  const Clock::time_point start = Clock::now();
  for (int64_t i = 0; i < kFloats; ++i) sum += static_cast<double>(values[static_cast<size_t>(i % 1024)]) * 0.5;
  peaks.float_gflop_s = 2e-9 * static_cast<double>(kFloats) / seconds_since(start);
  MINILLM_CHECK(sum > 0, "sum of ones is ", sum);  // Keeps the loops.
  return peaks;
}

}  // namespace minillm::reference
