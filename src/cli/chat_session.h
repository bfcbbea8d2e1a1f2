// chat_session.h - a conversation with a model: the messages, and the cache of what has been computed of them.
// Each turn renders the whole talk with the model's template and computes only what the cache does not hold: the new message, and
// whatever the template writes otherwise than the model did (a thought that it drops, an end of turn).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "minillm/chat.h"
#include "minillm/generator.h"
#include "minillm/tokenizer.h"

namespace minillm::cli {

/// Text of the template's begin and end tokens, and the ids of a rendered talk. A begin token that the template writes is not doubled.
std::vector<TokenId> encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat, const std::vector<ChatMessage>& messages);

/// What a turn cost.
struct TurnStats {
  int64_t prompt_tokens = 0;  ///< Of the whole talk, as rendered.
  int64_t reused_tokens = 0;  ///< Of those, already in the cache.
  Timings timings;
};

class ChatSession {
 public:
  using OnText = std::function<bool(const std::string& text)>;  ///< False stops the answer.

  /// `model` and `tokenizer` must outlive it. Throws Error{kInvalidArgument} for a model without a chat template.
  ChatSession(MiniLLM& model, const Tokenizer& tokenizer, const TextGeneratorOptions& options, GenerationOptions generation,
              std::string system);

  /// Adds the message and the answer to the talk. An answer that was stopped is kept as far as it came.
  /// On an exception the talk is as it was before.
  FinishReason say(const std::string& message, const OnText& on_text);
  void reset();
  /// Messages, tokens and cache. load() replaces the talk only if all of the file is good; errors as KVCache::save and load.
  void save(const std::string& path) const;
  void load(const std::string& path);

  const std::vector<ChatMessage>& messages() const noexcept { return messages_; }
  const TurnStats& last_turn() const noexcept { return last_; }
  int64_t n_tokens() const noexcept { return static_cast<int64_t>(text_.tokens.size()); }
  int64_t cache_bytes() const noexcept { return text_.cache.bytes(); }

 private:
  KVCacheOptions cache_options() const;

  MiniLLM& model_;
  const Tokenizer& tokenizer_;
  ChatTemplate template_;
  TextGenerator generator_;
  GenerationOptions generation_;
  std::string system_;
  std::vector<ChatMessage> messages_;
  CachedText text_;
  TurnStats last_;
};

}  // namespace minillm::cli
