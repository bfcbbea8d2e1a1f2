// stop_test.cpp - stop texts found wherever the stream is cut.
#include "engine/stop.h"

#include <gtest/gtest.h>

#include "support/random.h"

namespace minillm {
namespace {

struct Outcome {
  std::string text;
  bool stopped = false;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

Outcome run(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  Outcome outcome;
  for (const std::string& piece : pieces) {
    outcome.stopped = matcher.push(piece, outcome.text);
    if (outcome.stopped) return outcome;
  }
  matcher.flush(outcome.text);
  return outcome;
}

/// The definition: the shortest prefix of `text` that ends with a stop text, less the longest of those.
Outcome by_definition(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops)
      if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopMatcher, EndsBeforeAStopTextAcrossPieces) {
  EXPECT_EQ(run({"<end>"}, {"hello <e", "nd> more"}), (Outcome{"hello ", true}));
  EXPECT_EQ(run({"<end>"}, {"<", "e", "n", "d", ">"}), (Outcome{"", true}));
}

TEST(StopMatcher, GivesBackWhatOnlyLookedLikeOne) {
  EXPECT_EQ(run({"<end>"}, {"a <e", "ndless> <en"}), (Outcome{"a <endless> <en", false}));
}

TEST(StopMatcher, HoldsBackNoMoreThanAPossibleStart) {
  StopMatcher matcher({"\n\nQ:"});
  std::string out;
  EXPECT_FALSE(matcher.push("one\n", out));
  EXPECT_EQ(out, "one");
  EXPECT_FALSE(matcher.push("two", out));
  EXPECT_EQ(out, "one\ntwo");
  EXPECT_FALSE(matcher.push("\n\n\n", out));
  EXPECT_EQ(out, "one\ntwo\n");  // The newest two line ends may still begin the stop text.
}

TEST(StopMatcher, TakesTheOneThatIsCompleteFirst) {
  EXPECT_EQ(run({"abcd", "bc"}, {"xabcd"}), (Outcome{"xa", true}));
  EXPECT_EQ(run({"bc", "abc"}, {"xabc"}), (Outcome{"x", true}));  // Both complete at the c: the longer.
}

TEST(StopMatcher, WithoutStopTextsPassesEverything) { EXPECT_EQ(run({}, {"a", "", "b"}), (Outcome{"ab", false})); }

TEST(StopMatcher, DoesNotDependOnTheCuts) {
  test::Random random(5);
  const auto word = [&](int64_t longest) {
    std::string text;
    for (int64_t n = 1 + random.below(longest); n > 0; --n) text += static_cast<char>('a' + random.below(2));
    return text;
  };
  for (int trial = 0; trial < 2000; ++trial) {
    std::vector<std::string> stops;
    for (int64_t n = random.below(4); n > 0; --n) stops.push_back(word(6));
    const std::string text = word(40);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t n = static_cast<size_t>(random.below(7));
      pieces.push_back(text.substr(at, n));
      at += n;
    }
    ASSERT_EQ(run(stops, pieces), by_definition(stops, text)) << text;
  }
}

}  // namespace
}  // namespace minillm
