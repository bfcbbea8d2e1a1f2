// engine_company_test.cpp - many requests at once give each the tokens it would get alone, whatever the batch, the chunks, the seeds
// beside it, and evictions.
#include <algorithm>
#include <cstdlib>

#include "engine/engine_support.h"
#include "support/same_bits.h"

namespace minillm::test {
namespace {

class EngineOn : public testing::TestWithParam<std::string> {
 protected:
  const test::SameBitsInAnyStep same_bits_;  // Before the model, which is made for it.
  MiniLLM model_ = load(tiny_model("gemma3"), GetParam().c_str());
};

TEST_P(EngineOn, GreedilyTakesTheArgmaxOfForward) {
  const Prompt prompt = random_prompt(1, 9);
  const Result result = alone(model_, prompt, greedy(12));
  ASSERT_EQ(result.ids.size(), 12u);
  EXPECT_EQ(result.finish, FinishReason::kLength);
  Prompt all = prompt;
  for (TokenId id : result.ids) {
    ForwardOptions options;
    options.last_logits_only = true;
    const Tensor logits = model_.forward(Tensor::from_ids({all}), options);
    const auto row = logits.values<float>();
    EXPECT_EQ(id, static_cast<TokenId>(std::ranges::max_element(row) - row.begin()));
    all.push_back(id);
  }
}

/// Engines that must all give the same tokens: batch sizes, chunks, and pools so small that sequences are evicted.
std::vector<EngineOptions> engines() {
  std::vector<EngineOptions> all(6);
  all[0].max_batch = 1;
  all[1].max_batch = 3;
  all[1].prefill_chunk = 1;
  all[2].max_batch = 16;
  all[2].prefill_chunk = 64;
  all[3].max_batch = 16;
  all[4].max_batch = 8;
  all[4].max_cache_tokens = 256;
  all[5].max_batch = 5;
  all[5].prefill_chunk = 7;
  all[5].max_cache_tokens = 192;
  return all;
}

TEST_P(EngineOn, GivesEachRequestTheSameTokensInAnyCompany) {
  std::vector<Prompt> prompts;
  std::vector<Result> want;
  for (uint64_t i = 0; i < 12; ++i) {
    prompts.push_back(random_prompt(i, 1 + static_cast<int64_t>(i * 37 % 100)));
    want.push_back(alone(model_, prompts[i], sampled(5 + static_cast<int64_t>(i * 7 % 30), i)));
  }
  for (const EngineOptions& options : engines()) {
    Engine engine(model_, nullptr, options);
    std::map<RequestId, size_t> index;
    for (size_t n = 0; n < 12; ++n) {
      const size_t i = options.max_batch % 2 == 0 ? n : 11 - n;  // In two orders.
      index[engine.submit(prompts[i], sampled(5 + static_cast<int64_t>(i * 7 % 30), i))] = i;
    }
    const std::map<RequestId, Result> got = run(engine);
    for (const auto& [id, i] : index) {
      EXPECT_EQ(got.at(id).ids, want[i].ids) << "request " << i << ", batch " << options.max_batch << ", chunk " << options.prefill_chunk;
      EXPECT_EQ(got.at(id).finish, want[i].finish);
    }
  }
}

TEST_P(EngineOn, GivesTheSameTokensHoweverOftenSequencesAreEvicted) {
  const Prompt prompts[] = {random_prompt(1, 40), random_prompt(2, 3), random_prompt(3, 70)};
  std::map<RequestId, Result> want;
  for (const char* every : {"0", "2", "3", "7"}) {
    ::setenv("MINILLM_TEST_PREEMPT_EVERY", every, 1);
    Engine engine(model_);
    ::unsetenv("MINILLM_TEST_PREEMPT_EVERY");
    for (const Prompt& prompt : prompts) engine.submit(prompt, sampled(20, prompt.size()));
    const std::map<RequestId, Result> got = run(engine);
    if (want.empty()) want = got;
    for (const auto& [id, result] : want) EXPECT_EQ(got.at(id).ids, result.ids) << "request " << id << ", every " << every << " steps";
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, EngineOn, testing::Values("reference", "cpu", "choosing"),
                         [](const auto& chosen) { return chosen.param; });

}  // namespace
}  // namespace minillm::test
