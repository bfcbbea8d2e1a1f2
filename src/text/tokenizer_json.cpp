// tokenizer_json.cpp - a tokenizer from Hugging Face's tokenizer.json: {"model", "added_tokens", "normalizer", "pre_tokenizer",
// "post_processor", "decoder"}. Source: huggingface/tokenizers (serialisation of each component).
//   model           BPE with vocab {piece: id} and merges ["a b", ...] or [["a", "b"], ...]
//   normalizer      NFC NFD NFKC NFKD Prepend Replace Sequence
//   pre_tokenizer   ByteLevel Split Digits Metaspace Sequence
//   post_processor  TemplateProcessing (of one text) RobertaProcessing BertProcessing ByteLevel Sequence
//   decoder         ByteLevel Replace ByteFallback Fuse Strip Metaspace Sequence
// Every other component, and every option of these that would change a result and is not built, is Error{kUnsupported}: a file is
// understood whole or not at all.
#include <algorithm>

#include "io/json.h"
#include "io/printable.h"
#include "text/tokenizer_components.h"

namespace minillm {
namespace {

/// Puts `text` at `id`, growing the table. Throws if another text is there.
void place(std::vector<std::string>& pieces, int64_t id, const std::string& text, const JsonObject& where) {
  if (id < 0 || static_cast<uint64_t>(id) >= kMaxVocab)
    where.corrupt("token ", printable(text), " has the id ", id, ", expected 0 to ", kMaxVocab - 1);
  const size_t at = static_cast<size_t>(id);
  if (pieces.size() <= at) pieces.resize(at + 1);
  if (!pieces[at].empty() && pieces[at] != text) where.corrupt("id ", id, " is both ", printable(pieces[at]), " and ", printable(text));
  pieces[at] = text;
}

std::vector<std::pair<std::string, std::string>> read_merges(const JsonObject& model) {
  const nlohmann::json* list = model.find("merges");
  if (list == nullptr) model.corrupt("merges is missing");
  if (!list->is_array()) model.wrong("merges", *list, "an array");
  std::vector<std::pair<std::string, std::string>> merges;
  merges.reserve(list->size());
  for (const nlohmann::json& merge : *list) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    if (!merge.is_string()) model.wrong("merges", merge, "\"a b\" or [\"a\", \"b\"]");
    const auto& line = merge.get_ref<const std::string&>();
    const size_t space = line.find(' ');
    if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos)
      model.corrupt("merge ", merges.size(), " is not two parts: ", printable(line));
    merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  return merges;
}

std::vector<AddedToken> read_added_tokens(const JsonObject& root) {
  std::vector<AddedToken> tokens;
  const nlohmann::json* list = root.find("added_tokens");
  if (list == nullptr) return tokens;
  if (!list->is_array()) root.wrong("added_tokens", *list, "an array");
  for (const nlohmann::json& element : *list) {
    const JsonObject token(element, root.where() + ": added_tokens");
    const int64_t id = token.need_integer("id");
    if (id < 0 || static_cast<uint64_t>(id) >= kMaxVocab) token.corrupt("id ", id, ", expected 0 to ", kMaxVocab - 1);
    const auto text = token.text("content");
    if (!text) token.corrupt("content is missing");
    if (token.boolean("single_word").value_or(false)) token.unsupported("single_word", "true", "false");
    tokens.push_back({.id = static_cast<TokenId>(id),
                      .text = *text,
                      .special = token.boolean("special").value_or(false),
                      .normalized = token.boolean("normalized").value_or(true),
                      .lstrip = token.boolean("lstrip").value_or(false),
                      .rstrip = token.boolean("rstrip").value_or(false)});
  }
  return tokens;
}

void read_vocab(const JsonObject& model, const std::vector<AddedToken>& added, bool byte_fallback, Tokenizer::Impl& impl) {
  const auto vocab = model.object("vocab");
  if (!vocab) model.corrupt("vocab is missing");
  std::vector<std::string> pieces;
  for (const auto& [piece, id] : model.find("vocab")->items()) {
    if (!id.is_number_integer() || (id.is_number_unsigned() && id.get<uint64_t>() > kMaxVocab))
      vocab->wrong("an id", id, "a small integer");
    place(pieces, id.get<int64_t>(), piece, *vocab);
  }
  for (const AddedToken& token : added) place(pieces, token.id, token.text, model);
  if (pieces.empty()) model.corrupt("the vocabulary is empty");
  for (size_t id = 0; id < pieces.size(); ++id)
    if (pieces[id].empty()) model.corrupt("id ", id, " of ", pieces.size(), " has no token; ids must be dense");
  std::vector<TokenKind> kinds(pieces.size(), TokenKind::kNormal);
  for (size_t id = 0; byte_fallback && id < pieces.size(); ++id)
    if (byte_of_piece(pieces[id]) >= 0) kinds[id] = TokenKind::kByte;
  for (const AddedToken& token : added)
    kinds[static_cast<size_t>(token.id)] = token.special ? TokenKind::kControl : TokenKind::kUserDefined;
  impl.vocab = Vocab(std::move(pieces), std::move(kinds));
}

void read_model(const JsonObject& model, const std::vector<AddedToken>& added, bool byte_level, Tokenizer::Impl& impl) {
  const std::string type = model.text("type").value_or(model.has("merges") ? "BPE" : "");
  if (type != "BPE") model.unsupported("type", printable(type), "BPE");
  if (model.number("dropout").value_or(0.0) != 0.0) model.unsupported("dropout", model.need_number("dropout"), "none");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (const auto text = model.text(affix); text && !text->empty()) model.unsupported(affix, printable(*text), "none");
  BpeOptions options;
  options.byte_level = byte_level;
  options.ignore_merges = model.boolean("ignore_merges").value_or(false);
  options.byte_fallback = model.boolean("byte_fallback").value_or(false);
  options.fuse_unknown = model.boolean("fuse_unk").value_or(false);
  if (byte_level && options.byte_fallback) model.unsupported("byte_fallback", "true", "false beside ByteLevel");
  read_vocab(model, added, options.byte_fallback, impl);
  if (const auto unknown = model.text("unk_token")) {
    options.unknown = impl.vocab.find(*unknown);
    if (options.unknown == kNoToken) model.corrupt("unk_token ", printable(*unknown), " is not in the vocabulary");
  }
  impl.model.emplace<Bpe>(impl.vocab, read_merges(model), options);
}

}  // namespace

