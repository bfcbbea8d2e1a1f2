// model.cpp - loading and making models.
#include "minillm/model.h"

#include <algorithm>
#include <bit>

#include "base/bytes.h"
#include "io/tensor_source.h"
#include "model/config_reader.h"
#include "model/fingerprint.h"
#include "model/model_impl.h"

namespace minillm {
namespace {

constexpr int64_t kFirstLogitRows = 16;  // More are reserved by the first call that wants them.

void check_block_size(int64_t block_size) {
  const bool power_of_two = block_size > 0 && std::has_single_bit(static_cast<uint64_t>(block_size));
  if (block_size != 0 && !(power_of_two && block_size >= 16 && block_size <= 1024))
    throw Error(ErrorCode::kInvalidArgument, "flash_block_size is ", block_size, ", expected 0 or a power of two from 16 to 1024");
}

/// The config with what the caller asked for; each option is checked.
ModelConfig with_options(ModelConfig config, const LoadOptions& options) {
  if (options.context_length < 0)
    throw Error(ErrorCode::kInvalidArgument, "context_length is ", options.context_length, ", expected 0 (the model's) or more");
  if (options.context_length > 0) config.context_length = options.context_length;
  if (options.kv_dtype) config.kv_dtype = *options.kv_dtype;
  if (options.dtype && *options.dtype != Dtype::kF32 && *options.dtype != Dtype::kF16 && *options.dtype != Dtype::kBF16)
    throw Error(ErrorCode::kInvalidArgument, "dtype is ", name_of(*options.dtype), ", expected f32, f16 or bf16");
  if (options.n_threads < 0)
    throw Error(ErrorCode::kInvalidArgument, "n_threads is ", options.n_threads, ", expected 0 (every core) or more");
  check_block_size(options.flash_block_size);
  config.validate();
  return config;
}

}  // namespace

MiniLLM::Impl::Impl(const ModelConfig& config_in, std::shared_ptr<Backend> backend_in, Weights weights_in, int64_t block_size_in)
    : config(config_in),
      backend(std::move(backend_in)),
      weights(std::move(weights_in)),
      workspace(config, *backend),
      transformer(config, weights, *backend, workspace),
      device(backend->device()),
      block_size(block_size_in != 0 ? block_size_in : backend->default_block_size(config.head_dim)) {
  workspace.reserve({.max_rows = kStepRows, .max_logit_rows = kFirstLogitRows, .max_sequences = kFirstLogitRows});
}

std::unique_ptr<PagedCache> MiniLLM::Impl::make_cache(int64_t n_rows, int64_t max_pages, Dtype dtype) const {
  const KvShape shape{.n_layers = config.n_layers,
                      .n_kv_heads = config.n_kv_heads,
                      .head_dim = config.head_dim,
                      .page_tokens = kPageTokens,
                      .max_pages = max_pages,
                      .dtype = dtype};
  return std::make_unique<PagedCache>(backend, shape, n_rows, /*preallocate=*/false);
}

AttentionMode MiniLLM::Impl::attention_mode(bool flash, int64_t flash_block_size) const {
  check_block_size(flash_block_size);
  return {.flash = flash, .block_size = flash_block_size != 0 ? flash_block_size : block_size};
}

int64_t MiniLLM::Impl::step_rows(int64_t wanted) const {
  return wanted > 0 ? wanted : default_step_rows(device.kind, config.context_length);
}

int64_t default_step_rows(Device::Kind kind, int64_t context_length) {
  const int64_t fastest = kind == Device::Kind::kCuda ? 2048 : kStepRows;
  return std::min(fastest, std::max(kStepRows, context_length));
}

MiniLLM::MiniLLM(const ModelConfig& config, const LoadOptions& options) {
  const ModelConfig checked = with_options(config, options);
  std::shared_ptr<Backend> backend = make_backend(options.device, {.n_threads = options.n_threads});
  Weights weights = random_weights(checked, options.seed, *backend, options.dtype);
  impl_ = std::make_unique<Impl>(checked, std::move(backend), std::move(weights), options.flash_block_size);
  impl_->fingerprint = fingerprint_of(checked, options.seed, options.dtype);
}

MiniLLM MiniLLM::load(const std::string& path, const LoadOptions& options) {
  const std::unique_ptr<TensorSource> source = open_tensor_source(path);
  const ModelConfig config = with_options(read_config(*source), options);
  check_tensors(config, *source);
  std::shared_ptr<Backend> backend = make_backend(options.device, {.n_threads = options.n_threads});
  Weights weights = load_weights(config, *source, *backend, options.dtype);
  std::string fingerprint = fingerprint_of(config, *source, options.dtype);
  source->check_unchanged();  // What was copied is what was checked.
  auto impl = std::make_unique<Impl>(config, std::move(backend), std::move(weights), options.flash_block_size);
  impl->fingerprint = std::move(fingerprint);
  return MiniLLM(std::move(impl));
}

MiniLLM::MiniLLM(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MiniLLM::~MiniLLM() = default;
MiniLLM::MiniLLM(MiniLLM&&) noexcept = default;
MiniLLM& MiniLLM::operator=(MiniLLM&&) noexcept = default;

Tensor MiniLLM::forward(const Tensor& input_ids, const ForwardOptions& options) { return impl_->forward(input_ids, options); }

const ModelConfig& MiniLLM::config() const noexcept { return impl_->config; }

const Device& MiniLLM::device() const noexcept { return impl_->device; }
int64_t MiniLLM::step_rows() const { return impl_->step_rows(); }
std::string MiniLLM::device_description() const { return impl_->backend->description(); }
int64_t MiniLLM::flash_block_size() const noexcept { return impl_->block_size; }
const std::string& MiniLLM::fingerprint() const noexcept { return impl_->fingerprint; }
int64_t MiniLLM::weight_bytes() const noexcept { return impl_->weights.bytes(); }

MemoryReport MiniLLM::memory() const {
  const MemoryUse use = impl_->backend->memory();
  const int64_t weights = impl_->weights.bytes();
  return {.weights = weights, .workspace = use.current - weights, .peak = use.peak};
}

MachinePeaks MiniLLM::measure_peaks() { return impl_->backend->measure_peaks(); }

}  // namespace minillm
