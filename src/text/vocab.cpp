#include "text/vocab.h"

#include <algorithm>
#include <bit>

#include "minillm/error.h"
#include "text/hash.h"

namespace minillm {
namespace {

uint16_t tag_of(uint64_t hash) noexcept { return static_cast<uint16_t>(hash >> 48); }

int hex_digit(char c) noexcept { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

}  // namespace

int byte_of_piece(std::string_view piece) noexcept {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  const int high = hex_digit(piece[3]), low = hex_digit(piece[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

Vocab::Vocab(std::vector<std::string> pieces, std::vector<TokenKind> kinds) : pieces_(std::move(pieces)), kinds_(std::move(kinds)) {
  if (pieces_.size() > kMaxVocab)
    throw Error(ErrorCode::kCorruptFile, "vocabulary of ", pieces_.size(), " tokens; at most ", kMaxVocab, " are accepted");
  const size_t n_slots = std::bit_ceil(2 * pieces_.size() + 1);
  slots_.assign(n_slots, kNoToken);
  tags_.assign(n_slots, 0);
  for (size_t id = 0; id < pieces_.size(); ++id) {
    const std::string& piece = pieces_[id];
    if (piece.empty()) continue;
    longest_ = std::max(longest_, piece.size());
    const uint64_t hash = hash_bytes(piece);
    size_t slot = hash & (n_slots - 1);
    for (; slots_[slot] != kNoToken; slot = (slot + 1) & (n_slots - 1))
      if (tags_[slot] == tag_of(hash) && pieces_[static_cast<size_t>(slots_[slot])] == piece)
        throw Error(ErrorCode::kCorruptFile, "vocabulary: tokens ", slots_[slot], " and ", id, " have the same text");
    slots_[slot] = static_cast<TokenId>(id);
    tags_[slot] = tag_of(hash);
  }
}

TokenId Vocab::find(std::string_view piece) const noexcept {
  if (piece.empty() || piece.size() > longest_) return kNoToken;
  const uint64_t hash = hash_bytes(piece);
  for (size_t slot = hash & (slots_.size() - 1); slots_[slot] != kNoToken; slot = (slot + 1) & (slots_.size() - 1))
    if (tags_[slot] == tag_of(hash) && pieces_[static_cast<size_t>(slots_[slot])] == piece) return slots_[slot];
  return kNoToken;
}

}  // namespace minillm
