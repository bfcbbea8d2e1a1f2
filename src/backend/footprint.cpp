// footprint.cpp - the sizes of the buffers that the CPU and the CUDA backend keep.
#include "backend/footprint.h"

#include <algorithm>

#include "backend/cuda_sizes.h"
#include "base/bytes.h"
#include "base/dtype.h"
#include "base/quant_block.h"

namespace minillm {
namespace {

constexpr int64_t kFloat = sizeof(float);
constexpr int64_t kPanelRows = 16;         // Of the CPU's packed weights.
constexpr int64_t kMultiprocessors = 132;  // Of an H100 or H200; a GPU with fewer takes less.

int64_t widest_input(const WorkspaceShape& s) { return std::max({s.hidden, s.ffn, s.n_heads * s.head_dim}); }

/// Panels of 16 rows; q4_k and q5_k with 4 more bytes a block.
int64_t panel_bytes(Dtype dtype, int64_t rows, int64_t cols) {
  const bool wider = dtype == Dtype::kQ4_K || dtype == Dtype::kQ5_K;
  return round_up(rows, kPanelRows) * (cols / block_elements(dtype)) * (static_cast<int64_t>(block_bytes(dtype)) + (wider ? 4 : 0));
}

/// Codes of 4 or 8 bits, a scale a group, and an offset where the format has one: float16 as in the file, or the product of a block's
/// and a group's in float32.
int64_t code_bytes(Dtype dtype, int64_t rows, int64_t cols) {
  const QuantFormat format = quant_format(dtype);
  const int64_t n = round_up(rows, cuda::kTileRows) * round_up(cols, cuda::kUnitColumns);
  const int64_t number = format.has_group_scales ? kFloat : kFloat / 2;
  return (format.code_bits == 4 ? n / 2 : n) + n / format.group * number * (format.has_offset ? 2 : 1);
}

/// Rows quantised to two int8 terms with scales and sums; and about 128 partial results of attention for each 512 tokens of context.
int64_t cpu_bytes(const WorkspaceShape& s) {
  const int64_t widest = widest_input(s);
  return s.max_rows * (2 * widest + widest * 20 / 32) + ceil_div(s.max_context, 512) * 128 * s.head_dim * kFloat;
}

/// Steps of many rows over 8-bit pages widen a layer of those of their sequences: at most all there are.
int64_t cuda_wide_bytes(const KvShape& kv) {
  const bool is_widened = kv.dtype == Dtype::kF8 && (kv.head_dim == 64 || kv.head_dim == 128 || kv.head_dim == 256);
  const int64_t page_elements = 2 * kv.n_kv_heads * kv.page_tokens * kv.head_dim;
  return is_widened ? std::min(cuda::wide_page_bytes(kv.max_pages, page_elements), cuda::kMostWideBytes) : 0;
}

int64_t cuda_bytes(const WorkspaceShape& s, bool has_quantised, const KvShape& kv) {
  const int64_t few = std::min(s.max_rows, cuda::kFewTokens), decoding = std::min(s.max_sequences, cuda::kFewTokens);
  size_t bytes = static_cast<size_t>(s.max_rows * widest_input(s)) * sizeof(uint16_t);  // The next product's inputs.
  bytes += cuda::split_input_bytes(few, widest_input(s)) + cuda::split_input_bytes(std::min(few, cuda::kFewTokens / 2), s.ffn);
  bytes += cuda::decode_partial_bytes(decoding, cuda::decode_runs(kMultiprocessors, s.n_kv_heads), s.n_heads, s.head_dim);
  bytes += cuda::draw_scratch_bytes(s.max_logit_rows);
  if (s.max_rows > cuda::kFewTokens) bytes += cuda::kDenseWorkspaceBytes + static_cast<size_t>(cuda_wide_bytes(kv));
  const auto largest = static_cast<size_t>(2 * s.ffn * s.hidden) * sizeof(uint16_t);
  if (s.max_rows > cuda::kFewTokens && has_quantised) bytes += std::min(cuda::kDequantisedBytes, largest);
  return static_cast<int64_t>(bytes);
}

}  // namespace

int64_t weight_footprint(Device::Kind kind, Dtype dtype, int64_t rows, int64_t cols) {
  if (kind != Device::Kind::kCuda) return panel_bytes(dtype, rows, cols);
  if (is_quantised(dtype)) return code_bytes(dtype, rows, cols);
  return rows * round_up(cols, 8) * static_cast<int64_t>(block_bytes(dtype));
}

int64_t step_footprint(Device::Kind kind, const WorkspaceShape& shape, bool has_quantised, const KvShape& kv) {
  int64_t composites = 0;
  for (const int64_t width : scratch_widths(shape)) composites += shape.max_rows * width * kFloat;
  return composites + (kind == Device::Kind::kCuda ? cuda_bytes(shape, has_quantised, kv) : cpu_bytes(shape));
}

}  // namespace minillm
