// chat.h - chat templates: the model's own Jinja template, rendered by our subset of the language.
// A template is a program from a stranger: depth, work and output are bounded, and nothing outside the data is reachable.
// Threads: render() is const and safe to call at once.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace minillm {

struct ChatMessage {
  std::string role;  ///< "system", "user", "assistant", "tool"
  std::string content;
};

struct ChatRenderOptions {
  bool add_generation_prompt = true;
  std::string bos_token = {}, eos_token = {};
  /// JSON array of tool definitions, or empty.
  std::string tools_json = {};
  /// More variables for the template; values are JSON.
  std::vector<std::pair<std::string, std::string>> variables = {};
};

class ChatTemplate {
 public:
  /// Throws Error{kUnsupported} naming the construct and line it does not know, Error{kInvalidArgument} for wrong syntax.
  explicit ChatTemplate(std::string source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  /// Throws Error{kInvalidArgument} with the template's own message where it calls raise_exception, and for undefined uses.
  /// Throws Error{kCapacity} past 50 million steps, 16 MiB of output or a depth of 64.
  std::string render(const std::vector<ChatMessage>& messages, const ChatRenderOptions& options = {}) const;
  /// The same with messages as a JSON array: tool calls, content parts, names.
  std::string render_json(const std::string& messages_json, const ChatRenderOptions& options = {}) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace minillm
