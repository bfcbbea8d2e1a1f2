// hf_config.h - config.json and its siblings of a Hugging Face folder, as metadata under GGUF's key names.
// Source: transformers, configuration_{llama,mistral,qwen2,qwen3,gemma3}.py. Both spellings are read: rope_theta, rope_scaling,
// rope_local_base_freq, sliding_window_pattern of transformers 4, and rope_parameters (for Gemma 3 one a layer type) and layer_types
// of transformers 5. A field that is null counts as absent.
//
// Keys. A is general.architecture: "llama" (llama and mistral), "qwen2", "qwen3", "gemma3" (gemma3_text, and the text part of gemma3).
// Always there, except where a condition is given; * marks names that GGUF does not have.
//   general.architecture, general.name            text; the name is the folder's
//   A.block_count, A.embedding_length, A.feed_forward_length, A.vocab_size, A.context_length     integers
//   A.attention.head_count, A.attention.head_count_kv, A.attention.key_length, A.attention.value_length     integers
//   A.attention.layer_norm_rms_epsilon            number
//   A.attention.bias *                            boolean: q, k and v have a bias (always for qwen2; with llama's attention_bias the
//                                                 output product has one as well)
//   A.tie_word_embeddings *                       boolean: the output head is the embedding table
//   A.rope.dimension_count                        integer: rotated elements of a head
//   A.rope.freq_base                              number; for gemma3 that of the global layers
//   A.rope.freq_base_swa                          number; gemma3 only: the base of the sliding layers
//   A.rope.scaling.type                           text: "none", "linear" or "llama3"; never applies to gemma3's sliding layers
//   A.rope.scaling.factor                         number, unless "none"
//   A.rope.scaling.low_freq_factor *, A.rope.scaling.high_freq_factor *, A.rope.scaling.original_context_length
//                                                 numbers, number, integer; "llama3" only (GGUF has the tensor rope_freqs.weight instead)
//   A.attention.sliding_window                    integer, only if some layer slides: a row sees this many newest tokens, itself included
//   A.attention.sliding_window_pattern            integer n: layers n-1, 2n-1, ... (from 0) are global, all others slide. Absent where
//                                                 all slide, except for gemma3, where n is then more than the layers
//   A.attention.scale                             number, gemma3 only: multiplies q.k (query_pre_attn_scalar ^ -0.5)
//   A.attn_logit_softcapping, A.final_logit_softcapping     numbers, gemma3 only, if set
//   tokenizer.ggml.bos_token_id, tokenizer.ggml.eos_token_id, tokenizer.ggml.padding_token_id     integers, if set
//   tokenizer.ggml.eos_token_ids *                array of integers, if eos is set: every id that ends a generation, the first of them
//                                                 being eos_token_id. generation_config.json's wins over config.json's
//   tokenizer.ggml.add_bos_token, tokenizer.ggml.add_eos_token     booleans, if tokenizer_config.json has them
//   tokenizer.chat_template                       text, if there is one: chat_template.jinja, else tokenizer_config.json's (of several
//                                                 the one named "default")
// The ranges of the numbers are the model's to check; here integers must be integers and numbers finite.
// Refused as kUnsupported, each with the value: another model_type, another activation than the family's, quantised weights, MLP
// biases, other rope scalings, layer types with no fixed period, attention in both directions.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "io/tensor_source.h"

namespace minillm {

/// The texts of a model folder's files; empty where a file is absent.
struct HfTexts {
  std::string config = {}, generation_config = {}, tokenizer_config = {}, chat_template = {};
};

/// Translates `texts` (config is needed) into the keys above. `where` is the folder, for messages and general.name.
/// Throws Error{kCorruptFile} for bad JSON, a missing field or a wrong type, Error{kUnsupported} as listed above.
std::vector<std::pair<std::string, MetadataValue>> read_hf_config(const HfTexts& texts, const std::string& where);

}  // namespace minillm
