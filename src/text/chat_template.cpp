// chat_template.cpp - messages in, prompt out. The variables are those that transformers passes to a template.
#include "text/chat_template.h"

#include "text/jinja_parser.h"
#include "text/jinja_render.h"

namespace minillm {
namespace {

std::string render_with(const jinja::Program& program, const ChatRenderOptions& options, auto&& make_messages) {
  jinja::Renderer renderer(program);
  const auto optional_json = [&](const std::string& json, std::string_view what) {
    return json.empty() ? jinja::Value(jinja::None{}) : jinja::from_json(renderer, json, what);
  };
  renderer.define("messages", make_messages(renderer));
  renderer.define("tools", optional_json(options.tools_json, "tools"));
  renderer.define("documents", jinja::Value(jinja::None{}));
  renderer.define("add_generation_prompt", jinja::Value(options.add_generation_prompt));
  if (!options.bos_token.empty()) renderer.define("bos_token", renderer.text(options.bos_token));
  if (!options.eos_token.empty()) renderer.define("eos_token", renderer.text(options.eos_token));
  for (const auto& [name, json] : options.variables) renderer.define(name, jinja::from_json(renderer, json, name));
  return renderer.run();
}

}  // namespace

ChatTemplate::ChatTemplate(std::string source) : impl_(std::make_unique<Impl>(Impl{jinja::Parser(source).run()})) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::render(const std::vector<ChatMessage>& messages, const ChatRenderOptions& options) const {
  return render_with(impl_->program, options, [&](jinja::Renderer& renderer) {
    std::vector<jinja::Value> list;
    for (const ChatMessage& message : messages) {
      list.push_back(renderer.dict(
          {{renderer.text("role"), renderer.text(message.role)}, {renderer.text("content"), renderer.text(message.content)}}));
    }
    return renderer.list(std::move(list));
  });
}

std::string ChatTemplate::render_json(const std::string& messages_json, const ChatRenderOptions& options) const {
  return render_with(impl_->program, options, [&](jinja::Renderer& renderer) {
    jinja::Value messages = jinja::from_json(renderer, messages_json, "messages");
    if (!messages.list()) throw Error(ErrorCode::kInvalidArgument, "messages: expected a JSON array, met ", jinja::type_name(messages));
    return messages;
  });
}

}  // namespace minillm
