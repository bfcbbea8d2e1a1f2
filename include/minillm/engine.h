// engine.h - many sequences at once: continuous batching with chunked prefill over one paged cache.
// submit() queues, step() advances everything by one forward pass, cancel() ends one request and touches no other.
// Threads: cancel() from any thread; everything else from one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "minillm/metrics.h"
#include "minillm/model.h"
#include "minillm/tokenizer.h"

namespace minillm {

/// How the next token is chosen. Order: penalties, temperature, top-k, top-p, min-p, then the draw.
/// Sources: top-p Holtzman et al. 2019, arXiv:1904.09751; min-p Nguyen et al. 2024, arXiv:2407.01082; repetition Keskar et al. 2019,
/// arXiv:1909.05858.
struct GenerationOptions {
  int64_t max_new_tokens = 128;
  float temperature = 0.0f;         ///< 0 is greedy.
  int64_t top_k = 0;                ///< Keep the k most likely; 0 is off.
  float top_p = 1.0f;               ///< Keep the smallest set of at least this probability; (0, 1].
  float min_p = 0.0f;               ///< Drop what is less likely than min_p times the most likely; [0, 1).
  float repetition_penalty = 1.0f;  ///< Divides positive logits of seen tokens and multiplies negative ones; > 0.
  float presence_penalty = 0.0f;    ///< Subtracted once from generated tokens; [-2, 2].
  float frequency_penalty = 0.0f;   ///< Subtracted for each time a token was generated; [-2, 2].
  uint64_t seed = 0;
  std::vector<std::string> stop = {};        ///< Ends before the first of these texts; needs a tokenizer.
  std::vector<TokenId> stop_token_ids = {};  ///< Ends at these tokens, besides the model's end tokens.
  bool ignore_eos = false;                   ///< Do not end at the model's end tokens.

  /// Throws Error{kInvalidArgument} naming field, value and range. `vocab_size` bounds token ids.
  void validate(int64_t vocab_size) const;
};

enum class FinishReason : uint8_t { kNone, kStop, kLength, kCancelled, kError };
std::string_view name_of(FinishReason reason) noexcept;  ///< "stop", "length", ...

using RequestId = int64_t;

/// One new token of one request, or its end.
struct StepEvent {
  RequestId request = 0;
  std::optional<TokenId> token;  ///< Empty where the request ended without one.
  std::string text;              ///< Text that is certain now (stop texts and incomplete UTF-8 wait); needs a tokenizer.
  FinishReason finish = FinishReason::kNone;
  std::string error;  ///< Why, for kError.
};

struct EngineOptions {
  int64_t max_batch = 16;     ///< Sequences computed together; others wait.
  int64_t prefill_chunk = 0;  ///< Most new tokens a step; 0: what suits the device, 512 on a CPU, 2048 on a GPU.
  bool use_flash_attention = true;
  int64_t flash_block_size = 0;
  int64_t max_cache_tokens = 0;  ///< Tokens in the cache over all sequences; 0: max_batch times the context.
  std::optional<Dtype> kv_dtype = {};
};

class Engine {
 public:
  /// `model` and `tokenizer` (may be null: no stop texts, no text in events) must outlive it.
  explicit Engine(MiniLLM& model, const Tokenizer* tokenizer = nullptr, const EngineOptions& options = {});
  ~Engine();

  /// Throws Error{kInvalidArgument} for an empty prompt, ids outside the vocabulary or options out of range, and
  /// Error{kCapacity} for a prompt longer than the context. Nothing is queued then.
  RequestId submit(std::vector<TokenId> prompt, const GenerationOptions& options);
  /// One forward pass; what happened in it. Empty when idle.
  std::vector<StepEvent> step();
  void cancel(RequestId request);  ///< Takes effect in the next step; unknown or finished requests are ignored.
  bool idle() const;
  Timings timings() const;
  int64_t cache_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace minillm
