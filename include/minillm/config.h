// config.h - what a model is: sizes, and the few switches in which the supported families differ.
// Letters: L layers, E hidden size, H query heads, G key/value heads, D head width, F feed-forward width, V vocabulary.
#pragma once

#include <cstdint>
#include <string>

#include "minillm/types.h"

namespace minillm {

enum class Activation : uint8_t { kSilu, kGeluTanh };

/// Which elements of a head are rotated together: kInterleaved pairs (2i, 2i+1), kHalves pairs (i, i + D/2) ("NeoX").
enum class RopeLayout : uint8_t { kInterleaved, kHalves };

/// Changes of the rotary frequencies for contexts longer than those trained on.
struct RopeScaling {
  enum class Kind : uint8_t { kNone, kLinear, kLlama3 };
  Kind kind = Kind::kNone;
  float factor = 1.0f;              ///< Linear: frequencies / factor. Llama 3: the low frequencies / factor.
  float low_freq_factor = 1.0f;     ///< Llama 3 only.
  float high_freq_factor = 4.0f;    ///< Llama 3 only.
  int64_t original_context = 8192;  ///< Llama 3 only: context length the model was trained with.
  friend bool operator==(const RopeScaling&, const RopeScaling&) = default;
};

/// A decoder-only transformer: RMSNorm, rotary positions, grouped-query attention, gated feed-forward.
struct ModelConfig {
  std::string architecture = "llama";  ///< "llama", "qwen2", "qwen3", "gemma3" (GGUF's names).
  std::string name;

  int64_t n_layers = 0;        ///< L
  int64_t hidden_size = 0;     ///< E
  int64_t n_heads = 0;         ///< H
  int64_t n_kv_heads = 0;      ///< G, divides H
  int64_t head_dim = 0;        ///< D, even
  int64_t ffn_size = 0;        ///< F
  int64_t vocab_size = 0;      ///< V
  int64_t context_length = 0;  ///< Longest sequence the model was made for, in tokens.

  float norm_eps = 1e-5f;
  Activation activation = Activation::kSilu;
  bool tied_embeddings = true;     ///< The output head is the embedding table.
  bool qkv_bias = false;           ///< Qwen2
  bool qk_norm = false;            ///< Qwen3, Gemma 3: RMSNorm over D of each query and key head.
  bool post_norms = false;         ///< Gemma: RMSNorm after attention and after feed-forward, before the residual add.
  float embedding_scale = 1.0f;    ///< Gemma: sqrt(E).
  float attention_scale = 0.0f;    ///< Multiplies q.k; 0 means 1/sqrt(D).
  float attention_softcap = 0.0f;  ///< c tanh(x/c) on the scores; 0 is off (Gemma 2).
  float logit_softcap = 0.0f;      ///< The same on the logits.

  RopeLayout rope_layout = RopeLayout::kHalves;
  int64_t rope_dim = 0;  ///< Leading elements of a head that are rotated; 0 means D.
  float rope_base = 10000.0f;
  RopeScaling rope_scaling;
  float local_rope_base = 0.0f;  ///< Base for sliding-window layers; 0 means rope_base, and no scaling is applied there.

  int64_t sliding_window = 0;   ///< A row sees this many newest tokens (itself included) in sliding layers; 0 is off.
  int64_t sliding_pattern = 0;  ///< Every n-th layer is global, the others slide (Gemma 3: 6); 0: every layer slides.

  Dtype kv_dtype = Dtype::kF16;  ///< Storage type of a cache made for this model, unless the cache says otherwise.

  bool layer_slides(int64_t layer) const noexcept {
    return sliding_window > 0 && (sliding_pattern == 0 || (layer + 1) % sliding_pattern != 0);
  }
  int64_t q_size() const noexcept { return n_heads * head_dim; }
  int64_t kv_size() const noexcept { return n_kv_heads * head_dim; }
  /// Weights of the model, embeddings once if tied.
  int64_t n_parameters() const noexcept;
  /// Throws Error{kInvalidArgument} naming the first field out of range, its value and the range.
  void validate() const;
};

/// Sizes to try things with. All: Llama type, vocabulary 32,000, tied embeddings, rope base 10,000, float16 cache.
struct Configs {
  static ModelConfig small();   ///< 8 layers, hidden 512, 8 heads of 64, feed-forward 1536, context 2048.
  static ModelConfig medium();  ///< 12 layers, hidden 768, 12 heads, 4 KV heads, feed-forward 2048, context 4096.
  static ModelConfig large();   ///< 24 layers, hidden 1024, 16 heads, 4 KV heads, feed-forward 2816, context 8192.
  /// A shape by name: "small", "medium", "large", "smollm2-135m", "llama-3.2-1b", "llama-3.1-8b".
  /// Throws Error{kNotFound} listing the names.
  static ModelConfig by_name(const std::string& name);
};

}  // namespace minillm
