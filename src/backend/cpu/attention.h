// attention.h - attention on the CPU: flash attention over pages or dense tensors, the standard one as its check, and the
// append that feeds the pages.
// Batch invariance: bitwise the same output for a row alone, in a batch, after any chunking, with any number of threads and
// any page table (attention_kernels.h says which order of operations is fixed). Where steps of kMatrixTokens or more go through
// tiles of bfloat16, that holds among such steps and among shorter ones; between the two, equality is to bfloat16 rounding.
// Memory: per thread one TileScratch, whatever the lengths, and one MatrixScratch where the kernels have matrices; partial results of split
// tiles, (runs x rows x (D + 2)) floats with a bound that depends on max_context; all taken in reserve(). Standard attention allocates its
// scores in the call. Threads: one caller at a time.
#pragma once

#include <cstddef>
#include <functional>
#include <string_view>

#include "backend/backend.h"
#include "backend/buffer.h"
#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/attention_schedule.h"
#include "backend/cpu/attention_tile.h"
#include "base/thread_pool.h"

namespace minillm::cpu {

/// Kernels of the named instruction set ("scalar", "avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx"), which this processor must
/// have. Throws Error{kInvalidArgument} for another name.
const AttentionKernels& attention_kernels_of(std::string_view isa);

class CpuAttention {
 public:
  /// `allocate` gives 64-byte aligned memory and counts it; pool and kernels must outlive this object.
  CpuAttention(ThreadPool& pool, const AttentionKernels& kernels, std::function<Buffer(size_t)> allocate);

  /// Makes room for steps up to `shape`; grows only. A larger step grows it then.
  void reserve(const WorkspaceShape& shape);

  /// As Backend::attention. Throws Error{kInvalidArgument} for parameters out of range.
  void attention(const Batch& batch, TensorView out, ConstTensorView q, const KvStorage& kv, int64_t layer, const AttentionParams& params,
                 TensorView lse);
  /// As Backend::dense_attention. Throws Error{kInvalidArgument} for parameters or shapes that do not fit.
  void dense_attention(TensorView out, ConstTensorView q, ConstTensorView k, ConstTensorView v, const AttentionParams& params,
                       TensorView lse);
  /// As Backend::rotate_and_append.
  void rotate_and_append(const Batch& batch, TensorView q, ConstTensorView qkv, const AttentionInput& w, ConstTensorView angles,
                         KvStorage& kv, int64_t layer);

 private:
  void reserve_scratch(int64_t head_dim);
  void reserve_matrices(int64_t head_dim);
  void reserve_partials(int64_t rows, int64_t head_dim);
  void run(AttentionJob& job);
  void run_tasks(const AttentionJob& job);
  void run_standard(const AttentionJob& job);
  void run_task(const AttentionJob& job, const AttentionTask& task, int thread) const;
  ScheduleLimits limits(const AttentionJob& job) const;
  TileScratch scratch(int thread) const;

  ThreadPool& pool_;
  const AttentionKernels& kernels_;
  std::function<Buffer(size_t)> allocate_;
  Buffer scratch_;                ///< A TileScratch for each thread.
  int64_t scratch_head_dim_ = 0;  ///< What it was made for.
  Buffer matrices_;               ///< A MatrixScratch for each thread.
  int64_t matrices_head_dim_ = 0;
  Buffer partials_;               ///< [rows][padded width], then [rows] totals.
  int64_t max_partial_rows_ = 0;  ///< Reserved for `partial_width_`.
  int64_t partial_width_ = 0;
  AttentionSchedule schedule_;
  std::vector<int32_t> order_;  ///< Tasks by the group of their rows.
  std::vector<AttentionSequence> sequences_;
};

/// Throws Error{kInvalidArgument} naming the first parameter that attention cannot work with.
void check_attention_params(const AttentionParams& params);

}  // namespace minillm::cpu
