// sequence.h - one request while it lives: its tokens, where it stands, and how its text is put together.
#pragma once

#include <algorithm>
#include <optional>
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

  int64_t n_tokens() const noexcept { return static_cast<int64_t>(tokens.size()); }
  int64_t n_generated() const noexcept { return n_tokens() - n_prompt; }
  bool ends_at(TokenId token) const { return std::ranges::binary_search(end_tokens, token); }
};

}  // namespace minillm
