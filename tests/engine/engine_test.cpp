// engine_test.cpp - ends, refusals, cancellation, bad numbers: each touches its own request alone.
#include "minillm/engine.h"

#include <algorithm>
#include <cmath>
#include <thread>

#include "engine/engine_support.h"
#include "support/expect_error.h"

namespace minillm::test {
namespace {

class EngineTest : public testing::Test {
 protected:
  MiniLLM model_ = load(tiny_model("llama"));
};

TEST_F(EngineTest, ArrivalsInBetweenChangeNothing) {
  const Prompt a = random_prompt(1, 20), b = random_prompt(2, 30);
  const Result want_a = alone(model_, a, sampled(20, 1)), want_b = alone(model_, b, sampled(20, 2));
  Engine engine(model_);
  const RequestId id_a = engine.submit(a, sampled(20, 1));
  std::map<RequestId, std::vector<TokenId>> got;
  const auto collect = [&] {
    for (const StepEvent& event : engine.step())
      if (event.token) got[event.request].push_back(*event.token);
  };
  for (int i = 0; i < 5; ++i) collect();
  const RequestId id_b = engine.submit(b, sampled(20, 2));
  while (!engine.idle()) collect();
  EXPECT_EQ(got[id_a], want_a.ids);
  EXPECT_EQ(got[id_b], want_b.ids);
}

TEST_F(EngineTest, SeedsBelongToRequests) {
  const Prompt prompt = random_prompt(1, 8);
  const Result one = alone(model_, prompt, sampled(30, 1)), two = alone(model_, prompt, sampled(30, 2));
  EXPECT_NE(one.ids, two.ids);
  for (const bool swapped : {false, true}) {
    Engine engine(model_);
    const RequestId first = engine.submit(prompt, sampled(30, swapped ? 2 : 1)),
                    second = engine.submit(prompt, sampled(30, swapped ? 1 : 2));
    const auto got = run(engine);
    EXPECT_EQ(got.at(swapped ? second : first).ids, one.ids);
    EXPECT_EQ(got.at(swapped ? first : second).ids, two.ids);
  }
}

TEST_F(EngineTest, EndsAtAStopTokenWhichItTells) {
  const Prompt prompt = random_prompt(3, 6);
  const Result whole = alone(model_, prompt, sampled(30, 5));
  GenerationOptions options = sampled(30, 5);
  options.stop_token_ids = {whole.ids[10]};
  const Result result = alone(model_, prompt, options);
  const auto first = std::ranges::find(whole.ids, whole.ids[10]);
  EXPECT_EQ(result.ids, std::vector<TokenId>(whole.ids.begin(), first + 1));
  EXPECT_EQ(result.finish, FinishReason::kStop);
}

TEST_F(EngineTest, EndsWithLengthAtTheContext) {
  LoadOptions options;
  options.context_length = 32;
  MiniLLM model = load(tiny_model("llama"), "reference", options);
  const Result result = alone(model, random_prompt(1, 30), greedy(100));
  EXPECT_EQ(result.ids.size(), 3u);  // Two more fit, and the last position gives one that no longer has to.
  EXPECT_EQ(result.finish, FinishReason::kLength);
  EXPECT_EQ(alone(model, random_prompt(1, 32), greedy(100)).ids.size(), 1u);
  Engine engine(model);
  expect_error(ErrorCode::kCapacity, "prompt has 33 tokens, the context 32", [&] { engine.submit(random_prompt(1, 33), greedy(1)); });
}

TEST_F(EngineTest, EndsWithLengthWhereTheCacheIsFull) {
  EngineOptions options;
  options.max_cache_tokens = 64;
  Engine engine(model_, nullptr, options);
  const RequestId id = engine.submit(random_prompt(1, 60), greedy(100));
  const auto results = run(engine);
  EXPECT_EQ(results.at(id).ids.size(), 5u);
  EXPECT_EQ(results.at(id).finish, FinishReason::kLength);
  expect_error(ErrorCode::kCapacity, "prompt has 65 tokens, the cache room for 64",
               [&] { engine.submit(random_prompt(1, 65), greedy(1)); });
}

TEST_F(EngineTest, RefusesBadRequestsAndQueuesNothing) {
  Engine engine(model_);
  const auto refused = [&](const char* part, const Prompt& prompt, const GenerationOptions& options) {
    expect_error(ErrorCode::kInvalidArgument, part, [&] { engine.submit(prompt, options); });
  };
  refused("prompt is empty", {}, greedy(1));
  refused("prompt[1] is 96, expected 0 to 95", {1, 96}, greedy(1));
  refused("prompt[0] is -1", {-1}, greedy(1));
  refused("max_new_tokens is 0", {1}, greedy(0));
  GenerationOptions stop = greedy(1);
  stop.stop = {"x"};
  refused("stop has 1 texts, expected none without a tokenizer", {1}, stop);
  EXPECT_TRUE(engine.idle());
  EXPECT_TRUE(engine.step().empty());
}

TEST_F(EngineTest, RefusesBadOptions) {
  const auto refused = [&](const char* part, auto change) {
    EngineOptions options;
    change(options);
    expect_error(ErrorCode::kInvalidArgument, part, [&] { Engine(model_, nullptr, options); });
  };
  refused("max_batch is 0", [](EngineOptions& o) { o.max_batch = 0; });
  refused("max_batch is 1025", [](EngineOptions& o) { o.max_batch = 1025; });
  refused("prefill_chunk is -1", [](EngineOptions& o) { o.prefill_chunk = -1; });
  refused("prefill_chunk is 65537", [](EngineOptions& o) { o.prefill_chunk = 65537; });
  refused("max_cache_tokens is -1", [](EngineOptions& o) { o.max_cache_tokens = -1; });
  refused("flash_block_size is 17", [](EngineOptions& o) { o.flash_block_size = 17; });
}

TEST_F(EngineTest, CancelsOneRequestAndNoOther) {
  const Prompt a = random_prompt(1, 10), b = random_prompt(2, 10), c = random_prompt(3, 10);
  const Result want = alone(model_, b, greedy(20));
  EngineOptions options;
  options.max_batch = 2;
  Engine engine(model_, nullptr, options);
  const RequestId running = engine.submit(a, greedy(20)), other = engine.submit(b, greedy(20)), waiting = engine.submit(c, greedy(20));
  std::map<RequestId, Result> results;
  const auto step = [&] {
    for (const StepEvent& event : engine.step()) {
      if (event.token) results[event.request].ids.push_back(*event.token);
      results[event.request].finish = event.finish;
    }
  };
  for (int i = 0; i < 4; ++i) step();
  std::thread([&] {
    engine.cancel(running);
    engine.cancel(waiting);
    engine.cancel(running);  // Twice is once.
    engine.cancel(12345);    // Unknown is ignored.
  }).join();
  while (!engine.idle()) step();
  EXPECT_EQ(results.at(running).finish, FinishReason::kCancelled);
  EXPECT_EQ(results.at(running).ids.size(), 4u);
  EXPECT_EQ(results.at(waiting).finish, FinishReason::kCancelled);
  EXPECT_TRUE(results.at(waiting).ids.empty());
  EXPECT_EQ(results.at(other).ids, want.ids);
  EXPECT_EQ(results.at(other).finish, FinishReason::kLength);
  engine.cancel(other);  // After the end: ignored.
  EXPECT_TRUE(engine.step().empty());
  EXPECT_EQ(engine.cache_bytes(), 0);
}

TEST_F(EngineTest, SurvivesCancellationFromAnotherThread) {
  Engine engine(model_);
  std::vector<RequestId> ids;
  for (uint64_t i = 0; i < 40; ++i) ids.push_back(engine.submit(random_prompt(i, 5), greedy(10)));
  std::thread canceller([&] {
    for (size_t i = 0; i < ids.size(); i += 2) {
      engine.cancel(ids[i]);
      std::this_thread::yield();
    }
  });
  const auto results = run(engine);
  canceller.join();
  engine.step();
  for (size_t i = 0; i < ids.size(); ++i) {
    const FinishReason finish = results.at(ids[i]).finish;
    EXPECT_TRUE(finish == FinishReason::kLength || (i % 2 == 0 && finish == FinishReason::kCancelled)) << i;
  }
}

TEST(EngineErrors, NonFiniteLogitsEndTheirRequestAlone) {
  TinyModel poisoned = tiny_model("llama3");  // Untied: the table is only looked up.
  for (size_t e = 0; e < 32; ++e) poisoned.tensors["token_embd.weight"].values[95 * 32 + e] = std::nanf("");
  MiniLLM model = load(poisoned);
  const Prompt good = random_prompt(1, 10);
  Prompt bad = good;
  bad[4] = 95;
  const Result want = alone(model, good, sampled(10, 3));
  EXPECT_EQ(want.finish, FinishReason::kLength);
  Engine engine(model);
  const RequestId first = engine.submit(good, sampled(10, 3)), second = engine.submit(bad, sampled(10, 3)),
                  third = engine.submit(good, sampled(10, 3));
  const auto results = run(engine);
  EXPECT_EQ(results.at(second).finish, FinishReason::kError);
  EXPECT_EQ(results.at(second).error, "non-finite logits at position 9");
  EXPECT_TRUE(results.at(second).ids.empty());
  EXPECT_EQ(results.at(first).ids, want.ids);
  EXPECT_EQ(results.at(third).ids, want.ids);
}

TEST_F(EngineTest, CountsTokensOfBothPhases) {
  Engine engine(model_);
  engine.submit(random_prompt(1, 20), greedy(10));
  engine.submit(random_prompt(2, 30), greedy(5));
  run(engine);
  const Timings timings = engine.timings();
  EXPECT_EQ(timings.prefill_tokens, 50);
  EXPECT_EQ(timings.decode_tokens, 9 + 4);  // The first token of each comes out of the prefill.
  EXPECT_GT(timings.prefill_tok_s(), 0);
  EXPECT_GT(timings.decode_tok_s(), 0);
}

}  // namespace
}  // namespace minillm::test
