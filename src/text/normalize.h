// normalize.h - what happens to a text before it is cut into words.
// Source:  Unicode Standard Annex 15 (canonical ordering, composition); Hugging Face tokenizers for Prepend and Replace.
// Cost:    linear, but for runs of combining marks, which are sorted: O(n log n).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/regex.h"

namespace minillm {

enum class UnicodeForm : uint8_t { kNfc, kNfd, kNfkc, kNfkd };

/// `text` (valid UTF-8) in a normal form; nothing if it is known to be in it already.
std::optional<std::string> to_unicode_form(std::string_view text, UnicodeForm form);

class Normalizer {
 public:
  void add_form(UnicodeForm form) { steps_.emplace_back(form); }
  /// Before every text that is not empty.
  void add_prefix(std::string prefix) { steps_.emplace_back(Prefix{std::move(prefix)}); }
  /// `literal` must not be empty.
  void add_replace(std::string literal, std::string by) { steps_.emplace_back(ReplaceLiteral{std::move(literal), std::move(by)}); }
  void add_replace(Regex pattern, std::string by) { steps_.emplace_back(ReplacePattern{std::move(pattern), std::move(by)}); }
  bool empty() const noexcept { return steps_.empty(); }

  /// Throws Error{kCapacity} where a pattern passes its limits or the text grows beyond 16 times its size and 1 MiB.
  std::string apply(std::string_view text) const;

 private:
  struct Prefix {
    std::string text;
  };
  struct ReplaceLiteral {
    std::string literal, by;
  };
  struct ReplacePattern {
    Regex pattern;
    std::string by;
  };
  std::vector<std::variant<UnicodeForm, Prefix, ReplaceLiteral, ReplacePattern>> steps_;
};

}  // namespace minillm
