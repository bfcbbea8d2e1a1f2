// sequence.h - one request while it lives: its tokens, where it stands, and how its text is put together.
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/stop.h"
#include "minillm/engine.h"
#include "minillm/tokenizer.h"

namespace minillm {

struct Sequence {
  RequestId id = 0;
  std::vector<TokenId> tokens;  ///< Prompt, then generated; memory for all of them is taken at the start where that is little.
  int64_t n_prompt = 0;
  GenerationOptions options;
  std::vector<TokenId> end_tokens;  ///< Sorted.
  int64_t cache_row = -1;           ///< -1 while it waits.

  std::optional<StreamingDecoder> decoder;  ///< Without a tokenizer there is no text.
  StopMatcher stops{{}};

  /// Begins with a prompt that check_request() takes; `tokenizer` may be null.
  void begin(std::vector<TokenId> prompt, const GenerationOptions& request, const Tokenizer* tokenizer);
  /// Appends `token`: fills in the event's text and why the sequence ends with it, if it does. `capacity`: tokens whose keys fit.
  void take(TokenId token, int64_t capacity, StepEvent& event);
  /// Adds the text that was held back for what might have followed; nothing where a stop text has ended it.
  void flush(std::string& text);

  int64_t n_tokens() const noexcept { return static_cast<int64_t>(tokens.size()); }
  int64_t n_generated() const noexcept { return n_tokens() - n_prompt; }
  /// Whether another token may follow the next one, by numbers alone.
  bool may_go_on(int64_t capacity) const noexcept { return n_generated() + 1 < options.max_new_tokens && n_tokens() + 1 <= capacity; }
  bool ends_at(TokenId token) const { return std::ranges::binary_search(end_tokens, token); }
};

/// Throws Error{kInvalidArgument}, its message begun by `where`, and Error{kCapacity} for a prompt longer than the context.
void check_request(const char* where, std::span<const TokenId> prompt, const GenerationOptions& options, const Tokenizer* tokenizer,
                   const ModelConfig& config);

}  // namespace minillm
