// weights.cpp - builds the weights of a model from a file or from a seed: the same walk over the layers, two providers.
#include "model/weights.h"

#include <string>
#include <unordered_set>

#include "base/bytes.h"
#include "base/half.h"
#include "io/printable.h"
#include "model/expected_tensors.h"
#include "model/families.h"
#include "model/random_values.h"
#include "model/tensor_names.h"

namespace minillm {
namespace {

constexpr float kRandomSpread = 0.02f;

std::string shape_text(const auto& shape, size_t rank) {
  std::string text = "[";
  for (size_t i = 0; i < rank; ++i) (text += i == 0 ? "" : ", ") += std::to_string(shape[i]);
  return text + "]";
}

void check_tensor(const TensorSource& source, const ExpectedTensor& expected) {
  const SourceTensor* tensor = source.find(expected.name);
  const std::string want = shape_text(expected.shape, expected.shape.size());
  if (tensor == nullptr)
    throw Error(ErrorCode::kNotFound, source.path(), ": no tensor '", expected.name, "', expected one of shape ", want);
  const ConstTensorView& view = tensor->view;
  bool fits = view.rank == static_cast<int>(expected.shape.size());
  for (size_t i = 0; fits && i < expected.shape.size(); ++i) fits = view.shape[i] == expected.shape[i];
  if (!fits)
    throw Error(ErrorCode::kCorruptFile, source.path(), ": tensor '", expected.name, "' has shape ",
                shape_text(view.shape, static_cast<size_t>(view.rank)), ", expected ", want);
  if (view.dtype == Dtype::kI32 || (expected.is_vector() && is_quantised(view.dtype)))
    throw Error(ErrorCode::kCorruptFile, source.path(), ": tensor '", expected.name, "' is ", name_of(view.dtype), ", expected ",
                expected.is_vector() ? "f32, f16 or bf16" : "a float or block type");
}

void widen(std::span<float> out, const ConstTensorView& view) {
  const auto* bits = static_cast<const uint16_t*>(view.data);
  for (size_t i = 0; i < out.size(); ++i) {
    if (view.dtype == Dtype::kF32)
      out[i] = static_cast<const float*>(view.data)[i];
    else
      out[i] = view.dtype == Dtype::kF16 ? half_to_float(bits[i]) : bfloat16_to_float(bits[i]);
  }
}

/// Where a builder takes its values from. Host memory; a matrix stays valid while its slot (0 to 2) is not asked for again.
class Provider {
 public:
  virtual ~Provider() = default;
  virtual ConstTensorView matrix(const std::string& name, int64_t rows, int64_t cols, int slot) = 0;
  virtual void vector(const std::string& name, bool is_norm, std::span<float> out) = 0;
  virtual std::vector<float> rope_factors(const ModelConfig&) { return {}; }
};

class FileProvider final : public Provider {
 public:
  FileProvider(const TensorSource& source, const TensorNames& names, bool norms_minus_one)
      : source_(source), names_(names), norms_minus_one_(norms_minus_one) {}

  ConstTensorView matrix(const std::string& name, int64_t, int64_t, int) override { return source_.find(name)->view; }

  void vector(const std::string& name, bool is_norm, std::span<float> out) override {
    widen(out, source_.find(name)->view);
    if (is_norm && norms_minus_one_)
      for (float& w : out) w += 1.0f;
  }

  std::vector<float> rope_factors(const ModelConfig& config) override {
    const SourceTensor* tensor = source_.find(names_.rope_factors());
    if (tensor == nullptr) return {};
    const int64_t n = (config.rope_dim == 0 ? config.head_dim : config.rope_dim) / 2;
    check_tensor(source_, {tensor->name, {n}});
    std::vector<float> factors(static_cast<size_t>(n));
    widen(factors, tensor->view);
    for (float factor : factors)
      if (!(factor >= 1e-6f && factor <= 1e6f))
        throw Error(ErrorCode::kCorruptFile, source_.path(), ": tensor '", tensor->name, "' holds ", factor, ", expected 1e-06 to 1e+06");
    return factors;
  }

