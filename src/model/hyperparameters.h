// hyperparameters.h - the one table of a model's numbers: field, GGUF key, range, and what stands in for a missing key.
// ModelConfig::validate() checks every field against it; config_reader.cpp reads every key through it. A number that is
// not in this table is not read from a file.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <variant>

#include "minillm/config.h"

namespace minillm {

/// Where a number of ModelConfig comes from and what it may be.
struct Hyperparameter {
  std::string_view field;  ///< Name in ModelConfig.
  std::string_view key;    ///< GGUF key after "ARCHITECTURE."; empty where no file states it.
  std::variant<int64_t ModelConfig::*, float ModelConfig::*> member;
  double min, max;     ///< Both allowed.
  bool required;       ///< A file without the key is refused; otherwise the field keeps the value it has.
  bool zero_is_unset;  ///< 0 also means "off" or "derived" in ModelConfig. A file has to leave the key out instead.
};

inline constexpr double kMaxTokens = std::numeric_limits<int32_t>::max();  // Positions are int32.

inline constexpr Hyperparameter kHyperparameters[] = {
    {"n_layers", "block_count", &ModelConfig::n_layers, 1, 1000, true, false},
    {"hidden_size", "embedding_length", &ModelConfig::hidden_size, 1, 1 << 17, true, false},
    {"n_heads", "attention.head_count", &ModelConfig::n_heads, 1, 1024, true, false},
    {"n_kv_heads", "attention.head_count_kv", &ModelConfig::n_kv_heads, 1, 1024, false, false},
    {"head_dim", "attention.key_length", &ModelConfig::head_dim, 2, 1024, false, false},
    {"ffn_size", "feed_forward_length", &ModelConfig::ffn_size, 1, 1 << 20, true, false},
    {"vocab_size", "vocab_size", &ModelConfig::vocab_size, 1, 1 << 24, false, false},
    {"context_length", "context_length", &ModelConfig::context_length, 1, kMaxTokens, true, false},
    {"norm_eps", "attention.layer_norm_rms_epsilon", &ModelConfig::norm_eps, 1e-12, 0.1, true, false},
    {"embedding_scale", "", &ModelConfig::embedding_scale, 1e-4, 1e4, false, false},
    {"attention_scale", "attention.scale", &ModelConfig::attention_scale, 1e-6, 1e3, false, true},
    {"attention_softcap", "attn_logit_softcapping", &ModelConfig::attention_softcap, 1e-3, 1e6, false, true},
    {"logit_softcap", "final_logit_softcapping", &ModelConfig::logit_softcap, 1e-3, 1e6, false, true},
    {"rope_dim", "rope.dimension_count", &ModelConfig::rope_dim, 2, 1024, false, true},
    {"rope_base", "rope.freq_base", &ModelConfig::rope_base, 1, 1e12, false, false},
    {"local_rope_base", "rope.freq_base_swa", &ModelConfig::local_rope_base, 1, 1e12, false, true},
    {"sliding_window", "attention.sliding_window", &ModelConfig::sliding_window, 1, kMaxTokens, false, true},
    {"sliding_pattern", "attention.sliding_window_pattern", &ModelConfig::sliding_pattern, 1, 1000, false, true},
};

/// The numbers of RopeScaling, under "ARCHITECTURE.rope.scaling.". A file states them only with the kinds that use them.
struct RopeHyperparameter {
  std::string_view field;
  std::string_view key;
  std::variant<int64_t RopeScaling::*, float RopeScaling::*> member;
  double min, max;
};

inline constexpr RopeHyperparameter kRopeHyperparameters[] = {
    {"rope_scaling.factor", "rope.scaling.factor", &RopeScaling::factor, 1e-3, 1e6},
    {"rope_scaling.low_freq_factor", "rope.scaling.low_freq_factor", &RopeScaling::low_freq_factor, 1e-3, 1e6},
    {"rope_scaling.high_freq_factor", "rope.scaling.high_freq_factor", &RopeScaling::high_freq_factor, 1e-3, 1e6},
    {"rope_scaling.original_context", "rope.scaling.original_context_length", &RopeScaling::original_context, 1, kMaxTokens},
};

}  // namespace minillm
