// attention_exp_test.cpp - 2^x and tanh as attention computes them, over every range of their arguments.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "attention_support.h"

namespace minillm::test {
namespace {

using cpu::AttentionKernels;
using cpu::KeyRange;

constexpr int64_t kBatch = 1024;

class AttentionFunctions : public ::testing::TestWithParam<std::string> {
 protected:
  const AttentionKernels& kernels = cpu::attention_kernels_of(GetParam());

  std::vector<float> exp2(std::vector<float> x) const {
    std::vector<float> sum(16);
    x.resize(kBatch, -1.0f);
    const FlushSubnormals flush;
    kernels.exponentials(x.data(), {0, kBatch}, {.scale = 1.0f, .cap = 0.0f, .slope = 0.0f, .distance = 0}, 0.0f, sum.data());
    return x;
  }
};

/// Largest error of f(x) in units of the last place of `want`, over floats from `first` in steps of `step` bit patterns.
template <typename F, typename Want>
double worst_ulp(float first, float last, uint32_t step, F&& f, Want&& want) {
  double worst = 0;
  std::vector<float> x;
  const auto flush = [&] {
    const std::vector<float> y = f(x);
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = want(static_cast<double>(x[i]));
      const double unit = std::ldexp(1.0, std::ilogb(expected) - 23);
      worst = std::max(worst, std::abs(static_cast<double>(y[i]) - expected) / unit);
    }
    x.clear();
  };
  for (uint32_t bits = std::bit_cast<uint32_t>(first); bits <= std::bit_cast<uint32_t>(last); bits += step) {
    x.push_back(std::bit_cast<float>(bits));
    if (static_cast<int64_t>(x.size()) == kBatch) flush();
  }
  flush();
  return worst;
}

TEST_P(AttentionFunctions, Exp2IsWithinOneAndAHalfUnitsInTheLastPlace) {
  const auto f = [this](const std::vector<float>& x) { return exp2(x); };
  const auto want = [](double x) { return std::exp2(x); };
  EXPECT_LE(worst_ulp(-0x1p-20f, -126.0f, 331, f, want), 1.5);
  EXPECT_LE(worst_ulp(-0.0f, -0x1p-20f, 32771, f, want), 1.5);
}

TEST_P(AttentionFunctions, Exp2IsExactWhereItMustBe) {
  const float infinity = std::numeric_limits<float>::infinity(), below = std::nextafter(-126.0f, -200.0f);
  const std::vector<float> y = exp2({0.0f, -0.0f, -1.0f, -126.0f, below, -1e30f, -infinity, std::numeric_limits<float>::quiet_NaN()});
  EXPECT_EQ(y[0], 1.0f);
  EXPECT_EQ(y[1], 1.0f);
  EXPECT_EQ(y[2], 0.5f);
  EXPECT_EQ(y[3], 0x1p-126f);
  for (size_t i = 4; i < 7; ++i) EXPECT_EQ(std::bit_cast<uint32_t>(y[i]), 0u) << i;
  EXPECT_TRUE(std::isnan(y[7]));
}

TEST_P(AttentionFunctions, TanhIsWithinFiveUnitsInTheLastPlace) {
  const auto f = [this](std::vector<float> x) {
    x.resize(kBatch);
    kernels.map_scores(x.data(), {0, kBatch}, {.scale = 1.0f, .cap = 1.0f, .slope = 0.0f, .distance = 0});
    return x;
  };
  const auto want = [](double x) { return std::tanh(x); };
  EXPECT_LE(worst_ulp(0x1p-30f, 20.0f, 331, f, want), 5.0);
  EXPECT_LE(worst_ulp(-0x1p-30f, -20.0f, 331, f, want), 5.0);
  const std::vector<float> y = f({0.0f, 1e30f, -1e30f});
  EXPECT_EQ(y[0], 0.0f);
  EXPECT_EQ(y[1], 1.0f);
  EXPECT_EQ(y[2], -1.0f);
}

TEST_P(AttentionFunctions, SumsAndMaximaIgnoreWhatIsOutsideTheRange) {
  std::vector<float> scores(64, std::numeric_limits<float>::quiet_NaN()), sum(16);
  for (size_t i = 5; i < 37; ++i) scores[i] = static_cast<float>(i);
  const cpu::ScoreMap twice{.scale = 2.0f, .cap = 0.0f, .slope = 0.0f, .distance = 0};
  EXPECT_EQ(kernels.map_scores(scores.data(), {5, 37}, twice), 72.0f);
  kernels.exponentials(scores.data(), {5, 37}, twice, 72.0f, sum.data());
  double total = 0;
  for (int i = 5; i < 37; ++i) total += std::exp2(2.0 * i - 72.0);
  EXPECT_FLOAT_EQ(kernels.sum_lanes(sum.data()), static_cast<float>(total));
}

INSTANTIATE_TEST_SUITE_P(Isa, AttentionFunctions, ::testing::ValuesIn(isas_here()), [](const auto& test) { return test.param; });

}  // namespace
}  // namespace minillm::test
