// words.h - hand-written scanners for the word patterns of the large tokenizer families, equal to them on every text.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

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

/// Appends the words of `text`, valid UTF-8; they borrow it.
void scan_words(WordRule rule, std::string_view text, std::vector<std::string_view>& words);

}  // namespace minillm
