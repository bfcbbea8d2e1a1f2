// text.cpp - Tokenizer, StreamingDecoder and ChatTemplate.
#include "bindings.h"

namespace minillm::python {
namespace {

std::string to_json(nb::handle value) {
  return nb::cast<std::string>(nb::module_::import_("json").attr("dumps")(value, "ensure_ascii"_a = false));
}

void bind_tokenizer(nb::module_& m) {
  nb::class_<Tokenizer> tokenizer(m, "Tokenizer", "Text to token ids and back. Every method may run at once with any other.");
  tokenizer.def_static(
      "load",
      [](const std::string& path) {
        const nb::gil_scoped_release release;
        return Tokenizer::load(resolve_model(path));
      },
      "path"_a = "", "From a GGUF file, a folder with tokenizer.json, or a pulled name; the default model's if empty.");
  tokenizer.def(
      "encode",
      [](const Tokenizer& self, const std::string& text, bool add_special_tokens, bool parse_special_tokens) {
        const nb::gil_scoped_release release;
        return self.encode(text, {.add_special_tokens = add_special_tokens, .parse_special_tokens = parse_special_tokens});
      },
      "text"_a, nb::kw_only(), "add_special_tokens"_a = true, "parse_special_tokens"_a = false,
      "parse_special_tokens reads '<|im_end|>' and the like as the token; never for text from a stranger.");
  tokenizer.def(
      "decode",
      [](const Tokenizer& self, const ArrayLike& ids, bool skip_special_tokens) {
        const std::vector<TokenId> tokens = to_token_ids(ids, "ids");
        const nb::gil_scoped_release release;
        return self.decode(tokens, {.skip_special_tokens = skip_special_tokens});
      },
      "ids"_a, nb::kw_only(), "skip_special_tokens"_a = false);
  tokenizer.def("piece", &Tokenizer::piece, "id"_a, "The piece as the vocabulary writes it.")
      .def(
          "token_bytes",
          [](const Tokenizer& self, TokenId id) {
            const std::string bytes = self.token_bytes(id);
            return nb::bytes(bytes.data(), bytes.size());
          },
          "id"_a, "The bytes that a token adds to a text.")
      .def(
          "find", [](const Tokenizer& self, const std::string& piece) { return self.find(piece); }, "piece"_a,
          "The id of a piece, or None.")
      .def("is_special", &Tokenizer::is_special, "id"_a)
      .def("__len__", &Tokenizer::vocab_size)
      .def_prop_ro("vocab_size", &Tokenizer::vocab_size)
      .def_prop_ro("bos", &Tokenizer::bos)
      .def_prop_ro("eos", &Tokenizer::eos)
      .def_prop_ro("end_tokens", &Tokenizer::end_tokens, "Every token that ends a turn or a text.")
      .def_prop_ro(
          "missing_bytes", [](const Tokenizer& self) { return std::vector<int>(self.missing_bytes().begin(), self.missing_bytes().end()); },
          "Byte values that encode() drops because the vocabulary has no token for them.")
      .def_prop_ro("chat_template", &Tokenizer::chat_template, "The model's chat template (Jinja), or ''.");
  nb::class_<StreamingDecoder>(m, "StreamingDecoder", "Ids to text as they come, never cutting a UTF-8 sequence.")
      .def(
          "__init__",
          [](StreamingDecoder* self, const Tokenizer& owner, bool skip_special_tokens) {
            new (self) StreamingDecoder(owner, {.skip_special_tokens = skip_special_tokens});
          },
          "tokenizer"_a, nb::kw_only(), "skip_special_tokens"_a = false, nb::keep_alive<1, 2>())
      .def("push", &StreamingDecoder::push, "id"_a, "Text that is certain after `id`.")
      .def("flush", &StreamingDecoder::flush, "What was held back.");
}

std::string render(const ChatTemplate& self, nb::handle messages, nb::handle tools, bool add_generation_prompt,
                   const nb::kwargs& variables) {
  ChatRenderOptions options{.add_generation_prompt = add_generation_prompt};
  if (!tools.is_none()) options.tools_json = to_json(tools);
  for (const auto& [key, value] : variables) {
    const auto name = nb::cast<std::string>(key);
    if (name == "bos_token")
      options.bos_token = value.is_none() ? "" : nb::cast<std::string>(value);
    else if (name == "eos_token")
      options.eos_token = value.is_none() ? "" : nb::cast<std::string>(value);
    else
      options.variables.emplace_back(name, to_json(value));
  }
  const std::string json = to_json(messages);
  const nb::gil_scoped_release release;
  return self.render_json(json, options);
}

}  // namespace

void bind_text(nb::module_& m) {
  bind_tokenizer(m);
  nb::class_<ChatTemplate>(m, "ChatTemplate", "A chat template in Jinja, rendered with bounded work and nothing outside the data in reach.")
      .def(
          "__init__", [](ChatTemplate* self, std::string source) { new (self) ChatTemplate(std::move(source)); }, "source"_a)
      .def("render", &render, "messages"_a, "tools"_a = nb::none(), "add_generation_prompt"_a = true, "variables"_a,
           nb::sig(
               "def render(self, messages: collections.abc.Sequence[collections.abc.Mapping[str, typing.Any]], tools: typing.Any = None, "
               "add_generation_prompt: bool = True, **variables: typing.Any) -> str"),
           "messages: a list of {'role', 'content', ...}. tools: a list of tool definitions. Other variables (bos_token, documents, "
           "enable_thinking, ...) are given by name; all must be what JSON can hold.");
}

}  // namespace minillm::python
