// chat_session.cpp - see chat_session.h.
#include "chat_session.h"

#include <exception>
#include <optional>

#include "json_text.h"
#include "minillm/error.h"

namespace minillm::cli {
namespace {

ChatTemplate template_of(const Tokenizer& tokenizer) {
  if (tokenizer.chat_template().empty())
    throw Error(ErrorCode::kInvalidArgument, "this model has no chat template: it continues texts (minillm generate -p), it does not talk");
  return ChatTemplate(tokenizer.chat_template());
}

/// What save() attaches: {"messages": [{"role", "content"}], "tokens": [...]}. Bytes that are not UTF-8 become U+FFFD, as the
/// tokenizer reads them.
std::string to_attachment(const std::vector<ChatMessage>& messages, const std::vector<TokenId>& tokens) {
  Json json{{"messages", Json::array()}, {"tokens", tokens}};
  for (const ChatMessage& message : messages) json["messages"].push_back({{"role", message.role}, {"content", message.content}});
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

struct Talk {
  std::vector<ChatMessage> messages;
  std::vector<TokenId> tokens;
};

Talk from_attachment(const std::string& attachment, const std::string& path) {
  try {
    Talk talk;
    const Json json = Json::parse(attachment);
    for (const Json& message : json.at("messages"))
      talk.messages.push_back({message.at("role").get<std::string>(), message.at("content").get<std::string>()});
    talk.tokens = json.at("tokens").get<std::vector<TokenId>>();
    return talk;
  } catch (const Json::exception&) {
    throw Error(ErrorCode::kCorruptFile, path, ": a saved cache, but not of a chat");
  }
}

}  // namespace

std::vector<TokenId> encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat, const std::vector<ChatMessage>& messages) {
  const auto piece_of = [&](std::optional<TokenId> id) { return id ? tokenizer.piece(*id) : std::string(); };
  const std::string bos = piece_of(tokenizer.bos());
  const std::string text = chat.render(messages, {.bos_token = bos, .eos_token = piece_of(tokenizer.eos())});
  const bool has_bos = !bos.empty() && text.compare(0, bos.size(), bos) == 0;
  return tokenizer.encode(text, {.add_special_tokens = !has_bos, .parse_special_tokens = true});
}

ChatSession::ChatSession(MiniLLM& model, const Tokenizer& tokenizer, const TextGeneratorOptions& options, GenerationOptions generation,
                         std::string system)
    : model_(model),
      tokenizer_(tokenizer),
      template_(template_of(tokenizer)),
      generator_(model, options),
      generation_(std::move(generation)),
      system_(std::move(system)),
      text_{KVCache(model.config(), cache_options())} {
  reset();
}

KVCacheOptions ChatSession::cache_options() const { return {.device = model_.device()}; }

void ChatSession::reset() {
  text_.cache.reset();
  text_.tokens.clear();
  messages_.clear();
  last_ = {};
  if (!system_.empty()) messages_.push_back({"system", system_});
}

FinishReason ChatSession::say(const std::string& message, const OnText& on_text) {
  std::vector<ChatMessage> messages = messages_;
  messages.push_back({"user", message});
  const std::vector<TokenId> prompt = encode_chat(tokenizer_, template_, messages);
  GenerationOptions options = generation_;
  options.seed += messages.size();  // Another draw each turn, and the same one after a talk was loaded.
  std::exception_ptr failure;       // An exception must not pass through the generator: it waits here.
  const Generation answer = generator_.generate_cached(text_, prompt, options, [&](int64_t, const StepEvent& event) {
    try {
      return on_text(event.text);
    } catch (...) {
      failure = std::current_exception();
      return false;
    }
  });
  if (failure) std::rethrow_exception(failure);
  if (answer.finish_reason == FinishReason::kError) throw Error(ErrorCode::kInternal, answer.error);
  last_ = {.prompt_tokens = static_cast<int64_t>(prompt.size()), .timings = generator_.timings()};
  last_.reused_tokens = last_.prompt_tokens - last_.timings.prefill_tokens;
  messages.push_back({"assistant", answer.text});
  messages_ = std::move(messages);
  return answer.finish_reason;
}

void ChatSession::save(const std::string& path) const {
  text_.cache.save(path, model_.fingerprint(), to_attachment(messages_, text_.tokens));
}

void ChatSession::load(const std::string& path) {
  SavedCache saved = KVCache::load(path, model_.config(), model_.fingerprint(), cache_options());
  Talk talk = from_attachment(saved.attachment, path);
  const std::vector<int64_t> lengths = saved.cache.lengths();
  if (lengths.size() != 1 || lengths[0] != static_cast<int64_t>(talk.tokens.size()))
    throw Error(ErrorCode::kCorruptFile, path, ": its cache and its tokens differ in length");
  text_ = {std::move(saved.cache), std::move(talk.tokens)};
  messages_ = std::move(talk.messages);
  last_ = {};
}

}  // namespace minillm::cli
