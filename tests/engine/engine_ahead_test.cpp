// engine_ahead_test.cpp - a device that chooses tokens is a step ahead of the host, and every request still gets what the host would give.
#include <algorithm>
#include <functional>
#include <optional>
#include <vector>

#include "engine/engine_support.h"
#include "minillm/generator.h"

namespace minillm::test {
namespace {

/// Without penalties, so that the device chooses.
GenerationOptions drawn(int64_t n, uint64_t seed) {
  GenerationOptions options = sampled(n, seed);
  options.repetition_penalty = 1.0f;
  return options;
}

class EngineAhead : public testing::Test {
 protected:
  static MiniLLM load_on(const std::shared_ptr<ChoosingBackend>& backend) {
    const TempFolder folder;
    return load_choosing(folder.write("model.gguf", tiny_model("gemma3").writer().image().bytes), backend);
  }
  std::shared_ptr<ChoosingBackend> backend_ = std::make_shared<ChoosingBackend>();
  MiniLLM device_ = load_on(backend_), host_ = load(tiny_model("gemma3"));
};

TEST_F(EngineAhead, BeginsEachStepBeforeItTakesTheTokensOfTheOneBefore) {
  alone(device_, random_prompt(1, 9), greedy(5));
  // The prompt, whose token is taken at once; four steps, each but the last followed by the next before its token is taken.
  EXPECT_EQ(backend_->history,
            "bt"
            "bb"
            "tb"
            "tb"
            "tt");
}

TEST_F(EngineAhead, BeginsNothingForNothing) {
  backend_->history.clear();
  Engine engine(device_);
  const RequestId id = engine.submit(random_prompt(2, 3), greedy(1));
  EXPECT_EQ(run(engine).at(id).ids.size(), 1u);
  EXPECT_EQ(backend_->history, "bt");
}

TEST_F(EngineAhead, GivesWhatTheHostGives) {
  for (const int64_t n : {1, 2, 3, 40})
    for (const uint64_t seed : {1u, 2u, 3u}) {
      GenerationOptions options = drawn(n, seed);
      const Prompt prompt = random_prompt(seed, 4);
      EXPECT_EQ(alone(device_, prompt, options).ids, alone(host_, prompt, options).ids) << n << " tokens, seed " << seed;
      options.repetition_penalty = 1.3f;  // Such a request is sampled on the host.
      EXPECT_EQ(alone(device_, prompt, options).ids, alone(host_, prompt, options).ids) << n << " tokens, penalty, seed " << seed;
    }
}

TEST_F(EngineAhead, EndsAtAStopTokenThoughAStepHasBegunBehindIt) {
  const Prompt prompt = random_prompt(5, 6);
  const Result whole = alone(host_, prompt, drawn(30, 5));
  for (const size_t at : {0u, 1u, 7u}) {
    GenerationOptions options = drawn(30, 5);
    options.stop_token_ids = {whole.ids[at]};
    Engine engine(device_, nullptr, {.max_batch = 3});
    const RequestId stopped = engine.submit(prompt, options), other = engine.submit(random_prompt(6, 70), drawn(40, 6));
    const std::map<RequestId, Result> got = run(engine);
    const Result want = alone(host_, prompt, options);
    EXPECT_EQ(got.at(stopped).ids, want.ids) << "stop at " << at;
    EXPECT_EQ(got.at(stopped).finish, FinishReason::kStop);
    EXPECT_EQ(got.at(other).ids, alone(host_, random_prompt(6, 70), drawn(40, 6)).ids) << "beside a stop at " << at;
  }
}

TEST_F(EngineAhead, RequestsComeAndGoWhileAStepIsUnderWay) {
  Engine engine(device_, nullptr, {.max_batch = 4});
  std::map<RequestId, std::vector<TokenId>> ids;
  std::map<RequestId, uint64_t> seeds;
  const auto submit = [&](uint64_t seed) { seeds[engine.submit(random_prompt(seed, 5), drawn(25, seed))] = seed; };
  submit(1);
  RequestId cancelled = 0;
  for (int n = 0; !engine.idle() || n < 20; ++n) {
    if (n % 3 == 1 && n < 20) submit(static_cast<uint64_t>(n) + 10);
    if (n == 10) engine.cancel(cancelled = seeds.begin()->first);
    for (const StepEvent& event : engine.step())
      if (event.token) ids[event.request].push_back(*event.token);
    ASSERT_LT(n, 500);
  }
  for (const auto& [id, seed] : seeds) {
    std::vector<TokenId> want = alone(host_, random_prompt(seed, 5), drawn(25, seed)).ids;
    if (id == cancelled) want.resize(ids[id].size());
    EXPECT_EQ(ids[id], want) << "seed " << seed;
  }
  EXPECT_LT(ids[cancelled].size(), 25u);
}

TEST_F(EngineAhead, ANewRequestIsLetInAfterTheStepUnderWay) {
  Engine engine(device_);
  engine.submit(random_prompt(1, 5), greedy(60));
  for (int n = 0; n < 5; ++n) engine.step();
  const RequestId late = engine.submit(random_prompt(2, 5), greedy(3));
  bool has_come = false;
  for (int n = 0; n < 2; ++n)
    for (const StepEvent& event : engine.step()) has_come |= event.request == late;
  EXPECT_TRUE(has_come);
}

TEST_F(EngineAhead, AnotherUserOfTheModelInBetweenChangesNothing) {
  const Prompt prompt = random_prompt(8, 6);
  const std::vector<TokenId> want = alone(host_, prompt, drawn(20, 8)).ids;
  Engine engine(device_), other(device_);
  engine.submit(prompt, drawn(20, 8));
  other.submit(random_prompt(9, 4), drawn(60, 9));
  std::vector<TokenId> got;
  for (int n = 0; !engine.idle(); ++n) {
    for (const StepEvent& event : engine.step())
      if (event.token) got.push_back(*event.token);
    if (n % 2 == 0) device_.forward(Tensor::from_ids({{1, 2, 3}}));
    if (n % 3 == 0) other.step();
  }
  EXPECT_EQ(got, want);
}

TEST_F(EngineAhead, ItsLastTokenMayFillTheContext) {
  const int64_t context = device_.config().context_length;
  const Prompt prompt = random_prompt(3, context - 3);
  const Result got = alone(device_, prompt, greedy(50)), want = alone(host_, prompt, greedy(50));
  EXPECT_EQ(got.ids, want.ids);
  EXPECT_EQ(got.finish, FinishReason::kLength);
}

/// Does not come through the work of a step that it has done before, as a recorded one does not; and keeps what head() was given.
class RepeatingBackend : public ChoosingBackend {
 public:
  struct Input {
    const void* data;
    int64_t n_rows;
    bool operator==(const Input&) const = default;
  };
  std::vector<Input> of_head;
  int n_repeated = 0;

