// generator.h - generate text from prompts: the short way to use a model.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "minillm/engine.h"

namespace minillm {

struct TextGeneratorOptions {
  bool use_flash_attention = true;
  int64_t flash_block_size = 0;
  const Tokenizer* tokenizer = nullptr;  ///< Needed for stop texts and for text in callbacks.
  int64_t max_batch = 16;
  int64_t prefill_chunk = 0;  ///< As EngineOptions::prefill_chunk.
  std::optional<Dtype> kv_dtype = {};
};

struct Generation {
  std::vector<TokenId> ids;  ///< New tokens, the ending one included.
  std::string text;          ///< Their text, without stop text and end token; empty without a tokenizer.
  FinishReason finish_reason = FinishReason::kNone;
  std::string error;
};

/// Keys and values of one sequence, and the tokens that they belong to: what a conversation keeps between its turns.
struct CachedText {
  KVCache cache;  ///< Of one row.
  std::vector<TokenId> tokens = {};
};

class TextGenerator {
 public:
  /// Called for each event of generation; return false to cancel that row.
  using Callback = std::function<bool(int64_t row, const StepEvent& event)>;

  /// `model` must outlive the generator.
  explicit TextGenerator(MiniLLM& model, const TextGeneratorOptions& options = {});
  /// The default model, which must have been pulled: otherwise Error{kNotFound} says how.
  explicit TextGenerator(const TextGeneratorOptions& options = {});
  ~TextGenerator();

  /// Prompt and continuation ids of one sequence. Errors as Engine::submit; a row that failed throws Error{kInternal}.
  std::vector<TokenId> generate(const std::vector<TokenId>& prompt_ids, const GenerationOptions& options = {});
  /// Each prompt on its own, computed together; rows finish at different times. Row i uses seed + i.
  std::vector<Generation> generate_batch(const std::vector<std::vector<TokenId>>& prompts, const GenerationOptions& options = {},
                                         const Callback& callback = {});
  /// Continues `prompt_ids`, computing only what `text` does not hold yet: it keeps the tokens that it and the prompt begin with,
  /// drops the others, and afterwards holds all but the last one of the result. Same tokens as generate(). The callback is also
  /// called with an empty event before each chunk of the prompt. After an exception `text` is shorter, never wrong.
  /// Errors as Engine::submit; Error{kInvalidArgument} unless the cache fits the model, has one row and text.tokens.size() tokens.
  Generation generate_cached(CachedText& text, const std::vector<TokenId>& prompt_ids, const GenerationOptions& options = {},
                             const Callback& callback = {});
  Timings timings() const;  ///< Of the last call.

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace minillm
