// choice_test.cpp - tokens that a device chooses for itself are those that the host's sampler would take.
#include "engine/sampler.h"

#include "conformance/rig.h"
#include "engine/philox.h"
#include "support/sampling.h"

namespace minillm {
namespace {

using namespace test;

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

class ChoiceOn : public OnTarget {
 protected:
  void SetUp() override {
    OnTarget::SetUp();
    if (backend_ != nullptr && !backend_->prefers_whole_steps()) GTEST_SKIP() << GetParam().name << " leaves the choice to the host";
  }

  std::vector<TokenId> choose(const std::vector<float>& logits, const std::vector<Draw>& draws) {
    const auto n = static_cast<int64_t>(draws.size());
    const Array array(*backend_, {n, static_cast<int64_t>(logits.size()) / n}, logits);
    backend_->begin_choice(draws);
    backend_->choose(array, any_drawn(draws));
    std::vector<TokenId> ids(draws.size());
    const auto pending = backend_->make_pending_tokens(n);
    backend_->send_chosen(*pending);
    pending->take(ids);
    return ids;
  }
  TokenId choose_one(const std::vector<float>& logits, const Draw& draw) { return choose(logits, {draw})[0]; }
};

const GenerationOptions kOptions[] = {with(1.0f, 0, 1.0f, 0),         with(0.6f, 0, 0.95f, 0),    with(0.8f, 40, 0.95f, 0.05f),
                                      with(1.0f, 50, 1.0f, 0),        with(0.7f, 0, 1.0f, 0.02f), with(2.0f, 0, 0.5f, 0.2f),
                                      with(100.0f, 0, 0.9f, 0),       with(0.01f, 0, 1.0f, 0),    with(1.0f, 1, 1.0f, 0),
                                      with(1.5f, 1 << 20, 0.999f, 0), with(3.0f, 1000, 0.7f, 0),  with(1.0f, 0, 1e-6f, 0.0f)};

/// A row as the device sees it: whole steps below the highest logit, 2^-16 of the temperature each, none of them 27 units away.
std::vector<float> in_steps(const std::vector<float>& logits, float temperature) {
  constexpr float kSteps = 65536, kEnd = 27 * kSteps;
  const float max = std::ranges::max(logits), per_unit = kSteps / temperature;
  std::vector<float> steps(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    const float q = (max - logits[i]) * per_unit + 0.5f;
    steps[i] = q < kEnd ? -std::floor(q) / kSteps : -kInf;
  }
  return steps;
}

/// How far `u` lies outside of the share of [0, 1) that the host gives to a token; 2 if it gives it none.
double distance(double u, std::span<const Candidate> candidates, TokenId id) {
  double total = 0, before = 0;
  for (const Candidate& candidate : candidates) total += static_cast<double>(candidate.weight);
  for (const Candidate& candidate : candidates) {
    const double after = before + static_cast<double>(candidate.weight);
    if (candidate.id == id) return std::max({0.0, before / total - u, u - after / total});
    before = after;
  }
  return 2;
}

TEST_P(ChoiceOn, DrawsWhatTheHostsSamplerDraws) {
  for (const int64_t vocab : {1, 2, 31, 1000, 49152, 128256, 262144})
    for (const double spread : {0.0001, 0.5, 3.0, 8.0}) {
      std::vector<float> logits = randn(static_cast<uint64_t>(vocab), vocab, spread);
      if (vocab > 100)
        for (size_t i = 0; i < logits.size(); i += 7) logits[i] = -kInf;
      Sampler sampler(vocab);
      int n_draws = 0, n_other = 0;
      for (const GenerationOptions& base : kOptions) {
        const std::vector<float> rounded = in_steps(logits, base.temperature);
        for (uint64_t seed = 0; seed < 8; ++seed) {
          GenerationOptions options = base;
          options.seed = seed;
          const std::vector<TokenId> seen(static_cast<size_t>(seed), 0);
          const History history{seen, static_cast<int64_t>(seen.size())};
          const TokenId got = choose_one(logits, device_draw(options, seen.size()));
          std::vector<float> row = logits;
          n_other += sampler.sample(row, history, options) == got ? 0 : 1;
          ++n_draws;
          options.temperature = 1;
          row = rounded;
          // Weights are float32 on one side and whole numbers below 2^40 on the other: where two tokens meet may differ by that.
          EXPECT_LT(distance(uniform_at(seed, seen.size()), sampler.candidates(row, history, options), got), 0x1p-20)
              << "vocab " << vocab << ", spread " << spread << ", temperature " << base.temperature << ", top_k " << options.top_k
              << ", top_p " << options.top_p << ", min_p " << options.min_p << ": got " << got;
        }
      }
      // Without the rounding, too, but for tokens that lie within a step of each other.
      if (spread >= 3.0) {
        EXPECT_LE(n_other, n_draws / 20) << "of " << n_draws << ", vocab " << vocab << ", spread " << spread;
      }
    }
}

TEST_P(ChoiceOn, TakesEqualLogitsByTheirIds) {
  for (const int64_t vocab : {1000, 128256}) {
    const std::vector<float> logits(static_cast<size_t>(vocab), 2.5f);
    for (const double u : {0.0, 0.25, 0.5, 0.999}) {
      const auto share = [u](int64_t n) { return static_cast<TokenId>(u * static_cast<double>(n)); };
      EXPECT_EQ(choose_one(logits, {.uniform = u, .temperature = 1}), share(vocab));
      EXPECT_EQ(choose_one(logits, {.uniform = u, .temperature = 1, .top_k = 40}), share(40));
      EXPECT_EQ(choose_one(logits, {.uniform = u, .temperature = 1, .top_p = 0.5f}), share(vocab / 2));
      EXPECT_EQ(choose_one(logits, {.uniform = u, .temperature = 1, .min_p = 0.9f}), share(vocab));
    }
    EXPECT_EQ(choose_one(logits, {}), 0);
  }
}

TEST_P(ChoiceOn, RowsDoNotDependOnEachOther) {
  constexpr int64_t kVocab = 5000;
  constexpr size_t kRows = 150;  // More than one launch takes.
  const std::vector<float> logits = randn(3, kVocab * static_cast<int64_t>(kRows), 4);
  std::vector<Draw> draws;
  for (size_t i = 0; i < kRows; ++i) {
    GenerationOptions options = kOptions[i % std::size(kOptions)];
    if (i % 5 == 0) options.temperature = 0;
    options.seed = i;
    draws.push_back(device_draw(options, i));
  }
  const std::vector<TokenId> together = choose(logits, draws);
  for (int again = 0; again < 2; ++again)
    for (size_t i = 0; i < kRows; ++i) {
      const auto first = logits.begin() + static_cast<ptrdiff_t>(i) * kVocab;
      EXPECT_EQ(choose_one({first, first + kVocab}, draws[i]), together[i]) << "row " << i;
    }
}

TEST_P(ChoiceOn, RefusesWhatCannotBeDrawnFrom) {
  for (const Draw& draw : {Draw{}, Draw{.uniform = 0.5, .temperature = 1}, Draw{.uniform = 0.5, .temperature = 1, .top_p = 0.9f}}) {
    EXPECT_EQ(choose_one({1, kNan, 2}, draw), -1);
    EXPECT_EQ(choose_one({1, kInf, 2}, draw), -1);
    EXPECT_EQ(choose_one({-kInf, -kInf, -kInf}, draw), -1);
    EXPECT_EQ(choose_one({-kInf, -3e38f, -kInf}, draw), 1);
    EXPECT_EQ(choose_one({-3e38f, 3e38f, 0}, draw), 1);
  }
}

MINILLM_ON_EVERY_TARGET(ChoiceOn);

}  // namespace
}  // namespace minillm
