// reference_backend.h - the oracle: every operation as a plain loop in double precision, float32 between operations.
// It is what the other backends are compared with, so it is written to be read and is never optimised; single thread.
// Numerics: each output is rounded once, from double. A row's result depends on that row and the keys it sees alone.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace minillm::reference {

/// A weight as float32 [N, K]: dequantised, and rounded to another type first where that was asked for.
class ReferenceWeight : public PackedWeight {
 public:
  ReferenceWeight(int64_t rows, int64_t cols, Buffer values) : PackedWeight(rows, cols), values_(std::move(values)) {}
  int64_t bytes() const noexcept override { return rows() * cols() * static_cast<int64_t>(sizeof(float)); }
  float* row(int64_t n) noexcept { return static_cast<float*>(values_.data()) + n * cols(); }
  const float* row(int64_t n) const noexcept { return static_cast<const float*>(values_.data()) + n * cols(); }

 private:
  Buffer values_;
};

class ReferenceBackend : public Backend {
 public:
  Device device() const override { return {Device::Kind::kReference, 0}; }
  std::string description() const override { return "reference (double precision, 1 thread)"; }

  Buffer allocate(size_t bytes) override;
  void upload(void* to, const void* from_host, size_t bytes) override;
  void download(void* to_host, const void* from, size_t bytes) override;
  void sync() override {}
  bool computes_in_host_memory() const override { return true; }
  MemoryUse memory() const override { return *memory_; }
  void reset_peak_memory() override { memory_->peak = memory_->current; }
  std::unique_ptr<KvStorage> make_kv_storage(const KvShape& shape) override;
  std::unique_ptr<PackedWeight> pack(std::span<const ConstTensorView> tensors, WeightRole role, std::optional<Dtype> convert_to) override;
  void begin_step(const Batch& batch) override;

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

  int64_t default_block_size(int64_t) const override { return 128; }
  MachinePeaks measure_peaks() override;

 private:
  std::shared_ptr<MemoryUse> memory_ = std::make_shared<MemoryUse>();  ///< Shared with the buffers, which may outlive the backend.
};

/// Elements of one row of a view whose first dimension counts rows.
inline int64_t width(ConstTensorView view) {
  int64_t n = 1;
  for (int i = 1; i < view.rank; ++i) n *= view.dim(i);
  return n;
}

/// A view's dtype widened to double, element `i`.
double load(ConstTensorView view, int64_t i);

}  // namespace minillm::reference
