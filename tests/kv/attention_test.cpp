// attention_test.cpp - attention on dense tensors through the public functions: results, memory, refusals.
#include "minillm/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/half.h"
#include "support/random.h"

namespace minillm {
namespace {

constexpr Device kReference{Device::Kind::kReference, 0};

Tensor random_tensor(uint64_t seed, std::vector<int64_t> shape, double spread = 1.0) {
  int64_t n = 1;
  for (int64_t size : shape) n *= size;
  return Tensor::from_values(test::randn(seed, n, spread), std::move(shape));
}

struct Case {
  std::string name;
  int64_t batch, n_queries, n_keys, n_heads, n_kv_heads, dim;
  AttentionOptions options;
};

class Attention : public testing::TestWithParam<Case> {};

TEST_P(Attention, FlashAndStandardMatchTheOracle) {
  const Case& c = GetParam();
  const Tensor q = random_tensor(1, {c.batch, c.n_queries, c.n_heads, c.dim});
  const Tensor k = random_tensor(2, {c.batch, c.n_keys, c.n_kv_heads, c.dim}),
               v = random_tensor(3, {c.batch, c.n_keys, c.n_kv_heads, c.dim});
  AttentionOptions options = c.options;
  options.return_lse = true;
  options.n_threads = 2;
  const AttentionResult flash = flash_attention(q, k, v, options), standard = standard_attention(q, k, v, options);
  options.device = kReference;
  const AttentionResult want = flash_attention(q, k, v, options);
  // float32 sums of up to n_keys terms of size max |v| = 5, and e^x of a score up to 5 wrong by D rounding errors.
  const double tolerance = 8 * 0x1p-24 * 5 * (std::sqrt(static_cast<double>(c.n_keys)) + 5 * std::sqrt(static_cast<double>(c.dim))) + 1e-6;
  for (const AttentionResult* got : {&flash, &standard}) {
    const char* name = got == &flash ? "flash" : "standard";
    ASSERT_EQ(got->output.shape(), q.shape());
    for (int64_t i = 0; i < want.output.n_elements(); ++i) {
      const auto at = static_cast<size_t>(i);
      ASSERT_NEAR(got->output.values<float>()[at], want.output.values<float>()[at], tolerance)
          << name << " at row " << i / (c.n_heads * c.dim) << ", head " << i / c.dim % c.n_heads << ", d " << i % c.dim;
    }
    for (int64_t i = 0; i < want.lse->n_elements(); ++i) {
      const float x = got->lse->values<float>()[static_cast<size_t>(i)], y = want.lse->values<float>()[static_cast<size_t>(i)];
      if (std::isinf(y)) {
        ASSERT_EQ(x, y) << name << " lse " << i;
      } else {
        ASSERT_NEAR(x, y, tolerance + 1e-6 * std::abs(y)) << name << " lse " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Attention,
                         testing::Values(Case{"Plain", 2, 37, 37, 4, 4, 64, {}}, Case{"FewRows", 1, 3, 130, 4, 2, 80, {}},
                                         Case{"MoreRowsThanKeys", 1, 40, 5, 2, 1, 16, {}}, Case{"NoKeys", 1, 2, 0, 2, 1, 16, {}},
                                         Case{"Everything",
                                              1,
                                              33,
                                              97,
                                              6,
                                              2,
                                              32,
                                              {.scale = 0.3f,
                                               .window = 20,
                                               .softcap = 5.0f,
                                               .alibi_slopes = {0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f},
                                               .sinks = {0, 1, 2, 3, -1, -2},
                                               .block_size = 16}},
                                         Case{"NotCausal", 2, 20, 50, 2, 2, 24, {.causal = false, .block_size = 1024}}),
                         [](const auto& test) { return test.param.name; });

TEST(AttentionApi, SixteenBitInputsAreWidened) {
  Tensor q({1, 1, 1, 2}, Dtype::kF16), k({1, 1, 1, 2}, Dtype::kBF16), v({1, 1, 1, 2}, Dtype::kBF16);
  v.values<uint16_t>()[1] = float_to_bfloat16(3.0f);
  const AttentionResult result = flash_attention(q, k, v, {.device = kReference});
  EXPECT_EQ(result.output.values<float>()[1], 3.0f);
  EXPECT_FALSE(result.lse.has_value());
}

TEST(AttentionApi, EmptyBatchGivesAnEmptyResult) {
  const Tensor q({0, 4, 2, 8}), k({0, 4, 2, 8});
  EXPECT_EQ(flash_attention(q, k, k, {.return_lse = true}).output.n_elements(), 0);
}

TEST(AttentionApi, FlashMemoryDoesNotGrowWithLengthAndStandardHoldsTheScores) {
  for (const int64_t n : {256, 1024}) {
    const Tensor q = random_tensor(1, {2, n, 8, 64}), k = random_tensor(2, {2, n, 8, 64});
    AttentionOptions options;
    options.block_size = 128;
    options.n_threads = 2;
    EXPECT_LE(flash_attention(q, k, k, options).peak_bytes, int64_t{1} << 20) << n;
    EXPECT_GE(standard_attention(q, k, k, options).peak_bytes, 2 * 8 * n * n * 4) << n;
  }
}

TEST(AttentionApi, RefusesWhatDoesNotFitTogether) {
  const Tensor q({1, 4, 4, 8}), k({1, 6, 2, 8});
  const auto expect_refused = [](const Tensor& a, const Tensor& b, const Tensor& c, const AttentionOptions& options, const char* why) {
    for (const auto attention : {flash_attention, standard_attention}) {
      try {
        attention(a, b, c, options);
        ADD_FAILURE() << why << ": no error";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << why << ": " << error.what();
      }
    }
  };
  expect_refused(Tensor({4, 4, 8}), k, k, {}, "rank");
  expect_refused(Tensor({1, 4, 4, 8}, Dtype::kI32), k, k, {}, "dtype");
  expect_refused(q, Tensor({1, 6, 2, 8}, Dtype::kI32), k, {}, "dtype of k");
  expect_refused(q, k, Tensor({1, 7, 2, 8}), {}, "v longer than k");
  expect_refused(q, Tensor({2, 6, 2, 8}), Tensor({2, 6, 2, 8}), {}, "batch");
  expect_refused(q, Tensor({1, 6, 2, 16}), Tensor({1, 6, 2, 16}), {}, "head width");
  expect_refused(q, Tensor({1, 6, 3, 8}), Tensor({1, 6, 3, 8}), {}, "heads");
  expect_refused(q, Tensor({1, 6, 0, 8}), Tensor({1, 6, 0, 8}), {}, "no key heads");
  expect_refused(Tensor({1, 4, 4, 0}), Tensor({1, 6, 2, 0}), Tensor({1, 6, 2, 0}), {}, "width 0");
  expect_refused(q, k, k, {.window = -1}, "window");
  expect_refused(q, k, k, {.softcap = -1.0f}, "softcap");
  expect_refused(q, k, k, {.softcap = std::numeric_limits<float>::infinity()}, "softcap");
  expect_refused(q, k, k, {.scale = std::numeric_limits<float>::quiet_NaN()}, "scale");
  expect_refused(q, k, k, {.alibi_slopes = {1, 2, 3}}, "slopes");
  expect_refused(q, k, k, {.sinks = {1}}, "sinks");
  for (int64_t block : {-16, 1, 8, 24, 2048}) expect_refused(q, k, k, {.block_size = block}, "block size");
  expect_refused(q, k, k, {.n_threads = -1}, "threads");
  expect_refused(q, k, k, {.timed_runs = -1}, "timed runs");
}

}  // namespace
}  // namespace minillm
