// added_tokens.h - tokens that are cut out of a text before anything else happens to it: special ones ("<|im_end|>", only where asked
// for) and user-defined ones, with Hugging Face's flags.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/matcher.h"

namespace minillm {

struct AddedToken {
  TokenId id = 0;
  std::string text;
  bool special = false;     ///< Only where the caller asks for special tokens.
  bool normalized = false;  ///< Matched after the normalizer, else before.
  bool lstrip = false;      ///< Takes the white space before it along,
  bool rstrip = false;      ///< or after it.
};

class AddedTokens {
 public:
  /// Ignores an empty text. Throws Error{kUnsupported} if it is longer than kMaxMatchBytes.
  void add(AddedToken token);
  bool any_normalized() const noexcept { return !matchers_[1][1].empty(); }

  /// A run of plain text (`id` is kNone) or a token.
  struct Part {
    static constexpr TokenId kNone = -1;
    std::string_view text;
    TokenId id = kNone;
  };
  /// Cuts `text`, leftmost and longest first, at the tokens of one stage; no part is empty.
  std::vector<Part> split(std::string_view text, bool normalized, bool with_special) const;

 private:
  std::vector<AddedToken> tokens_;
  Matcher matchers_[2][2];  ///< [normalized][with special]; values index tokens_.
};

}  // namespace minillm
