// cuda_backend.h - the operations of Backend on one NVIDIA GPU (sm_80 and newer), all on one stream.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/dense_product.h"
#include "backend/cuda/kv_storage.h"
#include "backend/cuda/operations.h"
#include "backend/cuda/staging.h"
#include "backend/cuda/weight.h"

namespace minillm::cuda {

class CudaBackend : public Backend {
 public:
  /// Throws Error{kDevice} naming what is missing: the driver, the GPU, or its generation.
  explicit CudaBackend(int index);
  ~CudaBackend() override;

  Device device() const override { return {Device::Kind::kCuda, index_}; }
  std::string description() const override { return description_; }

  Buffer allocate(size_t bytes) override;
  void upload(void* to, const void* from_host, size_t bytes) override;
  void download(void* to_host, const void* from, size_t bytes) override;
  void sync() override;
  MemoryUse memory() const override { return *memory_; }
  void reset_peak_memory() override { memory_->peak = memory_->current; }
  std::unique_ptr<KvStorage> make_kv_storage(const KvShape& shape) override;
  std::unique_ptr<PackedWeight> pack(std::span<const ConstTensorView> tensors, WeightRole role, std::optional<Dtype> convert_to) override;
  void reserve_workspace(const WorkspaceShape& shape) override;
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

  void attention_input(TensorView q, ConstTensorView x, const AttentionInput& w, ConstTensorView angles, KvStorage& kv,
                       int64_t layer) override;
  void attention_output(TensorView x, ConstTensorView attended, const PackedWeight& w, ConstTensorView post_norm, float eps) override;
  void feed_forward_input(TensorView gated, ConstTensorView x, const FeedForward& w) override;
  void feed_forward(TensorView x, const FeedForward& w) override;
  void head(TensorView logits, ConstTensorView x, std::span<const int32_t> rows, ConstTensorView norm, float eps, const PackedWeight& w,
            float softcap_value) override;

  AttentionTypes attention_types(const AttentionParams& params, const KvStorage& kv, const PackedWeight& output) const override;

  bool prefers_whole_steps() const override { return true; }
  void repeat(const StepKey& key, const std::function<void()>& work) override;
  void begin_choice(std::span<const Draw> draws) override;
  void choose(ConstTensorView logits, bool draws) override;
  std::unique_ptr<PendingTokens> make_pending_tokens(int64_t max_rows) override;
  void send_chosen(PendingTokens& to) override;

  int64_t default_block_size(int64_t) const override { return 128; }
  MachinePeaks measure_peaks() override;

 private:
  /// Device memory that is kept and grows when more is asked for.
  void* keep(Buffer& buffer, size_t bytes);
  /// A short host array in device memory, for good: there are only a few of them.
  const float* constants(std::span<const float> values);
  void lay_out_step(int64_t page_tokens);
  void reserve_choice(int64_t n_rows);
  /// What was chosen takes the place of the step's tokens, so that the next step of the same rows finds it there.
  int32_t* chosen() { return static_cast<int32_t*>(step_buffer_.data()); }
  const DeviceStep& step_on(const CudaKvStorage& kv);
  void* decode_scratch(int64_t n_rows, const AttentionScalars& scalars);
  AttentionScalars scalars_of(const AttentionParams& params);
  void attend(TensorView out, ConstTensorView q, const KeyLayout& layout, const AttentionRows& rows, const AttentionParams& params,
              TensorView lse, int64_t max_keys);

