// rope_test.cpp - rotary frequencies against the formula in double and against Hugging Face's numbers.
#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace minillm {
namespace {

TEST(InverseFrequencies, AreBaseToTheMinus2iOverD) {
  const std::vector<float> got = inverse_frequencies(Configs::small(), RopeKind::kGlobal, {});
  ASSERT_EQ(got.size(), 32u);
  for (size_t i = 0; i < got.size(); ++i) {
    const double want = std::pow(10000.0, -static_cast<double>(i) / 32.0);
    EXPECT_NEAR(got[i], want, want * 0x1p-22) << i;  // Two roundings to float.
  }
}

TEST(InverseFrequencies, RotateOnlyTheLeadingElements) {
  ModelConfig config = Configs::small();
  config.rope_dim = 16;
  const std::vector<float> got = inverse_frequencies(config, RopeKind::kGlobal, {});
  ASSERT_EQ(got.size(), 8u);
  EXPECT_NEAR(got[1], std::pow(10000.0, -1.0 / 8.0), 1e-7);
}

TEST(InverseFrequencies, AreDividedByALinearFactor) {
  ModelConfig config = Configs::small();
  const std::vector<float> plain = inverse_frequencies(config, RopeKind::kGlobal, {});
  config.rope_scaling = {.kind = RopeScaling::Kind::kLinear, .factor = 8.0f};
  const std::vector<float> scaled = inverse_frequencies(config, RopeKind::kGlobal, {});
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(scaled[i], plain[i] / 8.0f) << i;
}

TEST(InverseFrequencies, AreDividedByTheFactorsOfAFile) {
  ModelConfig config = Configs::small();
  config.rope_dim = 4;
  const std::vector<float> factors{1.0f, 8.0f}, plain = inverse_frequencies(config, RopeKind::kGlobal, {}),
                                                scaled = inverse_frequencies(config, RopeKind::kGlobal, factors);
  EXPECT_EQ(scaled[0], plain[0]);
  EXPECT_EQ(scaled[1], plain[1] / 8.0f);
}

TEST(InverseFrequencies, OfSlidingLayersHaveTheirOwnBaseAndNoScaling) {
  ModelConfig config = Configs::small();
  config.rope_base = 1e6f;
  config.local_rope_base = 10000.0f;
  config.rope_scaling = {.kind = RopeScaling::Kind::kLinear, .factor = 8.0f};
  EXPECT_EQ(inverse_frequencies(config, RopeKind::kLocal, {}), inverse_frequencies(Configs::small(), RopeKind::kGlobal, {}));
}

// transformers' llama3 rope of Llama 3.2 1B: D = 64, base 500,000, factor 32, 1 to 4, original context 8192.
TEST(InverseFrequencies, OfLlama3AreThoseOfHuggingFace) {
  constexpr float kWant[32] = {1.0f,
                               0.663601279f,
                               0.440366626f,
                               0.292227834f,
                               0.193922758f,
                               0.128687382f,
                               0.0853971019f,
                               0.0566696189f,
                               0.0376060307f,
                               0.0249554086f,
                               0.0165604409f,
                               0.0109895291f,
                               0.00729266508f,
                               0.00483942125f,
                               0.00321144611f,
                               0.00129054801f,
                               0.000429556705f,
                               9.70828623e-05f,
                               1.94616387e-05f,
                               1.29147675e-05f,
                               8.57025589e-06f,
                               5.68723226e-06f,
                               3.77405445e-06f,
                               2.50446715e-06f,
                               1.66196742e-06f,
                               1.10288363e-06f,
                               7.31874934e-07f,
                               4.85673127e-07f,
                               3.22293289e-07f,
                               2.1387423e-07f,
                               1.41927202e-07f,
                               9.41830649e-08f};
  const std::vector<float> got = inverse_frequencies(Configs::by_name("llama-3.2-1b"), RopeKind::kGlobal, {});
  ASSERT_EQ(got.size(), 32u);
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], kWant[i], kWant[i] * 4e-7) << i;  // The smooth part rounds five times.
}

}  // namespace
}  // namespace minillm
