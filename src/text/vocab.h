// vocab.h - the pieces of a vocabulary, what each is for, and the way from a piece to its id.
// Memory: the pieces and 4 to 8 bytes a piece for the index (open addressing, half full at most).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "minillm/types.h"

namespace minillm {

/// The numbers are GGUF's tokenizer.ggml.token_type.
enum class TokenKind : uint8_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

inline constexpr TokenId kNoToken = -1;
inline constexpr size_t kMaxVocab = size_t{1} << 22;

/// The byte that a piece "<0x0A>" stands for, or -1.
int byte_of_piece(std::string_view piece) noexcept;

class Vocab {
 public:
  Vocab() = default;
  /// `kinds` is as long as `pieces`. An empty piece has an id and is never found.
  /// Throws Error{kCorruptFile} on two equal pieces or more than kMaxVocab of them.
  Vocab(std::vector<std::string> pieces, std::vector<TokenKind> kinds);

  size_t size() const noexcept { return pieces_.size(); }
  bool contains(TokenId id) const noexcept { return id >= 0 && static_cast<size_t>(id) < pieces_.size(); }
  const std::string& piece(TokenId id) const noexcept { return pieces_[static_cast<size_t>(id)]; }
  TokenKind kind(TokenId id) const noexcept { return kinds_[static_cast<size_t>(id)]; }
  /// kNoToken if there is none.
  TokenId find(std::string_view piece) const noexcept;
  /// Bytes of the longest piece.
  size_t longest() const noexcept { return longest_; }

 private:
  std::vector<std::string> pieces_;
  std::vector<TokenKind> kinds_;
  std::vector<TokenId> slots_;  ///< kNoToken is an empty slot; a power of two of them.
  std::vector<uint16_t> tags_;  ///< 16 bits of the hash beside each slot: most misses end here.
  size_t longest_ = 0;
};

}  // namespace minillm
