// cpu_backend.h - the CPU as a Backend: owns the thread pool and the counted memory, and hands each operation to the part that
// does it (products.h, attention.h, the row kernels of kernels.h).
// Batch invariance: every result of a row depends on that row alone, bitwise, whatever the batch and the number of threads. With AMX
// long steps equal short ones to rounding: docs/KERNELS.md.
#pragma once

#include <memory>
#include <string>

#include "backend/backend.h"
#include "backend/cpu/attention.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/memory.h"
#include "backend/cpu/products.h"
#include "base/function_ref.h"
#include "base/thread_pool.h"

namespace minillm::cpu {

/// The table for `isa`, which must be supported.
const Kernels& kernels_of(Isa isa);

class CpuBackend : public Backend {
 public:
  CpuBackend(const BackendOptions& options, Isa isa);

  Device device() const override { return {Device::Kind::kCpu, 0}; }
  std::string description() const override;

  Buffer allocate(size_t bytes) override { return memory_.allocate(bytes); }
  void upload(void* to, const void* from_host, size_t bytes) override;
  void download(void* to_host, const void* from, size_t bytes) override;
  void sync() override {}
  bool computes_in_host_memory() const override { return true; }
  MemoryUse memory() const override { return memory_.use(); }
  void reset_peak_memory() override { memory_.reset_peak(); }
  std::unique_ptr<KvStorage> make_kv_storage(const KvShape& shape) override;
  std::unique_ptr<PackedWeight> pack(std::span<const ConstTensorView> tensors, WeightRole role, std::optional<Dtype> convert_to) override;
  void reserve_workspace(const WorkspaceShape& shape) override;

  void embed(TensorView out, const PackedWeight& table, float scale) override;
  void rope_angles(TensorView angles, std::span<const float> inverse_frequencies) override;
  void rms_norm(TensorView out, ConstTensorView x, ConstTensorView weight, float eps) override;
  void matmul(TensorView out, ConstTensorView x, const PackedWeight& w) override;
  void rotate_and_append(TensorView q, ConstTensorView qkv, const AttentionInput& w, ConstTensorView angles, KvStorage& kv,
                         int64_t layer) override;
  void attention(TensorView out, ConstTensorView q, const KvStorage& kv, int64_t layer, const AttentionParams& params,
                 TensorView lse) override;
  void dense_attention(TensorView out, ConstTensorView q, ConstTensorView k, ConstTensorView v, const AttentionParams& params,
                       TensorView lse) override;
  void add(TensorView x, ConstTensorView y) override;
  void gated_activation(TensorView out, ConstTensorView gate_up, Activation activation) override;
  void gather_rows(TensorView out, ConstTensorView x, std::span<const int32_t> rows) override;
  void softcap(TensorView x, float c) override;

  void attention_input(TensorView q, ConstTensorView x, const AttentionInput& w, ConstTensorView angles, KvStorage& kv,
                       int64_t layer) override;
  void attention_output(TensorView x, ConstTensorView attended, const PackedWeight& w, ConstTensorView post_norm, float eps) override;
  void feed_forward_input(TensorView gated, ConstTensorView x, const FeedForward& w) override;
  void feed_forward(TensorView x, const FeedForward& w) override;
  void head(TensorView logits, ConstTensorView x, std::span<const int32_t> rows, ConstTensorView norm, float eps, const PackedWeight& w,
            float softcap_value) override;

  int64_t default_block_size(int64_t head_dim) const override;
  MachinePeaks measure_peaks() override;

  /// For programs that watch its loops.
  ThreadPool& pool() noexcept { return pool_; }

 protected:
  /// The halves of feed_forward where both products are on tiles: what is between them is rounded at once.
  virtual void feed_forward_to_tiles(const RoundedRows& gated, ConstTensorView x, const FeedForward& w);
  virtual void feed_forward_from_tiles(TensorView x, const RoundedRows& gated, const FeedForward& w);

 private:
  /// x += post_norm(product), where `multiply` computes the product [T, N] of `w`.
  void add_product(TensorView x, int64_t n, ConstTensorView post_norm, float eps,
                   FunctionRef<void(TensorView projected, const Beside& beside)> multiply);
  /// Calls body(row) for every row, on the pool where the rows hold enough work.
  void for_rows(int64_t n_rows, int64_t row_elements, FunctionRef<void(int64_t row)> body);

  CountedMemory memory_;  // First: everything below may hold some of it.
  Isa isa_;
  const Kernels& kernels_;
  ThreadPool pool_;
  Products products_;
  CpuAttention attention_;
};

}  // namespace minillm::cpu
