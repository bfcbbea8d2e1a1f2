// cuda_backend.cpp - memory, steps, and the choice of a kernel for each operation.
#include "backend/cuda/cuda_backend.h"

#include <algorithm>

#include "backend/cuda/check.h"
#include "base/bytes.h"
#include "base/check.h"
#include "minillm/metrics.h"

namespace minillm {

std::unique_ptr<Backend> make_cuda_backend(int index, const BackendOptions&) { return std::make_unique<cuda::CudaBackend>(index); }

}  // namespace minillm

namespace minillm::cuda {
namespace {

/// Up to this many tokens a weight is read in place, eight at a time; decode is bitwise the same in any batch up to it.
constexpr int64_t kFewTokens = 64;
constexpr size_t kDequantisedBytes = size_t{64} << 20;  ///< Of a weight at a time, for the dense product.

const CudaWeight& own(const PackedWeight& w) {
  const auto* weight = dynamic_cast<const CudaWeight*>(&w);
  if (weight == nullptr) throw Error(ErrorCode::kInvalidArgument, "cuda: the weight was packed by another backend");
  return *weight;
}

const CudaKvStorage& own(const KvStorage& kv) {
  const auto* storage = dynamic_cast<const CudaKvStorage*>(&kv);
  if (storage == nullptr) throw Error(ErrorCode::kInvalidArgument, "cuda: a key/value cache of another device");
  return *storage;
}

const float* floats_or_null(ConstTensorView view) { return view ? view.f32() : nullptr; }

}  // namespace

CudaBackend::CudaBackend(int index) : index_(index) {
  int n_devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&n_devices);
  if (status != cudaSuccess) throw Error(ErrorCode::kDevice, "cuda: no usable driver: ", cudaGetErrorString(status));
  if (index < 0 || index >= n_devices) throw Error(ErrorCode::kDevice, "cuda:", index, ": this machine has ", n_devices, " GPU(s)");
  MINILLM_CUDA(cudaSetDevice(index));
  cudaDeviceProp properties{};
  MINILLM_CUDA(cudaGetDeviceProperties(&properties, index));
  if (properties.major < 8)
    throw Error(ErrorCode::kUnsupported, "cuda:", index, ": ", properties.name, " is sm_", properties.major, properties.minor,
                "; sm_80 or newer is needed");
  description_ = "cuda:" + std::to_string(index) + " (" + properties.name + ")";
  MINILLM_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
}

CudaBackend::~CudaBackend() {
  (void)cudaStreamSynchronize(stream_);
  (void)cudaStreamDestroy(stream_);
}

Buffer CudaBackend::allocate(size_t bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, std::max<size_t>(bytes, 1));
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();  // The caller may recover, and the next launch check must not see it.
    throw Error(ErrorCode::kOutOfMemory, "cuda: no room for ", readable_bytes(bytes));
  }
  check(status, "cudaMalloc");
  memory_->current += static_cast<int64_t>(bytes);
  memory_->peak = std::max(memory_->peak, memory_->current);
  return {data, bytes, [memory = memory_, bytes](void* p) {
            memory->current -= static_cast<int64_t>(bytes);
            (void)cudaFree(p);  // Waits for queued kernels that may use it.
          }};
}

void CudaBackend::upload(void* to, const void* from_host, size_t bytes) {
  if (bytes == 0) return;
  MINILLM_CUDA(cudaMemcpyAsync(to, from_host, bytes, cudaMemcpyHostToDevice, stream_));
  MINILLM_CUDA(cudaStreamSynchronize(stream_));
}

void CudaBackend::download(void* to_host, const void* from, size_t bytes) {
  if (bytes > 0) MINILLM_CUDA(cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, stream_));
  MINILLM_CUDA(cudaStreamSynchronize(stream_));
}

void CudaBackend::sync() { MINILLM_CUDA(cudaStreamSynchronize(stream_)); }

std::unique_ptr<KvStorage> CudaBackend::make_kv_storage(const KvShape& shape) {
  return std::make_unique<CudaKvStorage>(shape, index_, stream_);
}

std::unique_ptr<PackedWeight> CudaBackend::pack(std::span<const ConstTensorView> tensors, WeightRole, std::optional<Dtype> convert_to) {
  return pack_weight(*this, tensors, convert_to);
}

