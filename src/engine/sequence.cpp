// sequence.cpp - see sequence.h.
#include "engine/sequence.h"

#include "minillm/error.h"

namespace minillm {

void Sequence::begin(std::vector<TokenId> prompt, const GenerationOptions& request, const Tokenizer* tokenizer) {
  n_prompt = static_cast<int64_t>(prompt.size());
  tokens = std::move(prompt);
  options = request;
  end_tokens = options.stop_token_ids;
  if (tokenizer != nullptr) {
    if (!options.ignore_eos) {
      const std::vector<TokenId>& ends = tokenizer->end_tokens();
      end_tokens.insert(end_tokens.end(), ends.begin(), ends.end());
    }
    decoder.emplace(*tokenizer, DecodeOptions{.skip_special_tokens = true});
    decoder->push(tokens.back());  // The text goes on from the prompt: no space is dropped at its start.
    stops = StopMatcher(options.stop);
  }
  std::ranges::sort(end_tokens);
}

void Sequence::take(TokenId token, int64_t capacity, StepEvent& event) {
  tokens.push_back(token);
  if (ends_at(token)) {
    event.finish = FinishReason::kStop;
  } else if (decoder && stops.push(decoder->push(token), event.text)) {
    event.finish = FinishReason::kStop;
    decoder.reset();  // What is held back stands behind the stop text.
  } else if (n_generated() >= options.max_new_tokens || n_tokens() > capacity) {
    event.finish = FinishReason::kLength;
  }
}

void Sequence::flush(std::string& text) {
  if (decoder && !stops.push(decoder->flush(), text)) stops.flush(text);
}

void check_request(const char* where, std::span<const TokenId> prompt, const GenerationOptions& options, const Tokenizer* tokenizer,
                   const ModelConfig& config) {
  const auto refuse = [where](const auto&... parts) { throw Error(ErrorCode::kInvalidArgument, where, parts...); };
  options.validate(config.vocab_size);
  if (!options.stop.empty() && tokenizer == nullptr) refuse("stop has ", options.stop.size(), " texts, expected none without a tokenizer");
  if (prompt.empty()) refuse("prompt is empty, expected at least one token");
  for (size_t i = 0; i < prompt.size(); ++i)
    if (prompt[i] < 0 || prompt[i] >= config.vocab_size)
      refuse("prompt[", i, "] is ", prompt[i], ", expected 0 to ", config.vocab_size - 1);
  if (static_cast<int64_t>(prompt.size()) > config.context_length)
    throw Error(ErrorCode::kCapacity, "prompt has ", prompt.size(), " tokens, the context ", config.context_length);
}

}  // namespace minillm
