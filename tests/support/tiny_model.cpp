// tiny_model.cpp - configs, metadata and random tensors of the small models.
#include "support/tiny_model.h"

#include <cmath>

#include "support/random.h"

namespace minillm::test {
namespace {

ModelConfig tiny_config(std::string_view family) {
  ModelConfig c;
  c.architecture = family == "mistral" || family == "llama3" ? "llama" : std::string(family);
  c.name = "tiny " + std::string(family);
  c.n_layers = 2;
  c.hidden_size = 32;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = 8;
  c.ffn_size = 48;
  c.vocab_size = 96;
  c.context_length = 512;
  c.rope_base = 10000.0f;
  c.rope_dim = 8;
  c.rope_layout = c.architecture == "llama" ? RopeLayout::kInterleaved : RopeLayout::kHalves;
  if (family == "mistral") c.sliding_window = 7;
  if (family == "llama3") c.tied_embeddings = false;
  if (family == "qwen2") c.qkv_bias = true;
  if (family == "qwen3") {
    c.qk_norm = true;
    c.tied_embeddings = false;
    c.head_dim = c.rope_dim = 16;
  }
  if (family == "gemma3") {
    c.n_layers = 7;  // The sixth layer is global.
    c.n_heads = 2;
    c.n_kv_heads = 1;
    c.head_dim = c.rope_dim = 24;
    c.norm_eps = 1e-6f;
    c.activation = Activation::kGeluTanh;
    c.qk_norm = c.post_norms = true;
    c.embedding_scale = std::sqrt(32.0f);
    c.rope_base = 1e6f;
    c.local_rope_base = 10000.0f;
    c.sliding_window = 5;
    c.sliding_pattern = 6;
  }
  return c;
}

void add_keys(Keys& keys, const ModelConfig& c) {
  const std::string a = c.architecture + ".";
  keys.set("general.architecture", c.architecture);
  keys.set("general.name", c.name);
  const auto size = [&](const char* key, int64_t value) { keys.set(a + key, static_cast<uint32_t>(value)); };
  size("block_count", c.n_layers);
  size("embedding_length", c.hidden_size);
  size("feed_forward_length", c.ffn_size);
  size("attention.head_count", c.n_heads);
  size("attention.head_count_kv", c.n_kv_heads);
  size("attention.key_length", c.head_dim);
  size("attention.value_length", c.head_dim);
  size("context_length", c.context_length);
  size("vocab_size", c.vocab_size);
  size("rope.dimension_count", c.rope_dim);
  keys.set(a + "rope.freq_base", c.rope_base);
  keys.set(a + "attention.layer_norm_rms_epsilon", c.norm_eps);
  if (c.sliding_window > 0) size("attention.sliding_window", c.sliding_window);
}

class TensorMaker {
 public:
  TensorMaker(TinyModel& model, uint64_t seed) : model_(model), seed_(seed) {}

  void matrix(const std::string& name, int64_t rows, int64_t cols, double spread) {
    model_.tensors[name] = {{rows, cols}, randn(seed_++, rows * cols, spread)};
  }
  /// Norms are around one, biases around zero.
  void vector(const std::string& name, int64_t n, float mean) {
    std::vector<float> values = randn(seed_++, n, 0.2);
    for (float& v : values) v += mean;
    model_.tensors[name] = {{n}, std::move(values)};
  }

 private:
  TinyModel& model_;
  uint64_t seed_;
};

}  // namespace

std::vector<std::string> tiny_families() { return {"llama", "mistral", "llama3", "qwen2", "qwen3", "gemma3"}; }

TinyModel tiny_model(std::string_view family, uint64_t seed) {
  TinyModel model;
  model.config = tiny_config(family);
  const ModelConfig& c = model.config;
  add_keys(model.keys, c);
  TensorMaker make(model, seed * 1000);
  const double in = 1.0 / std::sqrt(static_cast<double>(c.hidden_size));
  make.matrix("token_embd.weight", c.vocab_size, c.hidden_size, 0.3);
  for (int64_t i = 0; i < c.n_layers; ++i) {
    const std::string layer = "blk." + std::to_string(i) + ".";
    make.vector(layer + "attn_norm.weight", c.hidden_size, 1.0f);
    make.matrix(layer + "attn_q.weight", c.q_size(), c.hidden_size, 2 * in);
    make.matrix(layer + "attn_k.weight", c.kv_size(), c.hidden_size, 2 * in);
    make.matrix(layer + "attn_v.weight", c.kv_size(), c.hidden_size, in);
    if (c.qkv_bias) {
      make.vector(layer + "attn_q.bias", c.q_size(), 0.0f);
      make.vector(layer + "attn_k.bias", c.kv_size(), 0.0f);
      make.vector(layer + "attn_v.bias", c.kv_size(), 0.0f);
    }
    if (c.qk_norm) {
      make.vector(layer + "attn_q_norm.weight", c.head_dim, 1.0f);
      make.vector(layer + "attn_k_norm.weight", c.head_dim, 1.0f);
    }
    make.matrix(layer + "attn_output.weight", c.hidden_size, c.q_size(), in);
    if (c.post_norms) make.vector(layer + "post_attention_norm.weight", c.hidden_size, 1.0f);
    make.vector(layer + "ffn_norm.weight", c.hidden_size, 1.0f);
    make.matrix(layer + "ffn_gate.weight", c.ffn_size, c.hidden_size, in);
    make.matrix(layer + "ffn_up.weight", c.ffn_size, c.hidden_size, in);
    make.matrix(layer + "ffn_down.weight", c.hidden_size, c.ffn_size, in);
    if (c.post_norms) make.vector(layer + "post_ffw_norm.weight", c.hidden_size, 1.0f);
  }
  make.vector("output_norm.weight", c.hidden_size, 1.0f);
  if (!c.tied_embeddings) make.matrix("output.weight", c.vocab_size, c.hidden_size, 2 * in);
  if (family == "llama3") model.tensors["rope_freqs.weight"] = {{4}, {1.0f, 1.0f, 2.5f, 8.0f}};
  return model;
}

GgufWriter TinyModel::writer() const {
  GgufWriter writer;
  keys.write(writer);
  for (const auto& [name, tensor] : tensors)
    writer.tensor(name, Dtype::kF32, tensor.shape,
                  std::string(reinterpret_cast<const char*>(tensor.values.data()), tensor.values.size() * sizeof(float)));
  return writer;
}

}  // namespace minillm::test