 private:
  const TensorSource& source_;
  const TensorNames& names_;
  bool norms_minus_one_;
};

class RandomProvider final : public Provider {
 public:
  explicit RandomProvider(uint64_t seed) : seed_(seed) {}

  ConstTensorView matrix(const std::string&, int64_t rows, int64_t cols, int slot) override {
    std::vector<float>& values = slots_[slot];
    values.resize(static_cast<size_t>(rows * cols));
    fill_normal(values, seed_, n_tensors_++, kRandomSpread);
    return {values.data(), Dtype::kF32, {rows, cols}};
  }
  void vector(const std::string&, bool is_norm, std::span<float> out) override { std::ranges::fill(out, is_norm ? 1.0f : 0.0f); }

 private:
  uint64_t seed_, n_tensors_ = 0;
  std::vector<float> slots_[3];
};

class Builder {
 public:
  Builder(const ModelConfig& config, const TensorNames& names, Provider& provider, Backend& backend, std::optional<Dtype> convert_to)
      : config_(config), names_(names), provider_(provider), backend_(backend), convert_to_(convert_to) {}

  Weights build() {
    Weights weights;
    weights.layers.resize(static_cast<size_t>(config_.n_layers));
    weights.embedding = table(names_.embedding(), config_.tied_embeddings ? WeightRole::kBoth : WeightRole::kLookup);
    for (int64_t i = 0; i < config_.n_layers; ++i) build_layer(weights.layers[static_cast<size_t>(i)], i);
    add_vector(weights.final_norm, names_.final_norm(), config_.hidden_size, true);
    if (!config_.tied_embeddings) weights.output = table(names_.output(), WeightRole::kProduct);
    weights.rope_factors = provider_.rope_factors(config_);
    upload_vectors(weights);
    return weights;
  }

 private:
  void build_layer(LayerWeights& layer, int64_t i) {
    using enum LayerTensor;
    layer.qkv = product(i, {kQ, kK, kV});
    layer.output = product(i, {kAttentionOutput});
    layer.gate_up = product(i, {kGate, kUp});
    layer.down = product(i, {kDown});

    AttentionInput& attention = layer.attention;
    attention.qkv = layer.qkv.get();
    attention.norm_eps = config_.norm_eps;
    attention.n_heads = config_.n_heads;
    attention.n_kv_heads = config_.n_kv_heads;
    attention.head_dim = config_.head_dim;
    attention.rope_layout = config_.rope_layout;
    attention.rope_dim = config_.rope_dim == 0 ? config_.head_dim : config_.rope_dim;
    add_vectors(attention.norm, i, {kAttentionNorm}, true);
    if (config_.qkv_bias) add_vectors(attention.bias, i, {kQBias, kKBias, kVBias}, false);
    if (config_.qk_norm) {
      add_vectors(attention.q_norm, i, {kQNorm}, true);
      add_vectors(attention.k_norm, i, {kKNorm}, true);
    }
    if (config_.post_norms) add_vectors(layer.post_attention_norm, i, {kPostAttentionNorm}, true);

    FeedForward& feed_forward = layer.feed_forward;
    feed_forward.gate_up = layer.gate_up.get();
    feed_forward.down = layer.down.get();
    feed_forward.norm_eps = config_.norm_eps;
    feed_forward.activation = config_.activation;
    add_vectors(feed_forward.norm, i, {kFfnNorm}, true);
    if (config_.post_norms) add_vectors(feed_forward.post_norm, i, {kPostFfnNorm}, true);
  }

  std::unique_ptr<PackedWeight> table(const std::string& name, WeightRole role) {
    const ConstTensorView view = provider_.matrix(name, config_.vocab_size, config_.hidden_size, 0);
    return backend_.pack({&view, 1}, role, convert_to_);
  }

  std::unique_ptr<PackedWeight> product(int64_t layer, std::initializer_list<LayerTensor> parts) {
    std::vector<ConstTensorView> views;
    for (LayerTensor part : parts) {
      const std::vector<int64_t> shape = layer_tensor_shape(config_, part);
      views.push_back(provider_.matrix(names_.layer(layer, part), shape[0], shape[1], static_cast<int>(views.size())));
    }
    return backend_.pack(views, WeightRole::kProduct, convert_to_);
  }

