// cached_generation_test.cpp - generate_cached: the same tokens as generate() whatever was cached before, and only new ones computed.
#include <gtest/gtest.h>

#include "engine_support.h"
#include "minillm/generator.h"
#include "support/expect_error.h"
#include "support/same_bits.h"

namespace minillm {
namespace {

using namespace test;

class CachedGeneration : public ::testing::Test {
 protected:
  CachedText empty() const { return {KVCache(model_.config(), {.device = model_.device()})}; }
  std::vector<TokenId> plain(const Prompt& prompt, const GenerationOptions& options) {
    const std::vector<TokenId> all = TextGenerator(model_).generate(prompt, options);
    return {all.begin() + static_cast<ptrdiff_t>(prompt.size()), all.end()};
  }

  const test::SameBitsInAnyStep same_bits_;  // Before the model, which is made for it.
  MiniLLM model_ = load(tiny_model("llama"), "cpu");
};

GenerationOptions sampled(int64_t n) {
  GenerationOptions options;
  options.max_new_tokens = n;
  options.temperature = 1.0f;
  options.repetition_penalty = 1.2f;
  options.frequency_penalty = 0.3f;
  options.seed = 7;
  return options;
}

TEST_F(CachedGeneration, GivesTheSameTokensAsWithoutWhateverTheCacheHolds) {
  for (const int64_t chunk : {1, 5, 512}) {
    TextGenerator generator(model_, {.prefill_chunk = chunk});
    CachedText text = empty();
    Prompt prompt = random_prompt(1, 40);
    for (int turn = 0; turn < 4; ++turn) {
      const Generation got = generator.generate_cached(text, prompt, sampled(25));
      EXPECT_EQ(got.ids, plain(prompt, sampled(25))) << chunk << " " << turn;
      EXPECT_EQ(got.finish_reason, FinishReason::kLength);
      EXPECT_EQ(text.tokens.size(), prompt.size() + 24) << "all but the last token are held";
      EXPECT_EQ(text.cache.lengths()[0], static_cast<int64_t>(text.tokens.size()));
      prompt.insert(prompt.end(), got.ids.begin(), got.ids.end());
      for (TokenId id : random_prompt(static_cast<uint64_t>(turn) + 2, 6)) prompt.push_back(id);
      if (turn == 1) prompt.resize(30);  // Shorter than what is held.
      if (turn == 2) prompt[10] = 91;    // Another one from here on.
    }
  }
}

TEST_F(CachedGeneration, ComputesOnlyWhatIsNew) {
  TextGenerator generator(model_);
  CachedText text = empty();
  Prompt prompt = random_prompt(1, 40);
  const Generation first = generator.generate_cached(text, prompt, greedy(10));
  EXPECT_EQ(generator.timings().prefill_tokens, 40);
  EXPECT_EQ(generator.timings().decode_tokens, 9);
  prompt.insert(prompt.end(), first.ids.begin(), first.ids.end());
  prompt.push_back(3);
  generator.generate_cached(text, prompt, greedy(1));
  EXPECT_EQ(generator.timings().prefill_tokens, 2) << "the last answer's last token, and the new one";
  generator.generate_cached(text, prompt, greedy(1));
  EXPECT_EQ(generator.timings().prefill_tokens, 1) << "its logits are wanted";
}

TEST_F(CachedGeneration, TheCallbackEndsItInThePromptAndInTheAnswer) {
  TextGenerator generator(model_, {.prefill_chunk = 8});
  CachedText text = empty();
  const Prompt prompt = random_prompt(1, 40);
  int calls = 0;
  const Generation none = generator.generate_cached(text, prompt, greedy(10), [&](int64_t, const StepEvent&) { return ++calls < 3; });
  EXPECT_EQ(none.finish_reason, FinishReason::kCancelled);
  EXPECT_TRUE(none.ids.empty());
  EXPECT_EQ(text.tokens, Prompt(prompt.begin(), prompt.begin() + 16)) << "two chunks were computed, and stay";
  int tokens = 0;
  const Generation some =
      generator.generate_cached(text, prompt, greedy(10), [&](int64_t, const StepEvent& event) { return !event.token || ++tokens < 4; });
  EXPECT_EQ(some.finish_reason, FinishReason::kCancelled);
  const std::vector<TokenId> whole = plain(prompt, greedy(10));
  EXPECT_EQ(some.ids, std::vector<TokenId>(whole.begin(), whole.begin() + 4));
}

TEST_F(CachedGeneration, EndsWhereTheContextOrTheCacheEnds) {
  const int64_t context = model_.config().context_length;
  TextGenerator generator(model_);
  CachedText text = empty();
  const Prompt prompt = random_prompt(1, context - 3);
  EXPECT_EQ(generator.generate_cached(text, prompt, greedy(100)).ids, plain(prompt, greedy(100)));
  EXPECT_EQ(text.cache.lengths()[0], context);
  CachedText small{KVCache(model_.config(), {.max_length = 20, .device = model_.device()})};
  const Generation got = generator.generate_cached(small, random_prompt(1, 15), greedy(100));
  EXPECT_EQ(got.finish_reason, FinishReason::kLength);
  EXPECT_EQ(got.ids.size(), 6u);
  expect_error(ErrorCode::kCapacity, "max_length", [&] { generator.generate_cached(small, random_prompt(2, 21), greedy(1)); });
  EXPECT_EQ(small.cache.lengths()[0], static_cast<int64_t>(small.tokens.size()));
}

TEST_F(CachedGeneration, RefusesWhatMakesNoSense) {
  TextGenerator generator(model_);
  CachedText text = empty();
  const auto refused = [&](ErrorCode code, const char* words, CachedText& with, const Prompt& prompt, const GenerationOptions& options) {
    expect_error(code, words, [&] { generator.generate_cached(with, prompt, options); });
  };
  const ErrorCode wrong = ErrorCode::kInvalidArgument;
  refused(wrong, "prompt is empty", text, {}, greedy(1));
  refused(wrong, "prompt[1] is 96", text, {1, 96}, greedy(1));
  refused(wrong, "max_new_tokens", text, {1}, greedy(0));
  GenerationOptions stops = greedy(1);
  stops.stop = {"x"};
  refused(wrong, "without a tokenizer", text, {1}, stops);
  refused(ErrorCode::kCapacity, "the context", text, random_prompt(1, model_.config().context_length + 1), greedy(1));
  CachedText two{KVCache(model_.config(), {.batch_size = 2, .device = model_.device()})};
  refused(wrong, "2 rows", two, {1}, greedy(1));
  CachedText uneven = empty();
  uneven.tokens = {1, 2};
  refused(wrong, "holds 0 tokens, the text 2", uneven, {1}, greedy(1));
  expect_error(wrong, "prefill_chunk", [&] { TextGenerator(model_, {.prefill_chunk = -1}).generate_cached(text, {1}, greedy(1)); });
}

}  // namespace
}  // namespace minillm
