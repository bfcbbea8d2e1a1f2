// sampler_test.cpp - exact truncation sets against a plain definition, penalties by hand, draws by their statistics, and logits that
// nothing can be drawn from.
#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "engine/philox.h"
#include "support/random.h"
#include "support/sampling.h"

namespace minillm {
namespace {

using test::with;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

std::optional<TokenId> sample(std::vector<float> logits, const GenerationOptions& options, const std::vector<TokenId>& seen = {0}) {
  Sampler sampler(static_cast<int64_t>(logits.size()));
  return sampler.sample(logits, {seen, static_cast<int64_t>(seen.size())}, options);
}

std::vector<TokenId> kept_ids(std::vector<float> logits, const GenerationOptions& options) {
  Sampler sampler(static_cast<int64_t>(logits.size()));
  const std::vector<TokenId> seen{0};
  std::vector<TokenId> ids;
  for (const Candidate& candidate : sampler.candidates(logits, {seen, 1}, options)) ids.push_back(candidate.id);
  std::ranges::sort(ids);
  return ids;
}

/// The definition of sampler.h, by sorting everything.
std::vector<TokenId> expected_ids(const std::vector<float>& logits, const GenerationOptions& options) {
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](TokenId a, TokenId b) { return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)]; });
  const auto weight = [&](TokenId id) {
    return std::exp((logits[static_cast<size_t>(id)] - logits[static_cast<size_t>(order[0])]) / options.temperature);
  };
  if (options.top_k > 0) order.resize(std::min(order.size(), static_cast<size_t>(options.top_k)));
  double total = 0, sum = 0;
  for (TokenId id : order) total += static_cast<double>(weight(id));
  size_t n = options.top_p == 1.0f ? order.size() : 0;
  while (n < order.size() && (n == 0 || sum < static_cast<double>(options.top_p) * total)) sum += static_cast<double>(weight(order[n++]));
  order.resize(n);
  std::erase_if(order, [&](TokenId id) { return weight(id) < options.min_p || weight(id) == 0; });
  std::ranges::sort(order);
  return order;
}

TEST(Philox, GivesThePublishedAnswers) {
  using Counter = std::array<uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Sampler, KeepsExactlyTheDefinedSet) {
  test::Random random(11);
  for (int trial = 0; trial < 400; ++trial) {
    const int64_t n = 1 + random.below(trial % 10 == 0 ? 3000 : 90);
    std::vector<float> logits(static_cast<size_t>(n));
    // A third of the trials are full of equal logits, so that ties decide.
    for (float& logit : logits)
      logit = trial % 3 == 0 ? static_cast<float>(random.below(4)) : static_cast<float>(random.normal() * (trial % 2 == 0 ? 1 : 5));
    const float top_p[] = {1.0f, 0.999f, 0.9f, 0.5f, 0.01f}, min_p[] = {0.0f, 0.02f, 0.5f}, temperature[] = {1.0f, 0.3f, 4.0f};
    const GenerationOptions options =
        with(temperature[random.below(3)], random.below(2) * random.below(n + 5), top_p[random.below(5)], min_p[random.below(3)]);
    ASSERT_EQ(kept_ids(logits, options), expected_ids(logits, options))
        << "trial " << trial << ": n " << n << ", t " << options.temperature << ", k " << options.top_k << ", p " << options.top_p
        << ", min_p " << options.min_p;
  }
}

TEST(Sampler, KeepsKnownSets) {
  const std::vector<float> logits{std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};
  EXPECT_EQ(kept_ids(logits, with(1.0f, 2)), (std::vector<TokenId>{1, 3}));
  EXPECT_EQ(kept_ids(logits, with(1.0f, 0, 0.65f)), (std::vector<TokenId>{1, 3}));
  EXPECT_EQ(kept_ids(logits, with(1.0f, 0, 0.75f)), (std::vector<TokenId>{1, 2, 3}));
  EXPECT_EQ(kept_ids(logits, with(1.0f, 0, 1.0f, 0.3f)), (std::vector<TokenId>{1, 2, 3}));
  EXPECT_EQ(kept_ids(logits, with(1.0f, 3, 0.5f)), (std::vector<TokenId>{1, 3}));  // 0.4 of 0.9 is not half; 0.7 of 0.9 is.
}

