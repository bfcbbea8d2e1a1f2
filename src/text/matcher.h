// matcher.h - finds given strings (added and special tokens) in a text: leftmost first, of those the longest.
//   A trie with a table of first bytes, so that text without any costs one look-up a byte.
// Cost: O(n m) for strings of m bytes at most; kMaxMatchBytes bounds m.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "minillm/types.h"

namespace minillm {

inline constexpr size_t kMaxMatchBytes = 1024;

class Matcher {
 public:
  struct Match {
    size_t begin = 0, size = 0;  ///< size 0: none.
    int32_t value = -1;
  };

  Matcher();
  /// The later of two equal strings wins. Throws Error{kUnsupported} if `text` is longer than kMaxMatchBytes or empty.
  void add(std::string_view text, int32_t value);
  bool empty() const noexcept { return nodes_.size() == 1; }

  /// The first match at or after `from`.
  Match find(std::string_view text, size_t from) const noexcept;

 private:
  struct Node {
    int32_t value = -1;
    int32_t child = -1, sibling = -1;  ///< First child; next child of the same parent.
    uint8_t byte = 0;
  };
  int32_t child_of(int32_t node, uint8_t byte) const noexcept;

  std::vector<Node> nodes_;
  std::array<int32_t, 256> first_;  ///< Children of the root.
};

}  // namespace minillm