void* CudaBackend::keep(Buffer& buffer, size_t bytes) {
  if (buffer.bytes() < bytes) {
    buffer = Buffer();  // Freed first: both at once may not fit.
    buffer = allocate(bytes);
  }
  return buffer.data();
}

const float* CudaBackend::small_upload(Buffer& buffer, std::span<const float> values) {
  if (values.empty()) return nullptr;
  void* data = keep(buffer, values.size_bytes());
  MINILLM_CUDA(cudaMemcpyAsync(data, values.data(), values.size_bytes(), cudaMemcpyHostToDevice, stream_));
  return static_cast<const float*>(data);
}

void CudaBackend::reserve_workspace(const WorkspaceShape& shape) {
  Backend::reserve_workspace(shape);
  const int64_t widest = std::max({shape.hidden, shape.ffn, shape.n_heads * shape.head_dim});
  keep(narrow_, static_cast<size_t>(shape.max_rows * widest) * sizeof(uint16_t));
  keep(step_buffer_, static_cast<size_t>(5 * shape.max_rows + shape.max_sequences * ceil_div(shape.max_context, 16)) * sizeof(int32_t));
  keep(rows_buffer_, static_cast<size_t>(std::max<int64_t>(shape.max_logit_rows, 1)) * sizeof(int32_t));
}

void CudaBackend::begin_step(const Batch& batch) {
  Backend::begin_step(batch);
  step_page_tokens_ = 0;
  // Tokens and positions are needed before any cache is named.
  const size_t n = batch.tokens.size();
  step_host_.assign(batch.tokens.begin(), batch.tokens.end());
  step_host_.insert(step_host_.end(), batch.positions.begin(), batch.positions.end());
  auto* data = static_cast<int32_t*>(keep(step_buffer_, std::max<size_t>(5 * n, 1) * sizeof(int32_t)));
  if (n > 0) MINILLM_CUDA(cudaMemcpyAsync(data, step_host_.data(), 2 * n * sizeof(int32_t), cudaMemcpyHostToDevice, stream_));
  step_ = {data, data + n, nullptr, nullptr, nullptr, nullptr, static_cast<int64_t>(n)};
}

const DeviceStep& CudaBackend::step_on(const CudaKvStorage& kv) {
  const int64_t page_tokens = kv.shape().page_tokens;
  if (step_page_tokens_ == page_tokens) return step_;
  const size_t n = static_cast<size_t>(step_.n_rows);
  step_host_.resize(2 * n);
  std::vector<int32_t> tables;
  std::vector<int32_t> slots, counts, starts;
  for (const SequenceSlice& sequence : batch_.sequences) {
    const int64_t n_keys = sequence.n_cached + sequence.n_rows;
    for (int64_t i = 0; i < sequence.n_rows; ++i) {
      slots.push_back(static_cast<int32_t>(sequence.n_cached + i));
      counts.push_back(static_cast<int32_t>(n_keys));
      starts.push_back(static_cast<int32_t>(tables.size()));
    }
    if (sequence.n_rows > 0) tables.insert(tables.end(), sequence.pages, sequence.pages + ceil_div(n_keys, page_tokens));
  }
  for (const std::vector<int32_t>& part : {slots, counts, starts, tables}) step_host_.insert(step_host_.end(), part.begin(), part.end());
  auto* data = static_cast<int32_t*>(keep(step_buffer_, std::max<size_t>(step_host_.size(), 1) * sizeof(int32_t)));
  MINILLM_CUDA(cudaMemcpyAsync(data, step_host_.data(), step_host_.size() * sizeof(int32_t), cudaMemcpyHostToDevice, stream_));
  step_ = {data, data + n, data + 2 * n, data + 3 * n, data + 5 * n, data + 4 * n, step_.n_rows};
  step_page_tokens_ = page_tokens;
  return step_;
}

void CudaBackend::embed(TensorView out, const PackedWeight& table, float scale) {
  const CudaWeight& weight = own(table);
  if (weight.tensors.size() != 1) throw Error(ErrorCode::kUnsupported, "cuda: an embedding of several tensors");
  cuda::embed(out.f32(), weight.tensors[0], step_.tokens, out.dim(0), scale, stream_);
}

