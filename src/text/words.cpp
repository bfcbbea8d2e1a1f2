#include "text/words.h"

#include "base/check.h"
#include "text/unicode.h"

namespace minillm {
namespace {

/// Classes and sizes of the characters of valid UTF-8.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text), classes_(char_classes()) {}

  size_t end() const noexcept { return text_.size(); }
  char byte(size_t at) const noexcept { return at < text_.size() ? text_[at] : '\0'; }
  /// Class of the character at `at` and where the next one starts; at the end no class.
  uint8_t look(size_t at, size_t& next) const noexcept {
    if (at >= text_.size()) return next = at, uint8_t{0};
    const auto byte_at = [&](size_t i) { return static_cast<char32_t>(static_cast<uint8_t>(text_[i])); };
    const char32_t lead = byte_at(at);
    if (lead < 0x80) return next = at + 1, classes_[lead];
    if (lead < 0xE0) return next = at + 2, classes_[(lead & 0x1F) << 6 | (byte_at(at + 1) & 0x3F)];
    if (lead < 0xF0) return next = at + 3, classes_[(lead & 0x0F) << 12 | (byte_at(at + 1) & 0x3F) << 6 | (byte_at(at + 2) & 0x3F)];
    next = at + 4;
    return classes_[(lead & 0x07) << 18 | (byte_at(at + 1) & 0x3F) << 12 | (byte_at(at + 2) & 0x3F) << 6 | (byte_at(at + 3) & 0x3F)];
  }
  /// End of the run of characters, from `at`, whose class has a bit of `wanted` (or, inverted, none of it), `most` at most.
  size_t run(size_t at, uint8_t wanted, bool inverted = false, size_t most = SIZE_MAX) const noexcept {
    for (; at < text_.size() && most > 0; --most) {
      size_t next = at;
      if (((look(at, next) & wanted) != 0) == inverted) break;
      at = next;
    }
    return at;
  }
  size_t newlines(size_t at) const noexcept {
    while (byte(at) == '\r' || byte(at) == '\n') ++at;
    return at;
  }
  /// \s+(?!\S)|\s+ where a space stands: a run gives its last character to the word after it.
  size_t spaces(size_t at) const noexcept {
    size_t last = at, next = at;
    for (size_t i = at; i < text_.size() && (look(i, next) & kSpace) != 0; i = next) last = i;
    const size_t stop = run(last, kSpace);
    return stop == text_.size() || last == at ? stop : last;
  }

 private:
  std::string_view text_;
  const uint8_t* classes_;
};

constexpr uint8_t kWordOrSpace = kLetter | kNumber | kSpace;

/// Size of "'s", "'ll" and so on at `at`, or 0. With `any_case` also upper case and "ſ" (U+017F), which folds to "s".
size_t contraction(const Scanner& text, size_t at, bool any_case) {
  if (text.byte(at) != '\'') return 0;
  const auto letter = [&](size_t i) {
    const char c = text.byte(i);
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  const char first = letter(at + 1), second = letter(at + 2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l')) return 3;
  return any_case && first == '\xC5' && second == '\xBF' ? 3 : 0;
}

size_t gpt2_word(const Scanner& text, size_t at) {
  if (const size_t size = contraction(text, at, false)) return at + size;
  const size_t start = text.byte(at) == ' ' ? at + 1 : at;
  size_t next = start;
  const uint8_t kind = text.look(start, next);
  if (start < text.end()) {
    if ((kind & kLetter) != 0) return text.run(next, kLetter);
    if ((kind & kNumber) != 0) return text.run(next, kNumber);
    if ((kind & kSpace) == 0) return text.run(next, kWordOrSpace, true);
  }
  return text.spaces(at);
}

size_t llama3_word(const Scanner& text, size_t at, size_t digits) {
  if (const size_t size = contraction(text, at, true)) return at + size;
  size_t next = at, after = at;
  const uint8_t kind = text.look(at, next);
  const bool newline = text.byte(at) == '\r' || text.byte(at) == '\n';
  if ((kind & kLetter) != 0) return text.run(next, kLetter);
  if ((kind & kNumber) != 0) return text.run(at, kNumber, false, digits);
  if (!newline && (text.look(next, after) & kLetter) != 0) return text.run(next, kLetter);
  const size_t start = text.byte(at) == ' ' ? at + 1 : at;
  if (start < text.end() && (text.look(start, after) & kWordOrSpace) == 0) return text.newlines(text.run(start, kWordOrSpace, true));
  const size_t stop = text.run(at, kSpace);  // \s*[\r\n]+: up to the run's last newline.
  for (size_t i = stop; i > at; --i)
    if (text.byte(i - 1) == '\r' || text.byte(i - 1) == '\n') return i;
  return text.spaces(at);
}

}  // namespace

std::string_view pattern_of(WordRule rule) {
  switch (rule) {
    case WordRule::kGpt2:
      return "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    case WordRule::kLlama3:
      return "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
             "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    case WordRule::kQwen2:
      return "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
             "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    case WordRule::kSingleDigits:
    case WordRule::kDigitRuns:
      break;  // Their Unicode is newer than any pattern's.
  }
  MINILLM_CHECK(false, "no pattern");
}

std::optional<WordRule> rule_of_pattern(std::string_view pattern) {
  for (const WordRule rule : {WordRule::kGpt2, WordRule::kLlama3, WordRule::kQwen2})
    if (pattern == pattern_of(rule)) return rule;
  // The same in the words of GPT-2's own code.
  if (pattern == "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+") return WordRule::kGpt2;
  return {};
}

void scan_words(WordRule rule, std::string_view text, WordSink sink) {
  const Scanner scanner(text);
  for (size_t at = 0; at < text.size();) {
    size_t stop = at;
    switch (rule) {
      case WordRule::kGpt2:
        stop = gpt2_word(scanner, at);
        break;
      case WordRule::kLlama3:
        stop = llama3_word(scanner, at, 3);
        break;
      case WordRule::kQwen2:
        stop = llama3_word(scanner, at, 1);
        break;
      case WordRule::kSingleDigits:
        stop = scanner.run(at, kDigit, false, 1);
        if (stop == at) stop = scanner.run(at, kDigit, true);
        break;
      case WordRule::kDigitRuns:
        stop = scanner.run(at, kDigit);
        if (stop == at) stop = scanner.run(at, kDigit, true);
        break;
    }
    sink(text.substr(at, stop - at));
    at = stop;
  }
}

}  // namespace minillm