  void add_vectors(ConstTensorView& view, int64_t layer, std::initializer_list<LayerTensor> parts, bool is_norm) {
    const size_t offset = start_vector(view);
    for (LayerTensor part : parts) append(names_.layer(layer, part), layer_tensor_shape(config_, part)[0], is_norm);
    vectors_.back().size = static_cast<int64_t>(values_.size() - offset);
  }
  void add_vector(ConstTensorView& view, const std::string& name, int64_t n, bool is_norm) {
    start_vector(view);
    append(name, n, is_norm);
    vectors_.back().size = n;
  }
  /// Each vector starts on a 64-byte line.
  size_t start_vector(ConstTensorView& view) {
    values_.resize(static_cast<size_t>(round_up(static_cast<int64_t>(values_.size()), 16)));
    vectors_.push_back({&view, values_.size(), 0});
    return values_.size();
  }
  void append(const std::string& name, int64_t n, bool is_norm) {
    const size_t offset = values_.size();
    values_.resize(offset + static_cast<size_t>(n));
    provider_.vector(name, is_norm, std::span(values_).subspan(offset));
  }

  void upload_vectors(Weights& weights) {
    weights.vectors = backend_.allocate(values_.size() * sizeof(float));
    backend_.upload(weights.vectors.data(), values_.data(), values_.size() * sizeof(float));
    for (const PendingVector& pending : vectors_)
      *pending.view = ConstTensorView(static_cast<const float*>(weights.vectors.data()) + pending.offset, Dtype::kF32, {pending.size});
    backend_.sync();
  }

  /// A view of the Weights being built, to be pointed at device memory once all vectors are known.
  struct PendingVector {
    ConstTensorView* view;
    size_t offset;
    int64_t size;
  };

  const ModelConfig& config_;
  const TensorNames& names_;
  Provider& provider_;
  Backend& backend_;
  std::optional<Dtype> convert_to_;
  std::vector<float> values_;
  std::vector<PendingVector> vectors_;
};

}  // namespace

int64_t Weights::bytes() const noexcept {
  int64_t total = static_cast<int64_t>(vectors.bytes()) + embedding->bytes() + (output ? output->bytes() : 0);
  for (const LayerWeights& layer : layers)
    total += layer.qkv->bytes() + layer.output->bytes() + layer.gate_up->bytes() + layer.down->bytes();
  return total;
}

void check_tensors(const ModelConfig& config, const TensorSource& source) {
  const TensorNames names(source.names_are_gguf(), config.post_norms);
  std::unordered_set<std::string> known{names.rope_factors()};
  for (ExpectedTensor& expected : expected_tensors(config, names)) {
    check_tensor(source, expected);
    known.insert(std::move(expected.name));
  }
  for (const SourceTensor& tensor : source.tensors()) {
    const bool skipped = names.ignorable(tensor.name) || (config.tied_embeddings && names.is_copy_of_tied_table(tensor.name));
    if (!known.contains(tensor.name) && !skipped)
      throw Error(ErrorCode::kUnsupported, source.path(), ": tensor ", printable(tensor.name), " is not part of a ", config.architecture,
                  " model of ", config.n_layers, " layers, expected only tensors that it reads");
  }
}

Weights load_weights(const ModelConfig& config, const TensorSource& source, Backend& backend, std::optional<Dtype> convert_to) {
  check_tensors(config, source);
  const TensorNames names(source.names_are_gguf(), config.post_norms);
  FileProvider provider(source, names, !source.names_are_gguf() && family_of(config.architecture).norm_weights_minus_one);
  return Builder(config, names, provider, backend, convert_to).build();
}

Weights random_weights(const ModelConfig& config, uint64_t seed, Backend& backend, std::optional<Dtype> convert_to) {
  const TensorNames names(true, config.post_norms);
  RandomProvider provider(seed);
  return Builder(config, names, provider, backend, convert_to).build();
}

}  // namespace minillm
