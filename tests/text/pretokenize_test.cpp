// pretokenize_test.cpp - the scanners against the patterns that they stand for, behaviours, hostile patterns, long runs.
#include "text/pretokenize.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "text/tokenizer_support.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace minillm {
namespace {

using test::Random;
using Words = std::vector<std::string_view>;

Words by_regex(std::string_view pattern, std::string_view text) {
  PreTokenizer words;
  words.add_pattern("(?:" + std::string(pattern) + ")");  // In brackets: no rule has that pattern, so PCRE2 runs it.
  return words.split(text);
}

class Scanned : public ::testing::TestWithParam<WordRule> {};

TEST_P(Scanned, WordsAreThoseOfThePattern) {
  Random random(7);
  for (int i = 0; i < 20000; ++i) {
    std::string text = replace_invalid_utf8(test::random_text(random, random.below(12)));
    if (random.below(3) == 0) {
      const char32_t code = static_cast<char32_t>(random.below(0x110000));
      if (code < 0xD800 || code >= 0xE000) append_utf8(text, code);
      text += random.below(2) == 0 ? "a" : " ";
    }
    Words words;
    const auto keep = [&](std::string_view word) { words.push_back(word); };
    scan_words(GetParam(), text, keep);
    ASSERT_EQ(words, by_regex(pattern_of(GetParam()), text)) << text;
  }
}

TEST_P(Scanned, EveryCharacterIsClassedAsThePatternDoes) {
  const Regex regex((std::string(pattern_of(GetParam()))));
  std::string text;
  for (char32_t code = 1; code < 0x30000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    append_utf8(text, code);
    text += code % 2 == 0 ? "a" : " 1'";
  }
  Words words;
  const auto keep = [&](std::string_view word) { words.push_back(word); };
  scan_words(GetParam(), text, keep);
  EXPECT_TRUE(words == by_regex(pattern_of(GetParam()), text));
}

INSTANTIATE_TEST_SUITE_P(Rules, Scanned, ::testing::Values(WordRule::kGpt2, WordRule::kLlama3, WordRule::kQwen2), [](const auto& test) {
  return std::string(std::array{"Gpt2", "Llama3", "Qwen2"}[static_cast<size_t>(test.param)]);
});

TEST(PreTokenizer, EveryNamedFamilyKeepsEveryByte) {
  for (const char* name :
       {"gpt-2", "smollm", "starcoder", "llama-bpe", "qwen2", "qwen35", "tekken", "gpt-4o", "deepseek-v3", "deepseek-coder", "default"}) {
    ASSERT_TRUE(PreTokenizer::knows(name));
    const PreTokenizer words = PreTokenizer::named(name);
    Random random(9);
    for (int i = 0; i < 300; ++i) {
      const std::string text = replace_invalid_utf8(test::random_text(random, random.below(30)));
      std::string joined;
      for (const std::string_view word : words.split(text)) {
        EXPECT_FALSE(word.empty());
        joined += word;
      }
      EXPECT_EQ(joined, text) << name;
    }
  }
}

TEST(PreTokenizer, AnUnknownNameIsRefusedByName) {
  test::expect_error(ErrorCode::kUnsupported, "'no-such\\x1b'", [] { PreTokenizer::named("no-such\x1b"); });
  EXPECT_FALSE(PreTokenizer::knows("no-such"));
}

TEST(PreTokenizer, SmolLmCutsDigitsOneByOneBeforeTheWords) {
  const PreTokenizer words = PreTokenizer::named("smollm");
  EXPECT_EQ(words.split("in 2024  x"), (Words{"in", " ", "2", "0", "2", "4", " ", " x"}));
}

TEST(PreTokenizer, BehavioursAreThoseOfHuggingFace) {
  const auto split = [](SplitBehavior behavior, bool invert = false) {
    PreTokenizer words;
    words.add_literal("-", behavior, invert);
    return words.split("-a--b-");
  };
  EXPECT_EQ(split(SplitBehavior::kIsolated), (Words{"-", "a", "-", "-", "b", "-"}));
  EXPECT_EQ(split(SplitBehavior::kRemoved), (Words{"a", "b"}));
  EXPECT_EQ(split(SplitBehavior::kMergedWithPrevious), (Words{"-", "a-", "-", "b-"}));
  EXPECT_EQ(split(SplitBehavior::kMergedWithNext), (Words{"-a", "-", "-b", "-"}));
  EXPECT_EQ(split(SplitBehavior::kContiguous), (Words{"-", "a", "--", "b", "-"}));
  EXPECT_EQ(split(SplitBehavior::kRemoved, /*invert=*/true), (Words{"-", "-", "-", "-"}));
}

TEST(PreTokenizer, AnEmptyMatchCutsThereAndEnds) {
  PreTokenizer words;
  words.add_pattern("(?=b)");
  EXPECT_EQ(words.split("abab\u00E9"), (Words{"a", "ba", "b\u00E9"}));
}

TEST(PreTokenizer, HostilePatternsEndInAnErrorOrAnAnswerSoon) {
  const std::string letters(30000, 'a');
  const double start = test::cpu_seconds();
  int refused = 0;
  for (const char* pattern :
       {"(?:a+)+[xy]",       "(a|aa)+[xy]",          "(a|a?)+[xy]",     "(a*)*[xy]",       "(?:a|a)*[xy]",     "(a+){10}[xy]",
        "(?:(?:a+)+)+[xy]",  "^(a?){50}a{50}[xy]",   "(.*)*[xy]",       "(?:.*a){12}[xy]", "(\\w+\\s?)+$[xy]", "((a{0,5}){0,5})*[xy]",
        "(?:a?a?a?a?)*[xy]", "(a)*(a)*(a)*(a)*[xy]", "(?=(a+))\\1[xy]", "(?:a+?)+?[xy]",   "(a+a+)+[xy]",      "([a-z]+)*[0-9]",
        "(?i:(A+)+)[xy]",    "(?:\\p{L}+)+\\d"}) {
    PreTokenizer words;
    try {
      words.add_pattern(pattern);
      words.split(letters);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCapacity) << pattern << ": " << error.what();
      ++refused;
    }
  }
  EXPECT_LT(test::cpu_seconds() - start, 2.0 * test::kSlow);
  EXPECT_GT(refused, 5);  // A limit that is passed is said, never taken for "no match here".
}

