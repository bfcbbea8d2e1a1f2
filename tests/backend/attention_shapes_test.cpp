// attention_shapes_test.cpp - flash and standard attention on the CPU against plain attention in double.
// Shapes: the lists of the FlashAttention tests that fit a CPU in seconds, each with options chosen so that every pair of
// option values meets; every unused slot of the cache holds NaN.
#include <gtest/gtest.h>

#include "attention_support.h"

namespace minillm::test {
namespace {

struct Shape {
  int64_t n_queries, n_keys;
};

/// Options of case `i`, drawn from a seeded stream: with some hundred cases every pair of values occurs.
struct Options {
  AttentionParams params;
  std::vector<float> slopes, sinks;
  Dtype dtype;
  int64_t page_tokens;
  std::string text;

  Options(uint64_t i, bool causal_only) {
    Random random(1000 + i);
    const auto pick = [&random](auto values) { return values[static_cast<size_t>(random.below(static_cast<int64_t>(values.size())))]; };
    const int64_t group = pick(std::vector<int64_t>{1, 3, 4, 8});
    params.n_kv_heads = group == 8 ? 1 : pick(std::vector<int64_t>{1, 2});
    params.n_heads = group * params.n_kv_heads;
    params.head_dim = pick(std::vector<int64_t>{16, 32, 40, 58, 64, 80, 96, 128, 256});
    params.scale = 1.0f / std::sqrt(static_cast<float>(params.head_dim));
    params.causal = causal_only || random.below(2) == 0;
    params.window = pick(std::vector<int64_t>{0, 0, 1, 17, 100, 512});
    params.softcap = pick(std::vector<float>{0.0f, 0.0f, 15.0f, 50.0f});
    params.block_size = pick(std::vector<int64_t>{16, 32, 64, 128, 256, 512, 1024});
    if (random.below(3) == 0) slopes = alibi_slopes(params.n_heads);
    if (random.below(3) == 0) sinks = randn(i, params.n_heads);
    params.alibi_slopes = slopes;
    params.sinks = sinks;
    dtype = pick(std::vector<Dtype>{Dtype::kF32, Dtype::kF16, Dtype::kBF16, Dtype::kF8});
    page_tokens = pick(std::vector<int64_t>{16, 48, 64, 256});
    text = "D " + std::to_string(params.head_dim) + " heads " + std::to_string(params.n_heads) + "/" + std::to_string(params.n_kv_heads) +
           " causal " + std::to_string(params.causal) + " window " + std::to_string(params.window) + " cap " +
           std::to_string(params.softcap) + " alibi " + std::to_string(!slopes.empty()) + " sinks " + std::to_string(!sinks.empty()) +
           " block " + std::to_string(params.block_size) + " page " + std::to_string(page_tokens) + " " + std::string(name_of(dtype));
  }
};

void check_shape(const std::string& isa, Shape shape, uint64_t i) {
  AttentionUnit unit(isa);
  Options options(i, shape.n_keys < shape.n_queries);
  const AttentionCase c = random_case(options.params, shape.n_queries, shape.n_keys, options.dtype, i);
  for (const bool flash : {true, false}) {
    AttentionCase with = c;
    with.params.flash = flash;
    const AttentionOutput got = attend_case(unit, with, options.dtype, options.page_tokens);
    EXPECT_EQ(compare_attention(c, got.out, got.lse, yardstick_of(isa, options.dtype, shape.n_queries, flash)), "")
        << isa << (flash ? " flash " : " standard ") << shape.n_queries << " x " << shape.n_keys << " case " << i << ": " << options.text;
  }
}

class AttentionShapes : public ::testing::TestWithParam<std::string> {};

TEST_P(AttentionShapes, MatchPlainAttentionInDouble) {
  const Shape shapes[] = {{1, 1},    {1, 2},     {2, 2},     {1, 3},     {3, 17},    {1, 128},   {1, 239},  {1, 339},   {3, 799},
                          {64, 128}, {128, 192}, {113, 203}, {127, 512}, {127, 513}, {128, 217}, {97, 97},  {200, 200}, {108, 256},
                          {64, 800}, {256, 257}, {1, 1025},  {5, 1024},  {16, 1500}, {2, 2049},  {33, 640}, {129, 129}, {31, 1023}};
  uint64_t i = 0;
  for (const Shape shape : shapes)
    for (int repeat = 0; repeat < (GetParam() == "scalar" ? 1 : 4); ++repeat) check_shape(GetParam(), shape, ++i);
}

TEST_P(AttentionShapes, LongSequences) {
  const Shape shapes[] = {{1, 4097}, {3, 4300}, {24, 4096}, {1, 9001}};
  uint64_t i = 900;
  for (const Shape shape : shapes) check_shape(GetParam(), shape, ++i);
}

INSTANTIATE_TEST_SUITE_P(Isa, AttentionShapes, ::testing::ValuesIn(isas_here()), [](const auto& test) { return test.param; });

}  // namespace
}  // namespace minillm::test
