// bpe.h - byte-pair encoding by merge rank, over bytes (GPT-2) or over characters with byte fallback (Gemma's tokenizer.json).
//   Byte level: a vocabulary writes byte b as one printable character (the 188 printable Latin-1 bytes as themselves, the other
//   68 as U+0100 onwards: " " is "Ġ"). Inside, words stay plain bytes; only the table of the 256 byte tokens knows.
// Source:  Radford et al. 2019 (GPT-2), bytes_to_unicode; Hugging Face tokenizers, models/bpe, for what happens to what the
//          vocabulary lacks.
// Threads: const after construction; scratch is the caller's.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/merge.h"
#include "text/space_words.h"
#include "text/vocab.h"

namespace minillm {

struct BpeOptions {
  bool byte_level = true;
  bool ignore_merges = false;  ///< A word that is a piece is that token, whatever the merges say (Llama 3).
  bool byte_fallback = false;  ///< Characters only: what is no piece becomes its bytes' "<0x..>" tokens.
  bool fuse_unknown = false;   ///< Characters only: a run of unknown characters is one unknown token.
  TokenId unknown = kNoToken;  ///< Without it, what the vocabulary lacks is dropped.
};

class Bpe {
 public:
  /// `merges` in order of rank. `vocab` is borrowed and must outlive this.
  /// Throws Error{kCorruptFile} naming a merge whose parts or result are no pieces.
  Bpe(const Vocab& vocab, const std::vector<std::pair<std::string, std::string>>& merges, const BpeOptions& options);

  /// Appends the tokens of one pre-tokenized word (of characters: it may be a whole text) of valid UTF-8.
  void encode(std::string_view word, std::vector<TokenId>& out, EncodeScratch& scratch) const;

  /// The token of each byte, kNoToken where there is none.
  const std::array<TokenId, 256>& byte_tokens() const noexcept { return byte_tokens_; }

 private:
  struct Slot {
    uint64_t pair = UINT64_MAX;  ///< left << 32 | right.
    Merge merge;
  };
  Merge find(TokenId left, TokenId right) const noexcept;
  void add_merge(TokenId left, TokenId right, Merge merge);
  void encode_cached(std::string_view word, std::vector<TokenId>& out, EncodeScratch& scratch) const;
  void encode_word(std::string_view word, std::vector<TokenId>& out, EncodeScratch& scratch) const;
  uint32_t add_bytes(std::string_view word, SymbolRun& run) const;
  uint32_t add_characters(std::string_view word, SymbolRun& run) const;

  const Vocab* vocab_;
  BpeOptions options_;
  std::array<TokenId, 256> byte_tokens_;
  std::vector<Slot> slots_;
  SpaceWords words_;  ///< Characters only.
};

/// "Ġthe" to " the": the bytes behind a byte-level piece; a piece with another character is its own UTF-8.
std::string byte_level_bytes(std::string_view piece);
/// " the" to "Ġthe".
std::string byte_level_piece(std::string_view bytes);

}  // namespace minillm
