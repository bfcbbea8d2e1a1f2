#include "text/pretokenize.h"

#include <optional>

#include "base/check.h"
#include "io/printable.h"
#include "minillm/error.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace minillm {
namespace {

// Patterns in the words of the families' own tokenizer.json.
constexpr std::string_view kSingleDigit = "\\p{N}";
constexpr std::string_view kQwen35 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| "
    "?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kTekken =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|"
    "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kGpt4o =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kDeepSeekV3Words =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
    "?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

struct Family {
  std::vector<std::string_view> names;
  std::vector<std::string_view> patterns;
};

/// One line a family; the names are those that GGUF files carry.
const std::vector<Family>& families() {
  static const std::string_view gpt2 = pattern_of(WordRule::kGpt2), llama3 = pattern_of(WordRule::kLlama3),
                                qwen2 = pattern_of(WordRule::kQwen2);
  static const std::vector<Family> all = {
      {{"gpt-2", "phi-2", "mpt", "olmo", "jais", "roberta-bpe", "jina-es", "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de",
        "jina-v2-code", "modern-bert", "trillion", "granite-docling", "exaone4"},
       {gpt2}},
      {{"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}, {kSingleDigit, gpt2}},
      {{"llama-bpe", "llama3", "llama-v3", "dbrx", "smaug-bpe", "falcon3", "falcon-h1", "pixtral", "lfm2", "chatglm-bpe", "glm4"},
       {llama3}},
      {{"qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez", "grok-2"}, {qwen2}},
      {{"qwen35"}, {kQwen35}},
      {{"tekken"}, {kTekken}},
      {{"gpt-4o", "llama4"}, {kGpt4o}},
      {{"deepseek-v3", "hunyuan-dense"}, {"\\p{N}{1,3}", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+", kDeepSeekV3Words}},
      {{"deepseek-coder"}, {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+", "\\p{N}"}},
      // What llama.cpp applies where a file names none; no original exists.
      {{"default"}, {"[\\p{P}\\$\\+<=>\\^~\\|]+", gpt2, "\\p{N}+", "[0-9][0-9][0-9]"}},
  };
  return all;
}

const Family* find_family(std::string_view name) {
  for (const Family& family : families())
    for (const std::string_view known : family.names)
      if (known == name) return &family;
  return nullptr;
}

/// Gives out pieces as a behaviour wants them, from alternating text that does and does not match. The last piece is held back,
/// since the next may be joined to it.
class Splitter {
 public:
  Splitter(std::string_view text, SplitBehavior behavior, bool invert, WordSink sink)
      : text_(text), behavior_(behavior), invert_(invert), sink_(sink) {}

  /// The match [begin, end), in order; empty ones cut there.
  void match(size_t begin, size_t end) {
    if (begin > at_) part(at_, begin, invert_);
    if (end > begin) part(begin, end, !invert_);
    if (begin == end) flush();
    at_ = end;
  }
  void finish() {
    if (at_ < text_.size()) part(at_, text_.size(), invert_);
    flush();
  }

 private:
  void flush() {
    if (held_end_ > held_begin_) sink_(text_.substr(held_begin_, held_end_ - held_begin_));
    held_begin_ = held_end_;
  }
  void part(size_t begin, size_t end, bool matched) {
    const bool join = held_end_ > held_begin_ && ((behavior_ == SplitBehavior::kMergedWithPrevious && matched && !last_matched_) ||
                                                  (behavior_ == SplitBehavior::kMergedWithNext && !matched && last_matched_) ||
                                                  (behavior_ == SplitBehavior::kContiguous && matched == last_matched_));
    last_matched_ = matched;
    if (!join) {
      flush();
      held_begin_ = begin;
    }
    held_end_ = end;
    if (behavior_ == SplitBehavior::kRemoved && matched) held_begin_ = end;
  }

  std::string_view text_;
  SplitBehavior behavior_;
  bool invert_;
  WordSink sink_;
  size_t at_ = 0, held_begin_ = 0, held_end_ = 0;
  bool last_matched_ = false;
};

void split_by_regex(RegexMatcher& matcher, std::string_view text, Splitter& splitter) {
  const std::optional<std::string> aligned = align_unicode(text);
  const std::string_view subject = aligned ? std::string_view(*aligned) : text;
  for (size_t from = 0; from <= text.size();) {
    const RegexMatcher::Match match = matcher.find(subject, from);
    if (!match.found) break;
    splitter.match(match.begin, match.end);
    from = match.end;
    if (match.begin < match.end) continue;
    if (from == text.size()) break;
    from += decode_utf8(subject, from).size;
  }
  splitter.finish();
}

void split_by_literal(std::string_view literal, std::string_view text, Splitter& splitter) {
  for (size_t at = text.find(literal); at != std::string_view::npos; at = text.find(literal, at + literal.size()))
    splitter.match(at, at + literal.size());
  splitter.finish();
}

}  // namespace

bool PreTokenizer::knows(std::string_view name) { return find_family(name) != nullptr; }

PreTokenizer PreTokenizer::named(std::string_view name) {
  const Family* family = find_family(name);
  if (family == nullptr) throw Error(ErrorCode::kUnsupported, "pre-tokenizer ", printable(name), " (tokenizer.ggml.pre) is not known");
  PreTokenizer out;
  for (const std::string_view pattern : family->patterns) {
    if (pattern == kSingleDigit)  // Digits in the original files, whose Unicode is newer.
      out.add_digits(true);
    else
      out.add_pattern(std::string(pattern));
  }
  return out;
}

void PreTokenizer::add_pattern(const std::string& pattern, SplitBehavior behavior, bool invert) {
  const std::optional<WordRule> rule = rule_of_pattern(pattern);
  // A rule's pattern matches every character of every text, so what is isolated and what is not a match never differ.
  if (rule && behavior == SplitBehavior::kIsolated)
    steps_.emplace_back(*rule);
  else
    steps_.emplace_back(PatternStep{Regex(pattern), behavior, invert});
}

void PreTokenizer::add_literal(const std::string& literal, SplitBehavior behavior, bool invert) {
  MINILLM_CHECK(!literal.empty(), "empty literal");
  steps_.emplace_back(PatternStep{literal, behavior, invert});
}

void PreTokenizer::add_digits(bool individual) { steps_.emplace_back(individual ? WordRule::kSingleDigits : WordRule::kDigitRuns); }

void PreTokenizer::split_from(size_t step, std::string_view piece, Matchers& matchers, WordSink sink) const {
  if (step == steps_.size()) return sink(piece);  // The depth is the number of steps, whatever the text.
  const auto next = [&](std::string_view part) { split_from(step + 1, part, matchers, sink); };
  if (const auto* rule = std::get_if<WordRule>(&steps_[step])) return scan_words(*rule, piece, next);
  const auto& pattern = std::get<PatternStep>(steps_[step]);
  Splitter splitter(piece, pattern.behavior, pattern.invert, next);
  if (const auto* regex = std::get_if<Regex>(&pattern.pattern)) {
    if (!matchers[step]) matchers[step].emplace(*regex);
    split_by_regex(*matchers[step], piece, splitter);
  } else {
    split_by_literal(std::get<std::string>(pattern.pattern), piece, splitter);
  }
}

void PreTokenizer::split(std::string_view text, WordSink sink) const {
  Matchers matchers(steps_.size());
  if (!text.empty()) split_from(0, text, matchers, sink);
}

std::vector<std::string_view> PreTokenizer::split(std::string_view text) const {
  std::vector<std::string_view> pieces;
  const auto keep = [&](std::string_view piece) { pieces.push_back(piece); };
  split(text, keep);
  return pieces;
}

}  // namespace minillm
