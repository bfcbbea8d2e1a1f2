// space_words.h - cuts a text of marked spaces ("▁") into words that no merge can join.
//   A merge makes a piece of the vocabulary; where no piece has a space mark right after the byte that stands there, no merge
//   crosses. Equal to working on the whole text at once, but words are short and repeat.
#pragma once

#include <algorithm>
#include <bitset>
#include <cstdint>
#include <string_view>

namespace minillm {

inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // "▁", U+2581

class SpaceWords {
 public:
  /// Takes note of a piece that a merge may make.
  void add_piece(std::string_view piece) {
    for (size_t at = piece.find(kSpaceMark, 1); at < piece.size(); at = piece.find(kSpaceMark, at + 1))
      glued_.set(static_cast<uint8_t>(piece[at - 1]));
  }
  /// Words are not independent after all: for_each gives the whole text.
  void never_cut() { glued_.set(); }

  template <typename F>
  void for_each(std::string_view text, F&& f) const {
    for (size_t begin = 0; begin < text.size();) {
      size_t end = begin;
      do {
        end = std::min(text.find(kSpaceMark, end + 1), text.size());
      } while (end < text.size() && glued_[static_cast<uint8_t>(text[end - 1])]);
      f(text.substr(begin, end - begin));
      begin = end;
    }
  }

 private:
  std::bitset<256> glued_;  ///< By the last byte before the mark.
};

}  // namespace minillm
