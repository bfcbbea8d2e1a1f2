// spm.h - SentencePiece's BPE model, as GGUF's tokenizer.ggml.model = "llama" stores it (Llama 2, Mistral 7B, Gemma).
//   Text has its spaces written as U+2581 ("▁"). User-defined pieces are cut out first, longest first from the left, and join
//   nothing. Of the rest, neighbours whose joined text is a piece are joined, highest score first. What is no piece at
//   the end becomes its bytes' tokens, or the unknown token.
// Source:  Kudo & Richardson 2018, arXiv:1808.06226; google/sentencepiece bpe_model.cc for ties (leftmost first), for unused
//          pieces (joined through, then taken apart again) and for control pieces (never made from text).
// Threads: const after construction; scratch is the caller's.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/matcher.h"
#include "text/merge.h"
#include "text/space_words.h"
#include "text/vocab.h"

namespace minillm {

class Spm {
 public:
  /// `vocab` is borrowed and must outlive this; `scores` has one for each piece. `unknown` may be kNoToken.
  /// Throws Error{kCorruptFile} on a score that is not finite, and where neither all byte tokens nor an unknown token exist.
  Spm(const Vocab& vocab, const std::vector<double>& scores, TokenId unknown);

  /// Appends the tokens of `text`: valid UTF-8, spaces already written as kSpaceMark.
  void encode(std::string_view text, std::vector<TokenId>& out, EncodeScratch& scratch) const;

  /// The user-defined pieces, with spaces as kSpaceMark; values are ids.
  const Matcher& user_defined() const noexcept { return user_defined_; }
  const std::array<TokenId, 256>& byte_tokens() const noexcept { return byte_tokens_; }

 private:
  Merge find(std::string_view joined) const noexcept;
  void encode_word(std::string_view word, std::vector<TokenId>& out, EncodeScratch& scratch) const;
  void encode_plain(std::string_view text, std::vector<TokenId>& out, EncodeScratch& scratch) const;
  void add_symbol(std::string_view symbol, std::vector<TokenId>& out) const;

  const Vocab* vocab_;
  TokenId unknown_;
  bool has_unused_ = false;
  std::vector<uint32_t> priorities_;  ///< By id: lower is joined first; kNoMerge for what text never becomes.
  std::array<TokenId, 256> byte_tokens_;
  Matcher user_defined_;
  SpaceWords words_;
};

}  // namespace minillm
