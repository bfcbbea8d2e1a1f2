// tokenizer_gguf.cpp - a tokenizer from the tokenizer.ggml.* metadata of a GGUF file.
//   model        "gpt2" (byte-level BPE: tokens, merges, pre) or "llama" (SentencePiece BPE: tokens, scores)
//   token_type   TokenKind of each token; X_token_id, add_bos_token, add_eos_token, add_space_prefix
#include "io/printable.h"
#include "minillm/error.h"
#include "text/tokenizer_impl.h"

namespace minillm {
namespace {

std::vector<TokenKind> read_kinds(const TensorSource& source, size_t n_tokens) {
  std::vector<TokenKind> kinds(n_tokens, TokenKind::kNormal);
  if (!source.has("tokenizer.ggml.token_type")) return kinds;
  const std::vector<int64_t>& types = source.integers("tokenizer.ggml.token_type");
  if (types.size() != n_tokens)
    throw Error(ErrorCode::kCorruptFile, source.path(), ": ", n_tokens, " tokens have ", types.size(),
                " types (tokenizer.ggml.token_type)");
  for (size_t i = 0; i < n_tokens; ++i) {
    if (types[i] < 0 || types[i] > 6)
      throw Error(ErrorCode::kCorruptFile, source.path(), ": token ", i, " has the type ", types[i], "; 0 to 6 are known");
    if (types[i] != 0) kinds[i] = static_cast<TokenKind>(types[i]);  // 0 is "undefined": plain text.
  }
  return kinds;
}

TokenId checked_id(const TensorSource& source, const std::string& key, int64_t id, size_t n_tokens) {
  if (id < 0 || static_cast<uint64_t>(id) >= n_tokens)
    throw Error(ErrorCode::kCorruptFile, source.path(), ": ", key, " is ", id, ", but there are ", n_tokens, " tokens");
  return static_cast<TokenId>(id);
}

std::optional<TokenId> read_id(const TensorSource& source, const std::string& key, size_t n_tokens) {
  if (!source.has(key)) return {};
  return checked_id(source, key, source.integer(key), n_tokens);
}

std::vector<std::pair<std::string, std::string>> read_merges(const TensorSource& source) {
  std::vector<std::pair<std::string, std::string>> merges;
  const std::vector<std::string>& lines = source.strings("tokenizer.ggml.merges");
  merges.reserve(lines.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    const size_t space = lines[i].find(' ', 1);  // From 1: a part may itself begin with a space.
    if (space == std::string::npos || space + 1 == lines[i].size())
      throw Error(ErrorCode::kCorruptFile, source.path(), ": merge ", i, " is not two parts: ", printable(lines[i]));
    merges.emplace_back(lines[i].substr(0, space), lines[i].substr(space + 1));
  }
  return merges;
}

/// `with_user_defined`: Spm cuts out its own.
void add_tokens(Tokenizer::Impl& impl, bool with_user_defined) {
  for (size_t i = 0; i < impl.vocab.size(); ++i) {
    const TokenId id = static_cast<TokenId>(i);
    const TokenKind kind = impl.vocab.kind(id);
    const bool special = kind == TokenKind::kControl || kind == TokenKind::kUnknown;
    if (special || (with_user_defined && kind == TokenKind::kUserDefined))
      impl.added.add({.id = id, .text = impl.vocab.piece(id), .special = special});
  }
}

/// Families whose tokenizer.json puts a BOS before each text; others say so in add_bos_token.
bool adds_bos_by_default(const std::string& pre) {
  return pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3" || pre == "tekken" || pre == "minerva-7b" || pre == "pixtral" ||
         pre == "falcon3" || pre == "lfm2";
}

bool ignores_merges(const std::string& pre) {
  return pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3" || pre == "tekken" || pre == "pixtral" || pre == "falcon3" ||
         pre == "falcon-h1" || pre == "lfm2" || pre == "glm4";
}

}  // namespace

void read_source_tokens(const TensorSource& source, Tokenizer::Impl& impl) {
  const size_t n = impl.vocab.size();
  impl.bos = read_id(source, "tokenizer.ggml.bos_token_id", n);
  impl.eos = read_id(source, "tokenizer.ggml.eos_token_id", n);
  if (impl.eos) impl.end_tokens.push_back(*impl.eos);
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const auto id = read_id(source, key, n)) impl.end_tokens.push_back(*id);
  if (source.has("tokenizer.ggml.eos_token_ids"))
    for (const int64_t id : source.integers("tokenizer.ggml.eos_token_ids"))
      impl.end_tokens.push_back(checked_id(source, "tokenizer.ggml.eos_token_ids", id, n));
  impl.chat_template = source.string("tokenizer.chat_template", "");
}

std::unique_ptr<Tokenizer::Impl> load_gguf_tokenizer(const TensorSource& source) {
  auto impl = std::make_unique<Tokenizer::Impl>();
  const std::string& model = source.string("tokenizer.ggml.model");
  const std::vector<std::string>& tokens = source.strings("tokenizer.ggml.tokens");
  if (tokens.empty()) throw Error(ErrorCode::kCorruptFile, source.path(), ": the vocabulary is empty (tokenizer.ggml.tokens)");
  impl->vocab = Vocab(tokens, read_kinds(source, tokens.size()));
  const std::optional<TokenId> unknown = read_id(source, "tokenizer.ggml.unknown_token_id", tokens.size());
  read_source_tokens(source, *impl);

  bool add_bos = false;
  if (model == "gpt2") {
    if (!source.has("tokenizer.ggml.pre"))
      throw Error(ErrorCode::kUnsupported, source.path(), ": no tokenizer.ggml.pre, so how words are cut is not known");
    const std::string& pre = source.string("tokenizer.ggml.pre");
    impl->style = PieceStyle::kByteLevel;
    impl->words = PreTokenizer::named(pre);
    BpeOptions options;
    options.ignore_merges = ignores_merges(pre);
    impl->model.emplace<Bpe>(impl->vocab, read_merges(source), options);
    add_bos = adds_bos_by_default(pre);
    add_tokens(*impl, /*with_user_defined=*/true);
  } else if (model == "llama") {
    impl->style = PieceStyle::kMarkedSpaces;
    impl->model.emplace<Spm>(impl->vocab, source.numbers("tokenizer.ggml.scores"), unknown.value_or(kNoToken));
    impl->strip_leading_space = source.boolean("tokenizer.ggml.add_space_prefix", true);
    if (impl->strip_leading_space) impl->normalizer.add_prefix(std::string(kSpaceMark));
    impl->normalizer.add_replace(" ", std::string(kSpaceMark));
    add_bos = true;
    add_tokens(*impl, /*with_user_defined=*/false);
  } else {
    throw Error(ErrorCode::kUnsupported, source.path(), ": tokenizer model ", printable(model), "; \"gpt2\" and \"llama\" are supported");
  }
  if (source.boolean("tokenizer.ggml.add_bos_token", add_bos) && impl->bos) impl->prefix.push_back(*impl->bos);
  if (source.boolean("tokenizer.ggml.add_eos_token", false) && impl->eos) impl->suffix.push_back(*impl->eos);
  impl->finish();
  return impl;
}

}  // namespace minillm
