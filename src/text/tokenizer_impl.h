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
#include "text/bpe.h"
#include "text/matcher.h"
#include "text/pretokenize.h"
#include "text/spm.h"
#include "text/vocab.h"

namespace minillm {

/// How the vocabulary writes bytes.
enum class PieceStyle : uint8_t { kByteLevel, kMarkedSpaces };

struct Tokenizer::Impl {
  Impl() = default;
  Impl(const Impl&) = delete;  // The models borrow `vocab`.
  Impl& operator=(const Impl&) = delete;

  Vocab vocab;
  PieceStyle style = PieceStyle::kByteLevel;
  Matcher added;             ///< Tokens that any text may hold; values are ids.
  Matcher added_or_special;  ///< These and the special ones.
  PreTokenizer words;
  std::variant<std::monostate, Bpe, Spm> model;
  bool space_prefix = false;  ///< A space goes before a text, and comes off again in decode.

  std::vector<TokenId> prefix, suffix;  ///< Around a text with add_special_tokens.
  std::optional<TokenId> bos, eos;
  std::vector<TokenId> end_tokens;
  std::vector<uint8_t> missing_bytes;
  std::string chat_template;

  TokenId check(TokenId id) const;
  std::string bytes_of(TokenId id) const;
  bool is_special(TokenId id) const;
  void encode_segment(std::string_view text, bool first, std::vector<TokenId>& out, EncodeScratch& scratch) const;
  /// Finds end_tokens and missing_bytes once everything else stands.
  void finish();
};

std::unique_ptr<Tokenizer::Impl> load_gguf_tokenizer(const TensorSource& source);

}  // namespace minillm