TEST(Sampler, WithTemperatureZeroTakesTheHighestAndOfEqualsTheLowestId) {
  EXPECT_EQ(sample({1, 5, 3, 5}, with(0)), 1);
  EXPECT_EQ(sample({-kInf, -7, -kInf}, with(0)), 1);
}

TEST(Sampler, WithTheTiniestTemperatureIsGreedyAndFinite) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    GenerationOptions options = with(1e-38f);
    options.seed = seed;
    EXPECT_EQ(sample({1, 5, 3, 5}, options), 1);
  }
}

TEST(Sampler, WithEveryTemperatureSurvivesTheLargestLogits) {
  for (const float temperature : {1e-4f, 1.0f, 100.0f}) {
    EXPECT_EQ(sample({-kLargest, kLargest, 0.0f}, with(temperature)), 1);
    EXPECT_EQ(sample({-kLargest, kLargest, 0.0f}, with(temperature, 2, 0.9f, 0.1f)), 1);
  }
}

TEST(Sampler, RefusesLogitsThatAreNotNumbersInEveryChain) {
  const GenerationOptions chains[] = {with(0), with(1), with(1, 3), with(1, 0, 0.9f), with(1, 0, 1, 0.1f), with(1, 3, 0.9f, 0.1f)};
  for (const GenerationOptions& chain : chains) {
    for (const float penalty : {1.0f, 1.3f}) {
      GenerationOptions options = chain;
      options.repetition_penalty = penalty;
      EXPECT_EQ(sample({1, kNan, 2}, options), std::nullopt);
      EXPECT_EQ(sample({kNan, 1, 2}, options), std::nullopt);
      EXPECT_EQ(sample({1, 2, kInf}, options), std::nullopt);
      EXPECT_EQ(sample({-kInf, -kInf}, options), std::nullopt);
      EXPECT_EQ(sample({-kInf, 2, -kInf}, options), 1);
    }
  }
}

TEST(Sampler, NeverDrawsAMaskedToken) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    GenerationOptions options = with(100.0f);
    options.seed = seed;
    EXPECT_EQ(sample({-kInf, 0, -kInf}, options), 1);
  }
}

/// Logits after penalties, seen through the candidates of temperature one.
std::vector<float> penalised(std::vector<float> logits, const std::vector<TokenId>& tokens, int64_t n_prompt,
                             const GenerationOptions& options) {
  Sampler sampler(static_cast<int64_t>(logits.size()));
  sampler.candidates(logits, {tokens, n_prompt}, options);
  return logits;
}

TEST(Penalties, OfRepetitionCountPromptAndGeneratedOnce) {
  GenerationOptions options = with(1);
  options.repetition_penalty = 2.0f;
  EXPECT_EQ(penalised({4, -4, 4, 4}, {0, 1, 0, 2}, 3, options), (std::vector<float>{2, -8, 2, 4}));
}

TEST(Penalties, OfPresenceAndFrequencyCountGeneratedOnly) {
  GenerationOptions options = with(1);
  options.presence_penalty = 0.5f;
  options.frequency_penalty = 0.25f;
  EXPECT_EQ(penalised({4, 4, 4, 4}, {0, 1, 1, 1, 2}, 1, options), (std::vector<float>{4, 4 - 0.75f - 0.5f, 4 - 0.25f - 0.5f, 4}));
}

TEST(Penalties, ComeInTheOrderOfHuggingFaceAndVllm) {
  GenerationOptions options = with(1);
  options.repetition_penalty = 2.0f;
  options.presence_penalty = 1.0f;
  EXPECT_EQ(penalised({4, 0}, {0}, 0, options)[0], 1.0f);  // 4 / 2 - 1, not (4 - 1) / 2.
}

