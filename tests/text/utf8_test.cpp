// utf8_test.cpp - wrong UTF-8 becomes U+FFFD for each maximal subpart, and cutting a text into pieces never changes that.
#include "text/utf8.h"

#include <gtest/gtest.h>

#include "support/random.h"
#include "text/utf8_stream.h"

namespace minillm {
namespace {

using test::Random;

struct Case {
  const char* name;
  std::string_view bytes;
  std::string_view want;
};

class InvalidUtf8 : public ::testing::TestWithParam<Case> {};

TEST_P(InvalidUtf8, BecomesOneReplacementForEachMaximalSubpart) { EXPECT_EQ(replace_invalid_utf8(GetParam().bytes), GetParam().want); }

// What Python's bytes.decode("utf-8", "replace") gives; the last is the example of the Unicode standard, section 3.9.
INSTANTIATE_TEST_SUITE_P(
    Table, InvalidUtf8,
    ::testing::Values(Case{"Empty", "", ""}, Case{"Ascii", "plain", "plain"}, Case{"LoneContinuation", "a\x80z", "a\uFFFDz"},
                      Case{"Overlong2", "\xC0\x80", "\uFFFD\uFFFD"}, Case{"Overlong3", "\xE0\x80\x80", "\uFFFD\uFFFD\uFFFD"},
                      Case{"Overlong4", "\xF0\x80\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},
                      Case{"Surrogate", "\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"}, Case{"LastBeforeSurrogates", "\xED\x9F\xBF", "\uD7FF"},
                      Case{"AboveLast", "\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"}, Case{"Last", "\xF4\x8F\xBF\xBF", "\U0010FFFF"},
                      Case{"NoLead", "\xF5\xFE\xFF", "\uFFFD\uFFFD\uFFFD"}, Case{"Cut2", "a\xC3", "a\uFFFD"},
                      Case{"Cut3", "\xE2\x82", "\uFFFD"}, Case{"Cut4", "\xF0\x9F\x98", "\uFFFD"},
                      Case{"CutByLetter", "\xE2\x82x", "\uFFFDx"}, Case{"CutByLead", "\xF0\x9F\xC3\xA9", "\uFFFD\u00E9"},
                      Case{"Zero", std::string_view("a\0b", 3), std::string_view("a\0b", 3)},
                      Case{"Standard", "\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64", "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd"}),
    [](const auto& test) { return test.param.name; });

std::string random_bytes(Random& random, int64_t n) {
  static constexpr uint8_t kLeads[] = {0x20, 0x61, 0x80, 0xBF, 0xC2, 0xE0, 0xE2, 0xED, 0xF0, 0xF4, 0xFF, 0x9F, 0x82};
  std::string bytes;
  for (int64_t i = 0; i < n; ++i)
    bytes.push_back(static_cast<char>(random.below(4) == 0 ? static_cast<uint8_t>(random.below(256)) : kLeads[random.below(13)]));
  return bytes;
}

TEST(Utf8, ReplacedTextIsValidAndStable) {
  Random random(1);
  for (int i = 0; i < 5000; ++i) {
    const std::string repaired = replace_invalid_utf8(random_bytes(random, random.below(40)));
    EXPECT_EQ(find_invalid_utf8(repaired), repaired.size());
    EXPECT_EQ(replace_invalid_utf8(repaired), repaired);
  }
}

TEST(Utf8, FindInvalidSeesEveryPosition) {
  for (size_t size = 1; size < 40; ++size)
    for (size_t bad = 0; bad < size; ++bad) {
      std::string text(size, 'x');
      text[bad] = '\x80';
      EXPECT_EQ(find_invalid_utf8(text), bad);
    }
}

TEST(Utf8, EveryCodePointSurvives) {
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    append_utf8(text, code);
    const Utf8Char c = decode_utf8(text, 0);
    ASSERT_TRUE(c.valid && c.code == code && c.size == text.size()) << static_cast<uint32_t>(code);
  }
}

TEST(Utf8Stream, PiecesJoinedAreTheWhole) {
  Random random(2);
  for (int i = 0; i < 5000; ++i) {
    const std::string bytes = random_bytes(random, random.below(40));
    std::string pending, joined;
    for (size_t at = 0; at < bytes.size();) {
      const size_t size = std::min(bytes.size() - at, static_cast<size_t>(1 + random.below(4)));
      pending += bytes.substr(at, size);
      const std::string piece = take_complete_utf8(pending);
      EXPECT_EQ(find_invalid_utf8(piece), piece.size());
      EXPECT_LE(pending.size(), 3u);
      joined += piece;
      at += size;
    }
    EXPECT_EQ(joined + replace_invalid_utf8(pending), replace_invalid_utf8(bytes));
  }
}

}  // namespace
}  // namespace minillm
