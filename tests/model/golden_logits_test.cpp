// golden_logits_test.cpp - real models against Hugging Face in float32 on the same file's dequantised weights.
// MINILLM_SLOW_TESTS=1 runs whole texts on the reference device, too (minutes); otherwise it computes a few tokens.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "minillm/model.h"
#include "support/golden.h"
#include "support/models.h"

namespace minillm {
namespace {

constexpr const char* kTexts[] = {"english", "code", "chinese"};

/// How far our logits are from the golden ones, over the rows given.
struct Distance {
  double largest = 0.0;       ///< Over the stored columns and the 20 most likely tokens.
  int top_changes = 0;        ///< Rows whose most likely token differs although it led by more than 0.01.
  double mean_kl = 0.0;       ///< KL(float32 || ours) over the 20 most likely tokens and all others as one: at most the true KL.
  double mean_nll_gap = 0.0;  ///< Of the next token: ours minus float32.
};

Distance measure(const test::Golden& golden, std::span<const float> logits, size_t n_rows) {
  Distance out;
  for (size_t row = 0; row < n_rows; ++row) {
    const auto ours = logits.subspan(row * golden.vocab_size, golden.vocab_size);
    const auto note = [&](int32_t id, float expected) {
      const double gap = std::fabs(static_cast<double>(ours[static_cast<size_t>(id)]) - static_cast<double>(expected));
      out.largest = std::isnan(gap) ? INFINITY : std::max(out.largest, gap);
    };
    const float peak = *std::max_element(ours.begin(), ours.end());
    double sum = 0.0;
    for (const float x : ours) sum += std::exp(static_cast<double>(x - peak));
    const double lse = std::log(sum) + static_cast<double>(peak);

    double p_rest = 1.0, q_rest = 1.0, kl = 0.0;
    for (size_t k = 0; k < golden.n_top; ++k) {
      const int32_t id = golden.top_ids[row * golden.n_top + k];
      const float expected = golden.top_logits[row * golden.n_top + k];
      note(id, expected);
      const double log_p = static_cast<double>(expected - golden.lse[row]),
                   log_q = static_cast<double>(ours[static_cast<size_t>(id)]) - lse;
      kl += std::exp(log_p) * (log_p - log_q);
      p_rest -= std::exp(log_p);
      q_rest -= std::exp(log_q);
    }
    if (p_rest > 1e-9) kl += p_rest * std::log(p_rest / std::max(q_rest, 1e-12));
    out.mean_kl += kl / static_cast<double>(n_rows);
    for (size_t c = 0; c < golden.n_columns; ++c) note(golden.columns[c], golden.column_logits[row * golden.n_columns + c]);

    const float margin = golden.top_logits[row * golden.n_top] - golden.top_logits[row * golden.n_top + 1];
    const auto top = std::max_element(ours.begin(), ours.end()) - ours.begin();
    if (margin > 0.01f && top != golden.top_ids[row * golden.n_top]) ++out.top_changes;
    if (row + 1 < golden.n_tokens) {
      const double nll = lse - static_cast<double>(ours[static_cast<size_t>(golden.ids[row + 1])]);
      out.mean_nll_gap += (nll - static_cast<double>(golden.nll[row])) / static_cast<double>(n_rows);
    }
  }
  return out;
}

Distance run(MiniLLM& model, const test::Golden& golden, size_t n_rows) {
  const Tensor ids = Tensor::from_ids({{golden.ids.begin(), golden.ids.begin() + static_cast<std::ptrdiff_t>(n_rows)}});
  const Tensor logits = model.forward(ids);
  return measure(golden, logits.values<float>(), n_rows);
}

class GoldenLogits : public ::testing::TestWithParam<const char*> {
 protected:
  std::string package() const { return GetParam() == std::string("gemma3") ? "gemma3-270m" : GetParam(); }
  test::Golden golden(const char* text) const { return test::read_golden(std::string(GetParam()) + "_" + text); }
};

// Both sides round in float32: 30 layers of sums of up to 2048 terms leave about 1e-4 on logits of size 10 to 40; 2e-3 is the contract.
constexpr double kFloatTolerance = 2e-3;

TEST_P(GoldenLogits, CpuInFloat32IsHuggingFaceInFloat32) {
  MINILLM_NEEDS_MODEL(path, package());
  MiniLLM model = MiniLLM::load(path, {.dtype = Dtype::kF32, .kv_dtype = Dtype::kF32});
  for (const char* text : kTexts) {
    const test::Golden expected = golden(text);
    const Distance distance = run(model, expected, expected.n_tokens);
    EXPECT_LE(distance.largest, kFloatTolerance) << text;
    EXPECT_EQ(distance.top_changes, 0) << text;
    EXPECT_LE(std::fabs(distance.mean_nll_gap), 1e-4) << text;
    RecordProperty(std::string(text) + "_largest", std::to_string(distance.largest));
  }
}

TEST_P(GoldenLogits, ReferenceDeviceIsHuggingFaceInFloat32) {
  MINILLM_NEEDS_MODEL(path, package());
  const char* slow = std::getenv("MINILLM_SLOW_TESTS");
  const bool whole = slow && std::string(slow) == "1";
  MiniLLM model = MiniLLM::load(path, {.device = {Device::Kind::kReference}, .dtype = Dtype::kF32, .kv_dtype = Dtype::kF32});
  for (const char* text : kTexts) {
    const test::Golden expected = golden(text);
    const Distance distance = run(model, expected, whole ? expected.n_tokens : 4);
    EXPECT_LE(distance.largest, kFloatTolerance) << text;
    EXPECT_EQ(distance.top_changes, 0) << text;
  }
}

TEST_P(GoldenLogits, DefaultQuantisedPathStaysNearFloat32) {
  MINILLM_NEEDS_MODEL(path, package());
  MiniLLM model = MiniLLM::load(path);
  for (const char* text : kTexts) {
    const test::Golden expected = golden(text);
    const Distance distance = run(model, expected, expected.n_tokens);
    EXPECT_LE(distance.mean_kl, 0.0046) << text;
    EXPECT_LE(std::fabs(distance.mean_nll_gap), 0.02) << text;
    RecordProperty(std::string(text) + "_mean_kl", std::to_string(distance.mean_kl));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenLogits, ::testing::Values("smollm2", "gemma3"), [](const auto& test) { return test.param; });

}  // namespace
}  // namespace minillm