TEST(Penalties, LeaveNothingBehind) {
  Sampler sampler(4);
  GenerationOptions options = with(0);
  options.repetition_penalty = 2.0f;
  options.frequency_penalty = 1.0f;
  const std::vector<TokenId> tokens{1, 1, 2};
  for (int i = 0; i < 3; ++i) {
    std::vector<float> logits{1, 4, 3, 1};
    sampler.candidates(logits, {tokens, 1}, options);
    EXPECT_EQ(logits, (std::vector<float>{1, 1, 0.5f, 1}));
  }
}

TEST(Penalties, KeepTheLargestLogitsFinite) {
  GenerationOptions options = with(1);
  options.repetition_penalty = 0.001f;
  const std::vector<float> logits = penalised({kLargest, -kInf, 1}, {0, 1}, 2, options);
  EXPECT_EQ(logits[0], kLargest);
  EXPECT_EQ(logits[1], -kInf);
}

/// Chi-square of `n_draws` at consecutive positions against the weights of `logits`.
double chi_square(const std::vector<float>& logits, const GenerationOptions& options, int n_draws) {
  const size_t n = logits.size();
  std::vector<double> expected(n), observed(n);
  double total = 0;
  for (TokenId id : expected_ids(logits, options)) {
    const auto i = static_cast<size_t>(id);
    total += expected[i] = std::exp(static_cast<double>(logits[i]) / static_cast<double>(options.temperature));
  }
  Sampler sampler(static_cast<int64_t>(n));
  std::vector<TokenId> tokens{0};
  for (int draw = 0; draw < n_draws; ++draw) {
    std::vector<float> scratch = logits;
    ++observed[static_cast<size_t>(*sampler.sample(scratch, {tokens, 1}, options))];
    tokens.push_back(0);
  }
  double sum = 0;
  for (size_t i = 0; i < n; ++i) {
    const double want = expected[i] / total * n_draws;
    if (want == 0) {
      EXPECT_EQ(observed[i], 0) << i;
      continue;
    }
    sum += (observed[i] - want) * (observed[i] - want) / want;
  }
  return sum;
}

TEST(Draws, FollowTheWeights) {
  const std::vector<float> logits{0.0f, 1.0f, 2.0f, -1.0f, 0.5f, 1.5f, 1.7f, -0.5f};
  // Chi-square with 7, 7, 3 and 2 degrees of freedom exceeds these bounds once in 10,000.
  EXPECT_LT(chi_square(logits, with(1.0f), 20000), 29.9);
  EXPECT_LT(chi_square(logits, with(2.5f), 20000), 29.9);
  EXPECT_LT(chi_square(logits, with(0.7f, 4), 20000), 21.1);
  EXPECT_LT(chi_square(logits, with(1.0f, 0, 0.7f), 20000), 18.4);
}

TEST(Draws, AreAFunctionOfSeedAndPosition) {
  const std::vector<float> logits(1000, 0.0f);
  GenerationOptions options = with(1.0f);
  options.seed = 42;
  std::set<TokenId> at_positions, with_seeds;
  for (size_t n = 1; n <= 100; ++n) {
    const std::vector<TokenId> seen(n, 0), other(n, 7);
    const auto id = sample(logits, options, seen);
    EXPECT_EQ(sample(logits, options, other), id);  // What the tokens are does not matter, only how many.
    at_positions.insert(*id);
  }
  EXPECT_GT(at_positions.size(), 80u);
  for (uint64_t seed = 0; seed < 100; ++seed) {
    options.seed = seed << 32;  // Both halves of the seed count.
    with_seeds.insert(*sample(logits, options));
  }
  EXPECT_GT(with_seeds.size(), 80u);
}

}  // namespace
}  // namespace minillm