  void repeat(const StepKey& key, const std::function<void()>& work) override {
    if (std::ranges::find(keys_, key) != keys_.end()) {
      ++n_repeated;
      return;
    }
    keys_.push_back(key);
    work();
  }
  void head(TensorView logits, ConstTensorView x, std::span<const int32_t> rows, ConstTensorView norm, float eps, const PackedWeight& w,
            float softcap_value) override {
    of_head.push_back({x.data, x.dim(0)});
    ChoosingBackend::head(logits, x, rows, norm, eps, w, softcap_value);
  }

 private:
  std::vector<StepKey> keys_;
};

TEST(RepeatedSteps, LogitsAreThoseOfTheStepAndNotOfRowsKeptInTheOneBefore) {
  const auto backend = std::make_shared<RepeatingBackend>();
  const TempFolder folder;
  MiniLLM model = load_choosing(folder.write("model.gguf", tiny_model("llama").writer().image().bytes), backend);
  KVCacheOptions cache_options;
  cache_options.device = model.device();
  KVCache cache(model.config(), cache_options);
  ForwardOptions options;
  options.kv_cache = &cache;
  options.last_logits_only = true;
  const Tensor prompt = Tensor::from_ids({{1, 2, 3, 4, 5}}), next = Tensor::from_ids({{6}});
  for (const Tensor* ids : {&prompt, &next, &prompt, &next}) model.forward(*ids, options);
  ASSERT_EQ(backend->n_repeated, 1);
  ASSERT_EQ(backend->of_head.size(), 4u);
  EXPECT_EQ(backend->of_head[0], backend->of_head[2]);
  EXPECT_EQ(backend->of_head[1], backend->of_head[3]);
  EXPECT_FALSE(backend->of_head[0] == backend->of_head[1]) << "no row was kept apart: this test has lost its point";
}

TEST(EngineOnCuda, AStepAheadGivesTheTokensOfOneStepAtATime) {
  std::optional<MiniLLM> model;
  try {
    model = load(tiny_model("gemma3"), "cuda");
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kUnsupported || error.code() == ErrorCode::kDevice) GTEST_SKIP() << error.what();
    throw;
  }
  Engine engine(*model, nullptr, {.max_batch = 3});
  std::map<RequestId, uint64_t> seeds;
  const auto options_of = [](uint64_t seed) { return seed % 2 == 0 ? greedy(40) : drawn(20 + static_cast<int64_t>(seed), seed); };
  for (uint64_t seed = 1; seed <= 7; ++seed) seeds[engine.submit(random_prompt(seed, 5), options_of(seed))] = seed;
  const std::map<RequestId, Result> got = run(engine);
  TextGenerator one_by_one(*model);
  for (const auto& [id, seed] : seeds) {
    CachedText text{.cache = KVCache(model->config(), {.device = model->device()}), .tokens = {}};
    const Generation want = one_by_one.generate_cached(text, random_prompt(seed, 5), options_of(seed));
    EXPECT_EQ(got.at(id).ids, want.ids) << "seed " << seed;
  }
}

}  // namespace
}  // namespace minillm::test