  /// The stream, after the products that still wait to be joined have gone to it: every operation but a product takes it from here.
  cudaStream_t stream();
  /// In a whole step, products wait for those that follow them, to become one kernel (product_chain.cu).
  void multiply(const FewTokenProduct& p);
  void few_tokens(TensorView out, ConstTensorView x, const CudaWeight& w, ConstTensorView norm, float eps, Epilogue epilogue,
                  bool gelu = false);
  static AppendInputs append_inputs(ConstTensorView qkv, const AttentionInput& w, ConstTensorView angles);
  void plain_tokens(TensorView out, ConstTensorView x, const DeviceTensor& tensor);
  void many_tokens(TensorView out, ConstTensorView x, const CudaWeight& weight);
  // cuda_many_tokens.cpp: steps of more than kFewTokens rows.
  struct DenseOutput {
    void* data;
    Dtype dtype;
    int64_t stride;  ///< In elements.
    bool add;
  };
  /// The 16-bit type that all tensors of `w` are multiplied in, if there is one and inputs need no padding.
  static std::optional<Dtype> narrow_type(const PackedWeight& w);
  void dense_product(const DenseOutput& out, const void* inputs, const DeviceTensor& tensor, int64_t n_tokens);
  void dense_products(const DenseOutput& out, const void* inputs, const PackedWeight& w, int64_t n_tokens);
  const void* normed(ConstTensorView x, ConstTensorView weight, float eps, Dtype as);
  void add_product(TensorView x, const void* inputs, const PackedWeight& w, ConstTensorView post_norm, float eps);
  void many_attention_input(TensorView q, ConstTensorView x, const AttentionInput& w, ConstTensorView angles, KvStorage& kv, int64_t layer);
  void many_attention_output(TensorView x, ConstTensorView attended, const PackedWeight& w, ConstTensorView post_norm, float eps);
  void many_feed_forward(TensorView x, const FeedForward& w);
  void narrow_attention(TensorView out, ConstTensorView q, const CudaKvStorage& kv, int64_t layer, const AttentionParams& params,
                        TensorView lse);
  /// The step's pages of a layer of an 8-bit cache in float16, with block tables of their own.
  struct WideKeys {
    KeyLayout layout;
    const int32_t* tables;
  };
  WideKeys widened(const CudaKvStorage& kv, int64_t layer, const DeviceStep& step);
  /// Whether products with `w` take norms and epilogues along.
  static bool fuses(const PackedWeight& w, int64_t n_rows);
  /// `work`, in which attention_input may leave its end to attention.
  void whole_step(const std::function<void()>& work);
  cudaGraphExec_t capture(const std::function<void()>& work);
  void forget_records();

  struct Constants {
    std::vector<float> host;
    Buffer device;
  };
  struct Record {
    StepKey key;
    cudaGraphExec_t graph = nullptr;  ///< Null: seen once.
  };
  static constexpr size_t kMostRecords = 128;

  int index_;
  int n_multiprocessors_ = 0;
  bool has_wgmma_ = false;  ///< sm_90: the kernels under sm90/ run.
  /// Blocks of a chain wait for each other, so two chains at once could keep each other from running: one backend a device makes them.
  bool may_chain_ = false;
  std::vector<FewTokenProduct> joined_;
  std::string description_;
  cudaStream_t stream_ = nullptr;                                      ///< Operations use stream().
  std::shared_ptr<MemoryUse> memory_ = std::make_shared<MemoryUse>();  ///< Shared with the buffers, which may outlive the backend.
  int64_t n_allocations_ = 0;
  Buffer step_buffer_, rows_buffer_, narrow_, weights_, split_inputs_, split_gated_, decode_, argmax_scratch_, tickets_, draws_,
      draw_scratch_, chain_barrier_, wide_keys_, wide_tables_;
  std::vector<Constants> constants_;
  std::vector<Record> records_;
  /// In a whole step nobody looks at q: attention appends and rotates for itself, which is a kernel less a layer.
  struct LeftToAttention {
    AppendInputs inputs;
    const void* q = nullptr;
    const KvStorage* kv = nullptr;
    int64_t layer = 0;
  };
  bool in_whole_step_ = false;
  std::optional<LeftToAttention> left_to_attention_;
  Staging staging_;
  int64_t n_chosen_ = 0;
  size_t decode_counters_ = 0;  ///< Bytes of counters at the beginning of decode_.
  std::vector<int32_t> step_host_;
  DeviceStep step_;
  int64_t step_page_tokens_ = 0;  ///< Page size that step_'s block tables were laid out for; 0: not yet.
  std::unique_ptr<DenseProduct> dense_;
};

}  // namespace minillm::cuda
