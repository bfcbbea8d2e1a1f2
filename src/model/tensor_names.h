// tensor_names.h - what each tensor is called in a file: GGUF's names and Hugging Face's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace minillm {

/// The tensors of a layer. Which of them a model has follows from its config.
enum class LayerTensor : uint8_t {
  kAttentionNorm,
  kQ,
  kK,
  kV,
  kQBias,
  kKBias,
  kVBias,
  kQNorm,
  kKNorm,
  kAttentionOutput,
  kPostAttentionNorm,
  kFfnNorm,
  kGate,
  kUp,
  kDown,
  kPostFfnNorm,
};

class TensorNames {
 public:
  /// `post_norms`: Hugging Face's Gemma gives the norm before the feed-forward another name, because
  /// "post_attention_layernorm" is taken by the norm after attention.
  explicit TensorNames(bool gguf, bool post_norms = false) : gguf_(gguf), post_norms_(post_norms) {}

  std::string embedding() const;
  std::string output() const;
  std::string final_norm() const;
  std::string layer(int64_t index, LayerTensor tensor) const;
  /// Divisors of the rotary frequencies (Llama 3 in GGUF).
  std::string rope_factors() const { return gguf_ ? "rope_freqs.weight" : ""; }
  /// Tensors that files carry but no graph reads: tables that can be computed.
  bool ignorable(std::string_view name) const;
  /// Checkpoints with tied embeddings sometimes store the table twice.
  bool is_copy_of_tied_table(std::string_view name) const;

 private:
  bool gguf_, post_norms_;
};

}  // namespace minillm
