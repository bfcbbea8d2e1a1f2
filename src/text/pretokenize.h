// pretokenize.h - cuts a text into words, the pieces that byte-pair merges never cross.
//   A list of steps; each cuts every piece that the step before left, and sees nothing around it. Pieces run through all steps
//   one by one, so a long text needs no memory. The patterns of the large families are
//   scanned by hand (words.h), ten times as fast as a regular expression; every other pattern runs in PCRE2.
// Source:  the tokenizer.json files of the families; Hugging Face tokenizers for what each behaviour means.
// Threads: const after construction.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/regex.h"
#include "text/words.h"

namespace minillm {

/// What happens to the text that a pattern matches, as Hugging Face names it.
enum class SplitBehavior : uint8_t { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

class PreTokenizer {
 public:
  /// The steps of a GGUF file's tokenizer.ggml.pre. Throws Error{kUnsupported} naming one that is not known.
  static PreTokenizer named(std::string_view name);
  /// True where named() would not throw.
  static bool knows(std::string_view name);

  /// Adds a step. A pattern that a scanner implements is scanned. Throws as Regex does.
  void add_pattern(const std::string& pattern, SplitBehavior behavior = SplitBehavior::kIsolated, bool invert = false);
  /// The same for a plain string, which must not be empty.
  void add_literal(const std::string& literal, SplitBehavior behavior, bool invert = false);
  /// Numbers apart from the rest, one by one or in runs.
  void add_digits(bool individual);

  /// Gives out the pieces of `text` (valid UTF-8), in order, none empty; they borrow `text`, and none is kept here. Throws as
  /// RegexMatcher::find does.
  void split(std::string_view text, WordSink sink) const;
  std::vector<std::string_view> split(std::string_view text) const;

 private:
  struct PatternStep {
    std::variant<Regex, std::string> pattern;  ///< A string is searched for as it is.
    SplitBehavior behavior;
    bool invert;
  };
  using Step = std::variant<WordRule, PatternStep>;
  using Matchers = std::vector<std::optional<RegexMatcher>>;
  void split_from(size_t step, std::string_view piece, Matchers& matchers, WordSink sink) const;

  std::vector<Step> steps_;
};

}  // namespace minillm
