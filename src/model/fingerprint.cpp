// fingerprint.cpp - see fingerprint.h.
#include "model/fingerprint.h"

#include <algorithm>
#include <sstream>

#include "io/sha256.h"

namespace minillm {
namespace {

constexpr uint64_t kSampleBytes = 4096;

void add(Sha256& hash, const std::string& text) { hash.update(std::as_bytes(std::span(text))); }

/// Every field that a key or value depends on.
std::string text_of(const ModelConfig& c, std::optional<Dtype> convert_to) {
  std::ostringstream out;
  out.precision(9);  // Tells any two floats apart.
  for (const int64_t size : {c.n_layers, c.hidden_size, c.n_heads, c.n_kv_heads, c.head_dim, c.ffn_size, c.vocab_size, c.rope_dim,
                             c.sliding_window, c.sliding_pattern, c.rope_scaling.original_context})
    out << size << ' ';
  for (const float value : {c.norm_eps, c.embedding_scale, c.attention_scale, c.attention_softcap, c.logit_softcap, c.rope_base,
                            c.local_rope_base, c.rope_scaling.factor, c.rope_scaling.low_freq_factor, c.rope_scaling.high_freq_factor})
    out << value << ' ';
  for (const bool value : {c.tied_embeddings, c.qkv_bias, c.qk_norm, c.post_norms}) out << value << ' ';
  out << static_cast<int>(c.activation) << ' ' << static_cast<int>(c.rope_layout) << ' ' << static_cast<int>(c.rope_scaling.kind) << ' '
      << c.architecture << ' ' << (convert_to ? name_of(*convert_to) : "as stored") << '\n';
  return out.str();
}

}  // namespace

std::string fingerprint_of(const ModelConfig& config, const TensorSource& source, std::optional<Dtype> convert_to) {
  Sha256 hash;
  add(hash, text_of(config, convert_to));
  for (const SourceTensor& tensor : source.tensors()) {
    std::ostringstream line;
    line << tensor.name << ' ' << name_of(tensor.view.dtype);
    for (int i = 0; i < tensor.view.rank; ++i) line << ' ' << tensor.view.dim(i);
    add(hash, line.str() + "\n");
    const std::span bytes(static_cast<const std::byte*>(tensor.view.data), tensor.bytes);
    const uint64_t n = std::min<uint64_t>(kSampleBytes, bytes.size());
    hash.update(bytes.first(n));
    hash.update(bytes.subspan((bytes.size() - n) / 2, n));
  }
  return hash.hex();
}

std::string fingerprint_of(const ModelConfig& config, uint64_t seed, std::optional<Dtype> convert_to) {
  Sha256 hash;
  add(hash, text_of(config, convert_to) + "random " + std::to_string(seed));
  return hash.hex();
}

}  // namespace minillm
