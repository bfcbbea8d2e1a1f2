// word_cache.h - what a word of this very text became the last time. Natural text repeats itself: on English nine words of ten hit.
//   A direct-mapped table of places: where the word stood in the text, where its tokens stand in the output. Nothing is copied
//   to keep, and a cache belongs to one encode() call, so threads share nothing.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string_view>
#include <vector>

#include "minillm/types.h"
#include "text/hash.h"

namespace minillm {

class WordCache {
 public:
  /// Forgets everything; from here on words must point into a text that lives until the next start().
  void start(size_t text_bytes) {
    // About one slot for 16 bytes of text; a short text repeats too little to pay for the table.
    slots_.assign(text_bytes < 256 ? 0 : std::clamp(std::bit_ceil(text_bytes / 16), size_t{16}, size_t{1} << 14), Slot{});
  }
  /// Appends the word's tokens to `out` if it is known.
  bool copy(std::string_view word, std::vector<TokenId>& out) {
    if (slots_.empty() || word.size() > kLongest) return false;
    const Slot& slot = slots_[hash_bytes(word) & (slots_.size() - 1)];
    if (slot.word != word) return false;
    const size_t begin = out.size();
    out.resize(begin + slot.n_tokens);
    std::copy_n(out.begin() + static_cast<std::ptrdiff_t>(slot.tokens), slot.n_tokens, out.begin() + static_cast<std::ptrdiff_t>(begin));
    return true;
  }
  /// Says that `word` became out[tokens...].
  void store(std::string_view word, size_t tokens, const std::vector<TokenId>& out) {
    if (slots_.empty() || word.size() > kLongest) return;
    slots_[hash_bytes(word) & (slots_.size() - 1)] = {word, tokens, static_cast<uint32_t>(out.size() - tokens)};
  }

 private:
  static constexpr size_t kLongest = 64;
  struct Slot {
    std::string_view word;
    size_t tokens = 0;
    uint32_t n_tokens = 0;
  };
  std::vector<Slot> slots_;
};

}  // namespace minillm