void CudaBackend::rope_angles(TensorView angles, std::span<const float> inverse_frequencies) {
  const float* frequencies = small_upload(frequencies_, inverse_frequencies);
  cuda::rope_angles(angles.f32(), step_.positions, frequencies, angles.dim(0), static_cast<int64_t>(inverse_frequencies.size()), stream_);
}

void CudaBackend::rms_norm(TensorView out, ConstTensorView x, ConstTensorView weight, float eps) {
  cuda::rms_norm(out.f32(), x.f32(), weight.f32(), x.dim(0), x.dim(1), eps, stream_);
}

void CudaBackend::matmul(TensorView out, ConstTensorView x, const PackedWeight& w) {
  const CudaWeight& weight = own(w);
  const int64_t n_tokens = out.dim(0), k = weight.cols(), n = weight.rows();
  if (n_tokens <= kFewTokens) {
    for (int64_t t = 0; t < n_tokens; t += 8)
      for (const DeviceTensor& tensor : weight.tensors)
        few_token_product(out.f32() + t * n, n, x.f32() + t * k, tensor, std::min<int64_t>(8, n_tokens - t), stream_);
    return;
  }
  if (!dense_) dense_ = std::make_unique<DenseProduct>(allocate(DenseProduct::kWorkspaceBytes));
  using Codes = DeviceTensor::Codes;
  const void* inputs = nullptr;
  std::optional<Dtype> inputs_as;
  for (const DeviceTensor& tensor : weight.tensors) {
    const Dtype as = tensor.codes == Codes::kF32 ? Dtype::kF32 : tensor.codes == Codes::kF16 ? Dtype::kF16 : Dtype::kBF16;
    if (inputs_as != as) {
      inputs = x.data;
      if (as != Dtype::kF32) {
        void* narrow = keep(narrow_, static_cast<size_t>(n_tokens * k) * sizeof(uint16_t));
        convert(narrow, as, x.f32(), n_tokens * k, stream_);
        inputs = narrow;
      }
      inputs_as = as;
    }
    if (tensor.codes != Codes::kNibbles && tensor.codes != Codes::kBytes) {
      dense_->run(out.f32() + tensor.first_row, n, inputs, tensor.data, as, n_tokens, tensor.rows, k, stream_);
      continue;
    }
    const int64_t chunk = std::clamp<int64_t>(static_cast<int64_t>(kDequantisedBytes) / (2 * k), 1, tensor.rows);
    void* plain = keep(weights_, static_cast<size_t>(chunk * k) * sizeof(uint16_t));
    for (int64_t row = 0; row < tensor.rows; row += chunk) {
      const int64_t rows = std::min(chunk, tensor.rows - row);
      dequantise(plain, as, tensor, row, rows, stream_);
      dense_->run(out.f32() + tensor.first_row + row, n, inputs, plain, as, n_tokens, rows, k, stream_);
    }
  }
}

void CudaBackend::rotate_and_append(TensorView q, ConstTensorView qkv, const AttentionInput& w, ConstTensorView angles, KvStorage& kv,
                                    int64_t layer) {
  const CudaKvStorage& storage = own(kv);
  const AppendShape shape{static_cast<int>(w.n_heads),
                          static_cast<int>(w.n_kv_heads),
                          static_cast<int>(w.head_dim),
                          static_cast<int>(w.rope_dim),
                          w.rope_layout,
                          w.norm_eps};
  cuda::rotate_and_append(q.f32(), qkv.f32(), floats_or_null(w.bias), floats_or_null(w.q_norm), floats_or_null(w.k_norm), angles.f32(),
                          shape, step_on(storage), storage.layout(layer), stream_);
}

AttentionScalars CudaBackend::scalars_of(const AttentionParams& p) {
  return {static_cast<int>(p.n_heads),
          static_cast<int>(p.n_kv_heads),
          static_cast<int>(p.head_dim),
          p.scale,
          p.softcap,
          p.causal,
          p.window,
          small_upload(alibi_, p.alibi_slopes),
          small_upload(sinks_, p.sinks)};
}

