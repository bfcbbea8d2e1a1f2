// attention.cpp - checks, memory and the two parallel loops (tasks, then merges) around the tiles.
#include "backend/cpu/attention.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "backend/cpu/attention_matrix.h"
#include "backend/cpu/attention_standard.h"
#include "backend/cpu/row_groups.h"
#include "base/bytes.h"

namespace minillm::cpu {
namespace {

const CpuKvStorage& cpu_storage(const KvStorage& kv) {
  const auto* storage = dynamic_cast<const CpuKvStorage*>(&kv);
  MINILLM_CHECK(storage != nullptr, "keys and values of another backend");
  return *storage;
}

void check_step(const Batch& batch, const KvStorage& kv, int64_t layer, int64_t n_rows) {
  MINILLM_CHECK(layer >= 0 && layer < kv.shape().n_layers, "layer ", layer, " of ", kv.shape().n_layers);
  int64_t row = 0;
  for (const SequenceSlice& s : batch.sequences) {
    MINILLM_CHECK(s.first_row == row && s.n_rows >= 0 && s.n_cached >= 0, "sequence at row ", s.first_row, ", expected ", row);
    row += s.n_rows;
  }
  MINILLM_CHECK(row == n_rows, "sequences cover ", row, " of ", n_rows, " rows");
}

}  // namespace

const AttentionKernels& attention_kernels_of(std::string_view isa) {
  if (isa == "scalar") return scalar::attention_kernels();
#if defined(__x86_64__)
  if (isa == "avx2") return avx2::attention_kernels();
  if (isa == "avx_vnni") return avx2::attention_kernels();  // Nothing of it is in integers.
  if (isa == "avx512_vnni") return avx512_vnni::attention_kernels();
  if (isa == "avx512_bf16") return avx512_bf16::attention_kernels();
  if (isa == "amx") return amx::attention_kernels();
#endif
  throw Error(ErrorCode::kInvalidArgument, "attention: no kernels for instruction set \"", isa, "\"");
}

void check_attention_params(const AttentionParams& p) {
  const auto refuse = [](const auto&... parts) { throw Error(ErrorCode::kInvalidArgument, "attention: ", parts...); };
  if (p.n_heads < 1 || p.n_kv_heads < 1 || p.n_heads % p.n_kv_heads != 0)
    refuse(p.n_heads, " query heads and ", p.n_kv_heads, " key/value heads: expected a positive multiple");
  if (p.head_dim < 1) refuse("head width ", p.head_dim, ": expected at least 1");
  if (p.block_size < 16 || p.block_size > 1024 || !std::has_single_bit(static_cast<uint64_t>(p.block_size)))
    refuse("block size ", p.block_size, ": expected a power of two from 16 to 1024");
  if (p.window < 0) refuse("window ", p.window, ": expected 0 (none) or more");
  if (!std::isfinite(p.scale)) refuse("scale ", p.scale, ": expected a finite number");
  if (!(p.softcap >= 0.0f) || !std::isfinite(p.softcap)) refuse("softcap ", p.softcap, ": expected 0 (off) or more");
  const auto n_heads = static_cast<size_t>(p.n_heads);
  if (!p.alibi_slopes.empty() && p.alibi_slopes.size() != n_heads) refuse(p.alibi_slopes.size(), " ALiBi slopes for ", p.n_heads, " heads");
  if (!p.sinks.empty() && p.sinks.size() != n_heads) refuse(p.sinks.size(), " sinks for ", p.n_heads, " heads");
}

CpuAttention::CpuAttention(ThreadPool& pool, const AttentionKernels& kernels, std::function<Buffer(size_t)> allocate)
    : pool_(pool), kernels_(kernels), allocate_(std::move(allocate)) {}

void CpuAttention::reserve_scratch(int64_t head_dim) {
  if (head_dim <= scratch_head_dim_) return;
  scratch_ = Buffer();  // Freed first: both at once may not fit.
  scratch_head_dim_ = 0;
  scratch_ = allocate_(static_cast<size_t>(TileScratch::bytes(head_dim) * pool_.n_threads()));
  scratch_head_dim_ = head_dim;
}

void CpuAttention::reserve_matrices(int64_t head_dim) {
  if (head_dim <= matrices_head_dim_) return;
  matrices_ = Buffer();
  matrices_head_dim_ = 0;
  matrices_ = allocate_(static_cast<size_t>(MatrixScratch::bytes(head_dim) * pool_.n_threads()));
  matrices_head_dim_ = head_dim;
}

void CpuAttention::reserve_partials(int64_t rows, int64_t head_dim) {
  const int64_t width = round_up(head_dim, kKeyPanel);
  if (rows <= max_partial_rows_ && width <= partial_width_) return;
  rows = std::max(rows, max_partial_rows_);
  const int64_t new_width = std::max(width, partial_width_);
  partials_ = Buffer();
  max_partial_rows_ = partial_width_ = 0;
  partials_ = allocate_(static_cast<size_t>(rows) * (static_cast<size_t>(new_width) * sizeof(float) + sizeof(RowTotal)));
  max_partial_rows_ = rows;
  partial_width_ = new_width;
}

void CpuAttention::reserve(const WorkspaceShape& shape) {
  if (shape.n_kv_heads < 1 || shape.head_dim < 1) return;
  ScheduleLimits most;
  most.group = std::max<int64_t>(1, shape.n_heads / shape.n_kv_heads);
  most.n_kv_heads = shape.n_kv_heads;
  most.run_tokens = kRunTokens;
  most.max_tile_rows = max_tile_rows(1024);  // The longest block makes the lowest tiles, and so the most tasks.
  most.n_threads = pool_.n_threads();
  const int64_t n_sequences = std::max<int64_t>(1, shape.max_sequences);
  reserve_scratch(shape.head_dim);
  if (kernels_.matrices != nullptr && shape.max_rows >= kMatrixTokens) reserve_matrices(shape.head_dim);
  reserve_partials(partial_rows_needed(most, n_sequences, shape.max_context), shape.head_dim);
  const int64_t n_tasks = tasks_needed(most, shape.max_rows, n_sequences);
  schedule_.tasks.reserve(static_cast<size_t>(n_tasks));
  schedule_.merges.reserve(static_cast<size_t>(n_tasks));
  order_.reserve(static_cast<size_t>(n_tasks));
  sequences_.reserve(static_cast<size_t>(n_sequences));
}

ScheduleLimits CpuAttention::limits(const AttentionJob& job) const {
  ScheduleLimits limits;
  limits.group = job.group();
  limits.n_kv_heads = job.params->n_kv_heads;
  limits.run_tokens = job.run_tokens();
  limits.max_tile_rows = max_tile_rows(job.params->block_size);
  limits.max_partial_rows = job.padded_width() <= partial_width_ ? max_partial_rows_ : 0;
  limits.n_threads = pool_.n_threads();
  if (job.params->flash && has_matrices(kernels_, job.kv.storage != nullptr, job.kv.element)) {
    limits.matrix_tokens = kMatrixTokens;
    limits.max_matrix_rows = max_matrix_rows(matrices_head_dim_);  // As its scratch was made.
  }
  return limits;
}

TileScratch CpuAttention::scratch(int thread) const {
  return TileScratch::carve(static_cast<std::byte*>(scratch_.data()) + thread * TileScratch::bytes(scratch_head_dim_), scratch_head_dim_);
}

void CpuAttention::run(AttentionJob& job) {
  job.kernels = &kernels_;
  job.sequences = sequences_;
  reserve_scratch(job.head_dim());
  if (has_matrices(kernels_, job.kv.storage != nullptr, job.kv.element)) reserve_matrices(job.head_dim());
  make_schedule(schedule_, sequences_, job.visibility(), limits(job));
  if (!job.params->flash) return run_standard(job);
  job.tasks = schedule_.tasks;
  job.n_threads = pool_.n_threads();
  job.partial_o = static_cast<float*>(partials_.data());
  job.partial_totals = reinterpret_cast<RowTotal*>(job.partial_o + max_partial_rows_ * partial_width_);
  run_tasks(job);
  pool_.for_each(static_cast<int64_t>(schedule_.merges.size()),
                 [&](int64_t item, int thread) { merge_tile(job, schedule_.merges[static_cast<size_t>(item)], scratch(thread)); });
}

/// Long steps: first the tasks of a thread's own rows, whose queries and outputs its other loops read and write.
void CpuAttention::run_tasks(const AttentionJob& job) {
  const auto n_tasks = static_cast<int64_t>(schedule_.tasks.size());
  if (n_tasks == 0) return;
  const AttentionSequence& last = sequences_.back();
  const RowGroups groups(last.first_row + last.n_rows, pool_.n_threads());
  if (groups.count <= 1)
    return pool_.for_each(n_tasks, [&](int64_t item, int thread) { run_task(job, schedule_.tasks[static_cast<size_t>(item)], thread); });
  std::array<int64_t, ThreadPool::kMaxGroups + 1> begin{};
  const auto group_of = [&](const AttentionTask& task) {
    return (sequences_[static_cast<size_t>(task.sequence)].first_row + task.row / job.group()) / groups.size;
  };
  for (const AttentionTask& task : schedule_.tasks) ++begin[static_cast<size_t>(group_of(task) + 1)];
  const int64_t most = *std::max_element(begin.begin(), begin.end());
  for (size_t group = 1; group < begin.size(); ++group) begin[group] += begin[group - 1];
  order_.resize(static_cast<size_t>(n_tasks));
  std::array<int64_t, ThreadPool::kMaxGroups + 1> end = begin;
  for (int64_t i = 0; i < n_tasks; ++i)
    order_[static_cast<size_t>(end[static_cast<size_t>(group_of(schedule_.tasks[static_cast<size_t>(i)]))]++)] = static_cast<int32_t>(i);
  pool_.for_each_in_groups(groups.count, most, [&](int64_t group, int64_t item, int thread) {
    const int64_t at = begin[static_cast<size_t>(group)] + item;
    if (at < begin[static_cast<size_t>(group + 1)])
      run_task(job, schedule_.tasks[static_cast<size_t>(order_[static_cast<size_t>(at)])], thread);
  });
}

void CpuAttention::run_task(const AttentionJob& job, const AttentionTask& task, int thread) const {
  const TileScratch own = scratch(thread);
  if (!uses_matrices(job, task)) return attend_tile(job, task, own);
  std::byte* memory = static_cast<std::byte*>(matrices_.data()) + thread * MatrixScratch::bytes(matrices_head_dim_);
  if (attend_matrix(job, task, MatrixScratch::carve(memory, matrices_head_dim_), own)) return;
  AttentionJob in_float = job;  // In lower tiles, which are none of the job's tasks.
  in_float.tasks = {};
  AttentionTask part = task;
  for (int64_t done = 0; done < task.n_rows; done += part.n_rows) {
    part.row = task.row + done;
    part.n_rows = std::min(max_tile_rows(job.params->block_size), task.n_rows - done);
    attend_tile(in_float, part, own);
  }
}

void CpuAttention::run_standard(const AttentionJob& job) {
  ScheduleLimits whole = limits(job);
  whole.max_partial_rows = 0;  // No split: a row's softmax needs all its scores.
  make_schedule(schedule_, sequences_, job.visibility(), whole);
  const StandardScores layout(job);
  const Buffer scores = allocate_(static_cast<size_t>(layout.n_floats()) * sizeof(float));
  pool_.for_each(static_cast<int64_t>(schedule_.tasks.size()), [&](int64_t item, int thread) {
    const AttentionTask& task = schedule_.tasks[static_cast<size_t>(item)];
    attend_standard(job, task, scratch(thread), static_cast<float*>(scores.data()) + layout.start_of(job, task),
                    layout.stride_of(job, task));
  });
}

void CpuAttention::attention(const Batch& batch, TensorView out, ConstTensorView q, const KvStorage& kv, int64_t layer,
                             const AttentionParams& params, TensorView lse) {
  check_attention_params(params);
  const CpuKvStorage& storage = cpu_storage(kv);
  const int64_t n_rows = q.dim(0);
  check_step(batch, kv, layer, n_rows);
  MINILLM_CHECK(kv.shape().n_kv_heads == params.n_kv_heads && kv.shape().head_dim == params.head_dim, "storage of ", kv.shape().n_kv_heads,
                " heads of ", kv.shape().head_dim, ", parameters of ", params.n_kv_heads, " of ", params.head_dim);
  MINILLM_CHECK(q.n_elements() == n_rows * params.n_heads * params.head_dim && out.n_elements() == q.n_elements(), "q of ", q.n_elements(),
                ", out of ", out.n_elements(), " elements");
  MINILLM_CHECK(!lse || lse.n_elements() == n_rows * params.n_heads, "lse of ", lse.n_elements(), " elements");
  sequences_.clear();
  for (const SequenceSlice& s : batch.sequences) sequences_.push_back({s.first_row, s.n_rows, s.n_cached, s.pages});
  AttentionJob job;
  job.params = &params;
  job.kv = {.storage = &storage, .layer = layer, .element = storage.element()};
  job.q = q.f32();
  job.out = out.f32();
  job.lse = lse ? lse.f32() : nullptr;
  run(job);
}

void CpuAttention::dense_attention(TensorView out, ConstTensorView q, ConstTensorView k, ConstTensorView v, const AttentionParams& params,
                                   TensorView lse) {
  check_attention_params(params);
  const auto refuse = [](const auto&... parts) { throw Error(ErrorCode::kInvalidArgument, "attention: ", parts...); };
  if (q.rank != 4 || k.rank != 4 || v.rank != 4 || out.rank != 4) refuse("q, k, v and out must have four dimensions");
  const int64_t n_batch = q.dim(0), n_queries = q.dim(1), n_keys = k.dim(1);
  if (q.dim(2) != params.n_heads || q.dim(3) != params.head_dim)
    refuse("q has ", q.dim(2), " heads of ", q.dim(3), ", expected ", params.n_heads, " of ", params.head_dim);
  if (k.dim(0) != n_batch || k.dim(2) != params.n_kv_heads || k.dim(3) != params.head_dim)
    refuse("k is [", k.dim(0), ", ", n_keys, ", ", k.dim(2), ", ", k.dim(3), "], expected [", n_batch, ", Sk, ", params.n_kv_heads, ", ",
           params.head_dim, "]");
  if (v.shape != k.shape) refuse("v must have the shape of k");
  if (out.shape != q.shape) refuse("out must have the shape of q");
  if (lse && lse.n_elements() != n_batch * n_queries * params.n_heads) refuse("lse of ", lse.n_elements(), " elements");
  sequences_.clear();
  for (int64_t b = 0; b < n_batch; ++b) sequences_.push_back({b * n_queries, n_queries, n_keys - n_queries, nullptr});
  AttentionJob job;
  job.params = &params;
  job.kv = {.dense_k = k.f32(), .dense_v = v.f32()};
  job.q = q.f32();
  job.out = out.f32();
  job.lse = lse ? lse.f32() : nullptr;
  run(job);
}

}  // namespace minillm::cpu
