// attention_promises_test.cpp - what MiniLLM promises of attention, a test for each promise: the number is its row in docs/PROMISES.md.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "conformance/tiny_decoder.h"
#include "minillm/attention.h"
#include "minillm/model.h"

namespace minillm {
namespace {

using test::randn;

Tensor random_tensor(uint64_t seed, std::vector<int64_t> shape) {
  const int64_t n = test::count(shape);
  return Tensor::from_values(randn(seed, n), std::move(shape));
}

double largest_difference(const Tensor& a, const Tensor& b) {
  double worst = 0;
  for (size_t i = 0; i < a.values<float>().size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(a.values<float>()[i]) - static_cast<double>(b.values<float>()[i])));
  return worst;
}

TEST(Promise01, BlockWiseAttentionNeedsLessMemory) {
  for (const int64_t tokens : {256, 512, 1024, 2048}) {
    const Tensor x = random_tensor(1, {2, tokens, 8, 64});
    const AttentionOptions options{.block_size = 128, .n_threads = 2};
    const int64_t flash = flash_attention(x, x, x, options).peak_bytes, standard = standard_attention(x, x, x, options).peak_bytes;
    const int64_t scores = 2 * 8 * tokens * tokens * 4;  // 4, 16, 64 and 256 MiB.
    EXPECT_LE(flash, 1 << 20) << tokens;
    EXPECT_GE(standard, scores) << tokens;
    EXPECT_LE(standard, scores + (1 << 20)) << tokens;
  }
}

TEST(Promise02, OnlineSoftmaxIsNumericallyStable) {
  // Whole numbers below 2^11: every product and sum is exact in float32, so scores reach 1e4 without an error of their own.
  constexpr int64_t kTokens = 300, kDim = 16;
  Tensor q({1, kTokens, 2, kDim}), k({1, kTokens, 2, kDim});
  const Tensor v = random_tensor(3, {1, kTokens, 2, kDim});
  test::Random random(1);
  for (Tensor* tensor : {&q, &k})
    for (float& value : tensor->values<float>()) value = static_cast<float>(random.below(51)) - 25.0f;
  for (int64_t d = 0; d < kDim; ++d) {  // The last query meets its own key with the largest score there can be, 1e4.
    q.values<float>()[static_cast<size_t>((kTokens - 1) * 2 * kDim + d)] = 25;
    k.values<float>()[static_cast<size_t>((kTokens - 1) * 2 * kDim + d)] = 25;
  }
  for (const float scale : {1.0f, -1.0f, 0.0f + 1e-30f}) {  // The last: every score of a row is equal, to rounding.
    const AttentionOptions exact{.scale = scale, .device = {Device::Kind::kReference, 0}};
    for (const int64_t block : {16, 128, 1024}) {
      const AttentionResult got = flash_attention(q, k, v, {.scale = scale, .block_size = block, .n_threads = 2});
      // Scores go to base 2 in float32, which rounds one of 1e4 by up to 1e4 2^-24: 6e-4 of a weight, whatever the others are.
      EXPECT_LT(largest_difference(got.output, standard_attention(q, k, v, exact).output), 6e-4) << scale << " " << block;
    }
  }
}

TEST(Promise03, MultiHeadCausalAttentionWithAnyBlockSize) {
  for (const auto& [heads, kv_heads] : {std::pair{1, 1}, {3, 3}, {8, 2}, {12, 4}, {7, 1}}) {
    const Tensor q = random_tensor(1, {2, 70, heads, 32}), k = random_tensor(2, {2, 150, kv_heads, 32}),
                 v = random_tensor(3, {2, 150, kv_heads, 32});
    const Tensor want = standard_attention(q, k, v, {.device = {Device::Kind::kReference, 0}}).output;
    for (int64_t block = 16; block <= 1024; block *= 2)
      EXPECT_LT(largest_difference(flash_attention(q, k, v, {.block_size = block, .n_threads = 2}).output, want), 4e-6)
          << heads << " heads, block " << block;
    // Causal: what the last key holds reaches the last query alone.
    Tensor other = k.clone();
    std::fill_n(other.values<float>().begin() + 149 * kv_heads * 32, kv_heads * 32, 9.0f);
    const Tensor before = flash_attention(q, k, v, {.n_threads = 2}).output, after = flash_attention(q, other, v, {.n_threads = 2}).output;
    const auto n_before = static_cast<ptrdiff_t>(69) * heads * 32;
    EXPECT_TRUE(std::equal(before.values<float>().begin(), before.values<float>().begin() + n_before, after.values<float>().begin()));
    EXPECT_GT(largest_difference(before, after), 0);
  }
}

TEST(Promise15, BlockSizeZeroIsResolvedOnceAtLoadWhateverTheLength) {
  ModelConfig config = Configs::small();
  config.n_layers = 1;
  config.vocab_size = 64;
  MiniLLM model(config);
  const int64_t block = model.flash_block_size();
  EXPECT_TRUE((std::set<int64_t>{64, 128, 256}.contains(block))) << block << ": the advice is 64 to 128, then 128 to 256";
  for (const int64_t tokens : {20, 200, 700}) {
    Tensor ids({1, tokens}, Dtype::kI32);
    for (size_t i = 0; i < ids.values<int32_t>().size(); ++i) ids.values<int32_t>()[i] = static_cast<int32_t>(i * 7 % 64);
    const Tensor chosen = model.forward(ids), named = model.forward(ids, {.flash_block_size = block});
    EXPECT_TRUE(std::ranges::equal(chosen.values<float>(), named.values<float>())) << tokens;
  }
  EXPECT_EQ(MiniLLM(config, {.flash_block_size = 32}).flash_block_size(), 32);
  EXPECT_EQ(MiniLLM(config).flash_block_size(), block) << "the same at every load";
}

/// Norm beside quantising, q/k/v in one product, gate and up in one pass with the activation beside it, residual sums beside the
/// product: each against the same made of small operations, bit by bit. Every format and instruction set: conformance/composites_test.cpp.
TEST(Promise18, FusedOperationsGiveTheBitsOfTheirParts) {
  const std::unique_ptr<Backend> backend = make_cpu_backend({.n_threads = 2});
  constexpr int64_t kHidden = test::TinyDecoder::kHidden, kVocab = 100;
  for (const test::TinyTypes& types : test::kTinyTypes)
    for (const int64_t n_rows : {1, 5, 300}) {
      const test::TinyDecoder model(*backend, types, true);
      const test::Step step({{0, n_rows}}, 16);
      backend->reserve_workspace(test::TinyDecoder::workspace(n_rows, kVocab, 1));
      backend->begin_step(step.batch());
      const std::vector<float> x = randn(1, n_rows * kHidden);
      const test::Array fused(*backend, {n_rows, kHidden}, x), plain(*backend, {n_rows, kHidden}, x);
      backend->feed_forward(fused, model.feed_forward(0));
      const test::Array gated(*backend, {n_rows, model.feed_forward(0).down->cols()});
      backend->Backend::feed_forward_input(gated, plain, model.feed_forward(0));
      backend->Backend::attention_output(plain, gated, *model.feed_forward(0).down, model.feed_forward(0).post_norm,
                                         model.feed_forward(0).norm_eps);
      EXPECT_EQ(fused.host(), plain.host()) << types.name << ", " << n_rows << " rows";
    }
}

}  // namespace
}  // namespace minillm
