// families.h - in what the supported model families differ. A family is a row of data here, never a copy of the graph.
//   llama   Llama 2 and 3, Mistral, SmolLM2: the plain form.    Touvron et al. 2023, arXiv:2302.13971; Jiang et al. 2023, arXiv:2310.06825.
//   qwen2   biases on q, k and v.                               Yang et al. 2024, arXiv:2407.10671.
//   qwen3   RMSNorm on each query and key head, no biases.      Yang et al. 2025, arXiv:2505.09388.
//   gemma3  scaled embeddings, norms before and after each block, q/k norms, GeGLU, 5 sliding layers to 1 global with a
//           rope base each.                                     Gemma team 2025, arXiv:2503.19786.
#pragma once

#include <span>
#include <string_view>

#include "minillm/config.h"

namespace minillm {

struct Family {
  std::string_view name;  ///< GGUF's general.architecture.
  /// GGUF's converter permutes the rows of q and k of "llama" for interleaved pairs; every other file keeps halves.
  RopeLayout gguf_rope_layout = RopeLayout::kHalves;
  Activation activation = Activation::kSilu;
  bool qkv_bias = false;
  bool qk_norm = false;
  bool post_norms = false;
  bool scaled_embeddings = false;       ///< By sqrt(E).
  bool norm_weights_minus_one = false;  ///< Hugging Face stores w - 1; GGUF's converter has added the one.
  float local_rope_base = 0.0f;         ///< Where the file does not say.
  int64_t sliding_pattern = 0;          ///< Where the file does not say, and it has a sliding window.
};

inline constexpr Family kFamilies[] = {
    {.name = "llama", .gguf_rope_layout = RopeLayout::kInterleaved},
    {.name = "qwen2", .qkv_bias = true},
    {.name = "qwen3", .qk_norm = true},
    {.name = "gemma3",
     .activation = Activation::kGeluTanh,
     .qk_norm = true,
     .post_norms = true,
     .scaled_embeddings = true,
     .norm_weights_minus_one = true,
     .local_rope_base = 10000.0f,
     .sliding_pattern = 6},
};

/// Throws Error{kUnsupported} listing the families.
const Family& family_of(std::string_view architecture);

}  // namespace minillm