std::unique_ptr<Tokenizer::Impl> load_json_tokenizer(std::string_view text, const std::string& what, const TensorSource* source) {
  if (text.size() > kMaxTokenizerJsonBytes)
    throw Error(ErrorCode::kCorruptFile, what, ": ", text.size(), " bytes; at most ", kMaxTokenizerJsonBytes, " are accepted");
  const nlohmann::json document = parse_json(text, what);
  const JsonObject root(document, what);
  const auto model = root.object("model");
  if (!model) root.corrupt("model is missing");
  auto impl = std::make_unique<Tokenizer::Impl>();
  const std::vector<AddedToken> added = read_added_tokens(root);
  const bool byte_level = read_pre_tokenizer(root.object("pre_tokenizer"), *impl);
  read_normalizer(root.object("normalizer"), *impl);
  read_model(*model, added, byte_level, *impl);
  for (AddedToken token : added) {
    if (token.normalized) token.text = impl->normalizer.apply(token.text);
    impl->added.add(std::move(token));
  }
  read_post_processor(root.object("post_processor"), *impl);
  read_decoder(root.object("decoder"), byte_level, *impl);
  if (source != nullptr) read_source_tokens(*source, *impl);
  if (!impl->bos && !impl->prefix.empty()) impl->bos = impl->prefix.front();
  impl->finish();
  return impl;
}

}  // namespace minillm
