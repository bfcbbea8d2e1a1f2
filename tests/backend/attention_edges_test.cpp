// attention_edges_test.cpp - rows with nothing to see, enormous scores, dense tensors of awkward shapes, refusals.
#include <gtest/gtest.h>

#include "attention_support.h"

namespace minillm::test {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

AttentionOutput dense(AttentionUnit& unit, const AttentionCase& c, int64_t n_batch = 1) {
  const AttentionParams& p = c.params;
  AttentionOutput result{std::vector<float>(c.q.size(), 7.0f), std::vector<float>(c.q.size() / static_cast<size_t>(p.head_dim), 7.0f)};
  const int64_t sq = c.n_queries / n_batch, sk = c.n_keys / n_batch;
  unit.attention.dense_attention(
      {result.out.data(), Dtype::kF32, {n_batch, sq, p.n_heads, p.head_dim}},
      {c.q.data(), Dtype::kF32, {n_batch, sq, p.n_heads, p.head_dim}}, {c.k.data(), Dtype::kF32, {n_batch, sk, p.n_kv_heads, p.head_dim}},
      {c.v.data(), Dtype::kF32, {n_batch, sk, p.n_kv_heads, p.head_dim}}, p, {result.lse.data(), Dtype::kF32, {n_batch, sq, p.n_heads}});
  return result;
}

class AttentionEdges : public ::testing::TestWithParam<std::string> {};

TEST_P(AttentionEdges, DenseTensorsOfEveryShape) {
  AttentionUnit unit(GetParam());
  const std::tuple<int64_t, int64_t, int64_t, bool> shapes[] = {
      {1, 1, 64, true},    {113, 203, 58, true}, {203, 113, 64, true}, {239, 1, 32, true},   {64, 130, 80, false},
      {799, 3, 16, false}, {130, 513, 6, false}, {33, 33, 1, true},    {128, 217, 59, true}, {97, 97, 111, false}};
  for (const auto& [sq, sk, width, causal] : shapes)
    for (const bool flash : {true, false})
      for (const int64_t window : {0, 40}) {
        AttentionParams p{
            .n_heads = 4, .n_kv_heads = 2, .head_dim = width, .scale = 0.3f, .causal = causal, .window = window, .flash = flash};
        p.block_size = 32;
        const AttentionCase c = random_case(p, sq, sk, Dtype::kF32, 3);
        const AttentionOutput got = dense(unit, c);
        EXPECT_EQ(compare_attention(c, got.out, got.lse), "")
            << sq << " x " << sk << " D " << width << " window " << window << " flash " << flash;
      }
}

TEST_P(AttentionEdges, NothingToSeeGivesZerosAndMinusInfinity) {
  AttentionUnit unit(GetParam());
  for (const bool flash : {true, false}) {
    AttentionParams p{.n_heads = 3, .n_kv_heads = 1, .head_dim = 16, .flash = flash};
    for (const int64_t sk : {0, 2}) {  // Five queries on two keys: the first three see nothing.
      const AttentionCase c = random_case(p, 5, sk, Dtype::kF32, 4);
      const AttentionOutput got = dense(unit, c);
      EXPECT_TRUE(std::all_of(got.out.begin(), got.out.begin() + 3 * 3 * 16, [](float x) { return x == 0.0f && !std::signbit(x); }));
      EXPECT_TRUE(std::all_of(got.lse.begin(), got.lse.begin() + 3 * 3, [](float x) { return x == kMinusInfinity; }));
    }
    const std::vector<float> sinks{0.5f, -2.0f, kMinusInfinity};
    p.sinks = sinks;
    const AttentionOutput with_sinks = dense(unit, random_case(p, 1, 0, Dtype::kF32, 4));
    EXPECT_EQ(with_sinks.out, std::vector<float>(3 * 16, 0.0f));
    EXPECT_FLOAT_EQ(with_sinks.lse[0], 0.5f);
    EXPECT_FLOAT_EQ(with_sinks.lse[1], -2.0f);
    EXPECT_EQ(with_sinks.lse[2], kMinusInfinity);
  }
}

TEST_P(AttentionEdges, ScoresOfTenThousandDoNotOverflow) {
  AttentionUnit unit(GetParam());
  for (const bool flash : {true, false}) {
    AttentionParams p{.n_heads = 4, .n_kv_heads = 2, .head_dim = 64, .scale = 1.0f, .flash = flash};
    const AttentionCase c = random_case(p, 200, 700, Dtype::kF16, 6, 1250.0);  // q.k has a standard deviation of 1250 sqrt(64) = 10^4.
    const AttentionOutput got = attend_case(unit, c, Dtype::kF16, 64);
    EXPECT_EQ(compare_attention(c, got.out, got.lse, yardstick_of(GetParam(), Dtype::kF16, 200, flash)), "");
  }
}

TEST_P(AttentionEdges, InfiniteKeysOfTheWrongSignCountAsHidden) {
  AttentionUnit unit(GetParam());
  AttentionParams p{.n_heads = 1, .n_kv_heads = 1, .head_dim = 16, .scale = 1.0f};
  AttentionCase c = random_case(p, 1, 20, Dtype::kF32, 6);
  std::fill(c.q.begin(), c.q.end(), 1.0f);
  std::fill(c.k.begin(), c.k.end(), kMinusInfinity);
  const AttentionOutput got = dense(unit, c);
  EXPECT_EQ(got.out, std::vector<float>(16, 0.0f));
  EXPECT_EQ(got.lse[0], kMinusInfinity);
}

TEST_P(AttentionEdges, ANanThatIsSeenShows) {
  AttentionUnit unit(GetParam());
  AttentionParams p{.n_heads = 1, .n_kv_heads = 1, .head_dim = 16, .scale = 1.0f};
  AttentionCase c = random_case(p, 40, 40, Dtype::kF32, 6);
  c.k[30 * 16] = std::numeric_limits<float>::quiet_NaN();
  const AttentionOutput got = dense(unit, c);
  EXPECT_TRUE(std::isfinite(got.out[29 * 16]));
  EXPECT_TRUE(std::isnan(got.out[30 * 16]));
  EXPECT_TRUE(std::isnan(got.out[39 * 16]));
}

INSTANTIATE_TEST_SUITE_P(Isa, AttentionEdges, ::testing::ValuesIn(isas_here()), [](const auto& test) { return test.param; });

TEST(AttentionRefuses, ParametersOutOfRange) {
  const AttentionParams good{.n_heads = 4, .n_kv_heads = 2, .head_dim = 16};
  EXPECT_NO_THROW(cpu::check_attention_params(good));
  const std::vector<float> three(3);
  const auto refused = [&](auto change) {
    AttentionParams p = good;
    change(p);
    try {
      cpu::check_attention_params(p);
    } catch (const Error& error) {
      return error.code() == ErrorCode::kInvalidArgument;
    }
    return false;
  };
  EXPECT_TRUE(refused([](auto& p) { p.n_kv_heads = 3; }));
  EXPECT_TRUE(refused([](auto& p) { p.n_kv_heads = 0; }));
  EXPECT_TRUE(refused([](auto& p) { p.head_dim = -2; }));
  EXPECT_TRUE(refused([](auto& p) { p.head_dim = 0; }));
  EXPECT_TRUE(refused([](auto& p) { p.block_size = 96; }));
  EXPECT_TRUE(refused([](auto& p) { p.block_size = 8; }));
  EXPECT_TRUE(refused([](auto& p) { p.block_size = 2048; }));
  EXPECT_TRUE(refused([](auto& p) { p.window = -1; }));
  EXPECT_TRUE(refused([](auto& p) { p.softcap = -1.0f; }));
  EXPECT_TRUE(refused([](auto& p) { p.scale = std::numeric_limits<float>::quiet_NaN(); }));
  EXPECT_TRUE(refused([&](auto& p) { p.sinks = three; }));
  EXPECT_TRUE(refused([&](auto& p) { p.alibi_slopes = three; }));
  EXPECT_THROW(cpu::attention_kernels_of("mmx"), Error);
}

TEST(AttentionRefuses, DenseShapesThatDoNotFit) {
  AttentionUnit unit;
  const AttentionParams p{.n_heads = 2, .n_kv_heads = 1, .head_dim = 4};
  std::vector<float> data(64);
  const auto view = [&](std::initializer_list<int64_t> shape) { return TensorView{data.data(), Dtype::kF32, shape}; };
  const auto call = [&](TensorView out, TensorView q, TensorView k, TensorView v, TensorView lse = {}) {
    unit.attention.dense_attention(out, q, k, v, p, lse);
  };
  const TensorView q = view({1, 2, 2, 4}), k = view({1, 3, 1, 4});
  EXPECT_NO_THROW(call(view({1, 2, 2, 4}), q, k, k));
  EXPECT_THROW(call(q, view({2, 2, 4}), k, k), Error);
  EXPECT_THROW(call(q, view({1, 2, 1, 4}), k, k), Error);
  EXPECT_THROW(call(q, q, view({1, 3, 2, 4}), k), Error);
  EXPECT_THROW(call(q, q, k, view({1, 2, 1, 4})), Error);
  EXPECT_THROW(call(view({1, 3, 2, 4}), q, k, k), Error);
  EXPECT_THROW(call(q, q, k, k, view({1, 3, 2})), Error);
}

}  // namespace
}  // namespace minillm::test