void CudaBackend::attend(TensorView out, ConstTensorView q, const KeyLayout& layout, const AttentionRows& rows,
                         const AttentionParams& params, TensorView lse, int64_t max_keys) {
  const AttentionScalars scalars = scalars_of(params);
  float* lse_data = lse ? lse.f32() : nullptr;
  if (params.flash) {
    flash_attention(out.f32(), lse_data, q.f32(), layout, rows, scalars, stream_);
    return;
  }
  const Buffer scores = allocate(static_cast<size_t>(rows.n_rows * params.n_heads * std::max<int64_t>(max_keys, 1)) * sizeof(float));
  standard_attention(out.f32(), lse_data, q.f32(), layout, rows, scalars, static_cast<float*>(scores.data()), max_keys, stream_);
}

void CudaBackend::attention(TensorView out, ConstTensorView q, const KvStorage& kv, int64_t layer, const AttentionParams& params,
                            TensorView lse) {
  const CudaKvStorage& storage = own(kv);
  int64_t max_keys = 0;
  for (const SequenceSlice& sequence : batch_.sequences) max_keys = std::max(max_keys, sequence.n_cached + sequence.n_rows);
  attend(out, q, storage.layout(layer), {step_on(storage), step_.n_rows, 0, 0}, params, lse, max_keys);
}

void CudaBackend::dense_attention(TensorView out, ConstTensorView q, ConstTensorView k, ConstTensorView v, const AttentionParams& params,
                                  TensorView lse) {
  const int64_t n_keys = k.dim(1), width = params.n_kv_heads * params.head_dim;
  const KeyLayout layout{k.data, v.data, k.dtype, 0, 0, width, params.head_dim, n_keys * width};
  attend(out, q, layout, {{}, q.dim(0) * q.dim(1), q.dim(1), n_keys}, params, lse, n_keys);
}

void CudaBackend::add(TensorView x, ConstTensorView y) { cuda::add(x.f32(), y.f32(), x.n_elements(), stream_); }

void CudaBackend::gated_activation(TensorView out, ConstTensorView gate_up, Activation activation) {
  cuda::gated_activation(out.f32(), gate_up.f32(), out.dim(0), out.dim(1), activation, stream_);
}

void CudaBackend::gather_rows(TensorView out, ConstTensorView x, std::span<const int32_t> rows) {
  if (rows.empty()) return;
  auto* device_rows = static_cast<int32_t*>(keep(rows_buffer_, rows.size_bytes()));
  MINILLM_CUDA(cudaMemcpyAsync(device_rows, rows.data(), rows.size_bytes(), cudaMemcpyHostToDevice, stream_));
  cuda::gather_rows(out.f32(), x.f32(), device_rows, static_cast<int64_t>(rows.size()), x.dim(1), stream_);
}

void CudaBackend::softcap(TensorView x, float c) { cuda::softcap(x.f32(), x.n_elements(), c, stream_); }

MachinePeaks CudaBackend::measure_peaks() {
  constexpr size_t kBytes = size_t{1} << 30;
  constexpr int64_t kSide = 8192;
  const Buffer from = allocate(kBytes), to = allocate(kBytes);
  if (!dense_) dense_ = std::make_unique<DenseProduct>(allocate(DenseProduct::kWorkspaceBytes));
  cudaEvent_t begin = nullptr, end = nullptr;
  MINILLM_CUDA(cudaEventCreate(&begin));
  MINILLM_CUDA(cudaEventCreate(&end));
  const auto seconds = [&](auto&& work) {
    double best = 0;
    for (int i = 0; i < 4; ++i) {  // The first warms up.
      MINILLM_CUDA(cudaEventRecord(begin, stream_));
      work();
      MINILLM_CUDA(cudaEventRecord(end, stream_));
      MINILLM_CUDA(cudaEventSynchronize(end));
      float ms = 0;
      MINILLM_CUDA(cudaEventElapsedTime(&ms, begin, end));
      best = best == 0 ? ms : std::min<double>(best, ms);
    }
    return best * 1e-3;
  };
  MachinePeaks peaks;
  peaks.read_gb_s = 2e-9 * static_cast<double>(kBytes) /
                    seconds([&] { MINILLM_CUDA(cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, stream_)); });
  peaks.float_gflop_s =
      2e-9 * static_cast<double>(kSide * kSide * kSide) / seconds([&] {
        dense_->run(static_cast<float*>(to.data()), kSide, from.data(), from.data(), Dtype::kBF16, kSide, kSide, kSide, stream_);
      });
  (void)cudaEventDestroy(begin);
  (void)cudaEventDestroy(end);
  return peaks;
}

}  // namespace minillm::cuda
