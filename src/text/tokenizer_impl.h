// tokenizer_impl.h - what a Tokenizer is made of. The loaders (tokenizer_gguf.cpp, tokenizer_json.cpp) fill it; tokenizer.cpp runs it:
//   bytes ─▶ valid UTF-8 ─▶ cut at added tokens ─▶ normalise ─▶ words ─▶ Bpe or Spm ─▶ ids, with BOS and EOS around
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "io/tensor_source.h"
#include "minillm/tokenizer.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalize.h"
#include "text/pretokenize.h"
#include "text/spm.h"
#include "text/vocab.h"

namespace minillm {

/// How the vocabulary writes bytes.
enum class PieceStyle : uint8_t { kByteLevel, kMarkedSpaces };

/// Where Impl::lead goes: not at all, before the text, before each run of plain text between added tokens.
enum class LeadWhere : uint8_t { kNever, kFirst, kAlways };

struct Tokenizer::Impl {
  Impl() = default;
  Impl(const Impl&) = delete;  // The models borrow `vocab`.
  Impl& operator=(const Impl&) = delete;

  Vocab vocab;
  PieceStyle style = PieceStyle::kByteLevel;
  AddedTokens added;
  Normalizer normalizer;
  Normalizer words_normalizer;  ///< After the added tokens are out: Metaspace's own replacing.
  PreTokenizer words;
  std::variant<std::monostate, Bpe, Spm> model;
  std::string lead;  ///< Goes before a text that does not begin with it...
  LeadWhere lead_where = LeadWhere::kNever;
  bool strip_leading_space = false;  ///< decode() takes one space off the beginning again.

  std::vector<TokenId> prefix, suffix;  ///< Around a text with add_special_tokens.
  std::optional<TokenId> bos, eos;
  std::vector<TokenId> end_tokens;
  std::vector<uint8_t> missing_bytes;
  std::string chat_template;

  TokenId check(TokenId id) const;
  std::string bytes_of(TokenId id) const;
  bool is_special(TokenId id) const;
  /// Text without added tokens that match before the normalizer; `first` where the whole text begins.
  void encode_segment(std::string_view text, bool first, bool with_special, std::vector<TokenId>& out, EncodeScratch& scratch) const;
  void encode_words(std::string_view text, bool first, std::vector<TokenId>& out, EncodeScratch& scratch) const;
  /// Finds end_tokens and missing_bytes once everything else stands.
  void finish();
};

std::unique_ptr<Tokenizer::Impl> load_gguf_tokenizer(const TensorSource& source);
/// From the text of a tokenizer.json; `what` names it. `source`, which may be null, adds what config.json says of BOS, EOS and template.
std::unique_ptr<Tokenizer::Impl> load_json_tokenizer(std::string_view text, const std::string& what, const TensorSource* source);
/// The ids under tokenizer.ggml.X_token_id and eos_token_ids, checked against the vocabulary, as bos, eos and end_tokens; and the template.
void read_source_tokens(const TensorSource& source, Tokenizer::Impl& impl);

}  // namespace minillm
