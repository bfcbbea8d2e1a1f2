// attention_memory_test.cpp - what attention allocates: nothing that grows with length in prefill, nothing at all in a step
// that was reserved for, and the whole score matrix only where that is asked for.
#include <gtest/gtest.h>

#include "attention_support.h"

namespace minillm::test {
namespace {

AttentionParams small_model() { return {.n_heads = 8, .n_kv_heads = 8, .head_dim = 64, .scale = 0.125f}; }

size_t dense_peak(int64_t n, bool flash) {
  AttentionParams p = small_model();
  p.flash = flash;
  AttentionUnit unit(isas_here().back(), 2);
  const std::vector<float> x(static_cast<size_t>(2 * n * 8 * 64), 0.5f);
  std::vector<float> out(x.size());
  const ConstTensorView in{x.data(), Dtype::kF32, {2, n, 8, 64}};
  unit.attention.dense_attention({out.data(), Dtype::kF32, {2, n, 8, 64}}, in, in, in, p, {});
  return unit.memory.peak();
}

TEST(AttentionMemory, FlashTakesTheSameAtEveryLengthAndLessThanOneMegabyte) {
  const size_t at_256 = dense_peak(256, true);
  EXPECT_LE(at_256, size_t{1} << 20);
  EXPECT_EQ(dense_peak(512, true), at_256);
  EXPECT_EQ(dense_peak(2048, true), at_256);
}

TEST(AttentionMemory, StandardAddsExactlyTheScoreMatrix) {
  const size_t flash = dense_peak(256, true);
  EXPECT_EQ(dense_peak(256, false), flash + (size_t{4} << 20));
  EXPECT_EQ(dense_peak(512, false), flash + (size_t{16} << 20));
}

TEST(AttentionMemory, PagedPrefillTakesTheSameFrom256To8192) {
  std::vector<size_t> peaks;
  for (const int64_t n : {256, 2048, 8192}) {
    AttentionParams p{.n_heads = 2, .n_kv_heads = 1, .head_dim = 32, .scale = 0.2f, .window = n > 2048 ? 512 : 0};
    AttentionUnit unit;
    const AttentionCase c = random_case(p, n, n, Dtype::kF16, 1);
    attend_case(unit, c, Dtype::kF16, 64);
    peaks.push_back(unit.memory.peak());
  }
  EXPECT_EQ(peaks[0], peaks[1]);
  EXPECT_EQ(peaks[0], peaks[2]);
}

TEST(AttentionMemory, AReservedStepNeverAllocates) {
  AttentionParams p{.n_heads = 6, .n_kv_heads = 2, .head_dim = 64, .scale = 0.125f};
  AttentionUnit unit(isas_here().back(), 2);
  unit.attention.reserve({.max_rows = 300, .n_heads = 6, .n_kv_heads = 2, .head_dim = 64, .max_context = 4000, .max_sequences = 3});
  const int64_t before = unit.memory.n_calls();
  for (const int64_t rows : {1, 2, 300}) {
    const AttentionCase c = random_case(p, rows, 4000, Dtype::kF16, 1);
    const AttentionOutput got = attend_case(unit, c, Dtype::kF16, 64);
    EXPECT_TRUE(std::isfinite(got.out[0]));
  }
  EXPECT_EQ(unit.memory.n_calls(), before);
}

TEST(AttentionMemory, DecodeGrowsOnlyByItsPartialResults) {
  const auto reserved = [](int64_t context) {
    AttentionUnit unit(isas_here().back(), 2);
    unit.attention.reserve({.max_rows = 1, .n_heads = 6, .n_kv_heads = 2, .head_dim = 64, .max_context = context, .max_sequences = 1});
    return static_cast<int64_t>(unit.memory.current());
  };
  const int64_t rows_a_run = 2 * 8;  // Key/value heads times the tallest tile that is split.
  EXPECT_EQ(reserved(16384) - reserved(8192), 16 * rows_a_run * (64 + 2) * 4);
}

}  // namespace
}  // namespace minillm::test
