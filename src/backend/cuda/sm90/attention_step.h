// attention_step.h - the Hopper attention kernel over a step's pages: which steps it takes, and its launcher.
#pragma once

#include "backend/cuda/operations.h"

namespace minillm::cuda::sm90 {

/// Query rows of a tile, all of one sequence.
constexpr int kStepTileRows[] = {192, 128};
/// Which of those a step is fastest with: the taller ones for heads of 64 elements, unless even the longest sequence is a few tiles.
constexpr int tile_list(int64_t head_dim, int64_t max_keys) { return head_dim == 64 && max_keys > 1024 ? 0 : 1; }
constexpr int kStepTileInts = 5;  ///< Of a tile's entry in the step: first row, rows, keys, what its first row sees, its block table.

struct StepAttention {
  const void* q = nullptr;  ///< [T, H, D] in the cache's dtype.
  void* out = nullptr;      ///< [T, H, D] in out_dtype.
  Dtype out_dtype = Dtype::kBF16;
  float* lse = nullptr;  ///< [T, H] or null.
  KeyLayout cache;
  AttentionScalars a;
  int tile_rows = 0;
  const int32_t* tiles = nullptr;   ///< n_tiles entries of up to tile_rows rows: the longest sequence first, in it the last rows first.
  const int32_t* tables = nullptr;  ///< Block tables, where the entries say.
  int64_t n_rows = 0, n_tiles = 0, max_keys = 0;
  int* tickets = nullptr;  ///< Two zeroed counters, zero again afterwards.
  int n_multiprocessors = 0;
};

/// A 16-bit paged cache, heads of 64, 128 or 256, causal without a window; nothing added to the scores.
bool takes_step(const KeyLayout& cache, const AttentionScalars& a);
void step_attention(const StepAttention& p, cudaStream_t stream);

// One instantiation a file.
void step_attention_64(const StepAttention& p, cudaStream_t stream);
void step_attention_128(const StepAttention& p, cudaStream_t stream);
void step_attention_256(const StepAttention& p, cudaStream_t stream);

}  // namespace minillm::cuda::sm90
