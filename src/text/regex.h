// regex.h - PCRE2 with JIT and limits: a pattern from a file may be hostile, a text always is.
// Why not std::regex: it recurses on the input and ends the process on 26,000 letters.
// Limits:  a match that needs more than 1,000,000 steps and 16 a byte is an Error, never "no match here".
// Threads: a Regex is const and shared; a RegexMatcher belongs to one thread.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace minillm {

class Regex {
 public:
  /// UTF and Unicode classes on; ^ and $ match at every line. Throws Error{kCorruptFile} with PCRE2's message for a pattern that does not
  /// compile.
  explicit Regex(std::string pattern);
  const std::string& pattern() const noexcept { return pattern_; }

 private:
  friend class RegexMatcher;
  std::string pattern_;
  std::shared_ptr<void> code_;  ///< pcre2_code: immutable, so copies share it.
};

/// A pattern in the syntax of Oniguruma (Ruby's, which tokenizer.json files are written in) as PCRE2 writes it.
/// Throws Error{kUnsupported} for what would mean something else.
std::string from_oniguruma(std::string_view pattern);

class RegexMatcher {
 public:
  /// `regex` must outlive this.
  explicit RegexMatcher(const Regex& regex);

  struct Match {
    size_t begin = 0, end = 0;
    bool found = false;
  };
  /// The leftmost match in `text` (valid UTF-8) that begins at `from` or later; an empty one only if `allow_empty`.
  /// Throws Error{kCapacity} when a limit is passed.
  Match find(std::string_view text, size_t from, bool allow_empty = true);

 private:
  const Regex* regex_;
  std::shared_ptr<void> data_, context_, stack_;
};

}  // namespace minillm