TEST(PreTokenizer, WrongPatternsAreRefused) {
  test::expect_error(ErrorCode::kCorruptFile, "pattern '(a'", [] { Regex("(a"); });
  test::expect_error(ErrorCode::kCorruptFile, "65536", [] { Regex(std::string(100000, 'a')); });
}

TEST(Regex, OnigurumaSyntaxIsTranslatedOrRefused) {
  EXPECT_EQ(from_oniguruma("\\p{L}+|[^\\s\\d]"), "\\p{L}+|[^\\s\\d]");
  EXPECT_EQ(from_oniguruma("\\w[\\w-]\\W"), "[\\p{L}\\p{M}\\p{Nd}\\p{Pc}][\\p{L}\\p{M}\\p{Nd}\\p{Pc}-][^\\p{L}\\p{M}\\p{Nd}\\p{Pc}]");
  EXPECT_EQ(from_oniguruma("\\h"), "[0-9a-fA-F]");
  EXPECT_EQ(from_oniguruma("[[:punct:]]\\["), "[[:punct:]]\\[");
  for (const char* pattern : {"\\bword", "a\\K", "[a-z&&[b]]", "[[ab]]", "[\\W]", "(?m:.)", "\\R", "\\X"})
    test::expect_error(ErrorCode::kUnsupported, "is not supported", [&] { from_oniguruma(pattern); });
}

TEST(Unicode, NewCharactersAreReplacedByOnesOfTheSameSizeAndClass) {
  EXPECT_FALSE(align_unicode("plain \u4E2D\U0001F600"));
  for (char32_t code : {U'\u180E', U'\u1C89', U'\U00010D40', U'\U000105C0', U'\U0001FAE9'}) {
    std::string text = "x";
    append_utf8(text, code);
    const auto aligned = align_unicode(text);
    ASSERT_TRUE(aligned);
    ASSERT_EQ(aligned->size(), text.size());
    EXPECT_EQ(char_classes()[decode_utf8(*aligned, 1).code], char_classes()[code]);
  }
}

/// A million bytes of each awkward kind in a time that grows with the size, for every family.
class LongRuns : public ::testing::TestWithParam<const char*> {};

TEST_P(LongRuns, TakeLinearTime) {
  const PreTokenizer words = PreTokenizer::named(GetParam());
  for (std::string_view unit :
       {"A", "a", "0", ".", "'", " ", "\n", "\u4E2D", "\U0001F600", "\u0301", "\u200D", "a ", " \n", "'s", "1a", ". "}) {
    double times[2] = {1e9, 1e9};
    for (int i = 0; i < 4; ++i) {
      std::string text;
      while (text.size() < (i % 2 == 0 ? test::kLong / 8 : test::kLong)) text += unit;
      const double start = test::cpu_seconds();
      size_t total = 0;
      const auto count = [&](std::string_view word) { total += word.size(); };
      words.split(text, count);
      EXPECT_EQ(total, text.size());
      times[i % 2] = std::min(times[i % 2], test::cpu_seconds() - start);
    }
    EXPECT_LT(times[1], 1.0 * test::kSlow) << unit;
    EXPECT_LT(times[1] / times[0], 24) << unit;  // 8 times the text; a quadratic step would take 64 times as long.
  }
}

INSTANTIATE_TEST_SUITE_P(Families, LongRuns,
                         ::testing::Values("gpt-2", "smollm", "llama-bpe", "qwen2", "qwen35", "tekken", "gpt-4o", "deepseek-v3",
                                           "deepseek-coder", "default"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::erase_if(name, [](char c) { return c == '-'; });
                           return name;
                         });

}  // namespace
}  // namespace minillm
