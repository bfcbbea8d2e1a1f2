// cuda_sizes.h - sizes of the CUDA backend's own buffers, which the memory plan of a build without CUDA needs as well.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace minillm::cuda {

constexpr int64_t kFewTokens = 64;                         ///< Rows of the largest step whose products are our own kernels.
constexpr size_t kDenseWorkspaceBytes = size_t{32} << 20;  ///< What NVIDIA advises for cuBLASLt on Hopper.
constexpr size_t kDequantisedBytes = size_t{64} << 20;     ///< Of a weight at a time, for products of more rows.
constexpr int64_t kMostWideBytes = int64_t{1} << 30;       ///< Of a layer of 8-bit pages in float16; longer steps read 8 bits directly.
constexpr int kTileRows = 16, kUnitColumns = 128;          ///< Packed weights are padded to these.
constexpr int kMostRuns = 64;                              ///< Of a row's keys in decode attention: two for each lane of the merging warp.

/// Inputs of a product of few tokens as two terms of bfloat16 each, and a factor a token.
constexpr size_t split_input_bytes(int64_t n_tokens, int64_t cols) {
  const int64_t padded = (cols + kUnitColumns - 1) / kUnitColumns * kUnitColumns;
  return static_cast<size_t>(padded * n_tokens) * 2 * sizeof(uint16_t) + static_cast<size_t>(n_tokens) * sizeof(float);
}

/// Sums of a row's tokens in bins of their weight, for draws of up to kFewTokens rows at a time.
constexpr int kDrawBins = 1024;
constexpr size_t kDrawRowBytes = kDrawBins * (sizeof(uint64_t) + sizeof(uint32_t)) + sizeof(uint64_t);
constexpr size_t draw_scratch_bytes(int64_t n_rows) { return static_cast<size_t>(std::min(n_rows, kFewTokens)) * kDrawRowBytes; }

/// A layer of that many pages of a cache in 8 bits in float16, as prefill on Hopper reads them.
constexpr int64_t wide_page_bytes(int64_t n_pages, int64_t page_elements) {
  return n_pages * page_elements * static_cast<int64_t>(sizeof(uint16_t));
}

/// Runs that decode attention cuts the longest rows into: one sequence alone fills the device.
constexpr int decode_runs(int n_multiprocessors, int64_t n_kv_heads) {
  return static_cast<int>(std::clamp<int64_t>(n_multiprocessors / n_kv_heads, 4, kMostRuns));
}

/// Of each row, head and run: a sum of values, its maximum and its total.
constexpr size_t decode_partial_bytes(int64_t n_rows, int64_t n_runs, int64_t n_heads, int64_t head_dim) {
  return static_cast<size_t>(n_rows * n_runs * n_heads * (head_dim + 2)) * sizeof(float);
}

}  // namespace minillm::cuda
