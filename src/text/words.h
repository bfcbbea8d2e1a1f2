// words.h - hand-written scanners for the word patterns of the large tokenizer families, equal to them on every text.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

namespace minillm {

enum class WordRule : uint8_t {
  kGpt2,          ///< '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  kLlama3,        ///< (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  kQwen2,         ///< The same with \p{N} in place of \p{N}{1,3}.
  kSingleDigits,  ///< Each number character alone.
  kDigitRuns,     ///< Runs of number characters apart from the rest.
};

/// The pattern of kGpt2, kLlama3 or kQwen2.
std::string_view pattern_of(WordRule rule);

/// The rule that is the same as `pattern`, whichever way it is usually written.
std::optional<WordRule> rule_of_pattern(std::string_view pattern);

/// Where words go one by one: a borrowed callable, `void(std::string_view)`.
class WordSink {
 public:
  template <typename F>
  requires(!std::is_same_v<F, WordSink>) WordSink(F& f)  // NOLINT(google-explicit-constructor)
      : object_(const_cast<void*>(static_cast<const void*>(&f))),
        call_([](void* object, std::string_view word) { (*static_cast<F*>(object))(word); }) {}
  void operator()(std::string_view word) const { call_(object_, word); }

 private:
  void* object_;
  void (*call_)(void*, std::string_view);
};

/// Gives out the words of `text`, valid UTF-8, in order; they borrow it.
void scan_words(WordRule rule, std::string_view text, WordSink sink);

}  // namespace minillm
