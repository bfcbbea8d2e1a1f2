// attention_bitwise_test.cpp - one row's result is the same bits alone, in a batch, after any chunking, with any number of
// threads, any page size and any page table. Keys are written only as far as each step has come: the rest is NaN.
#include <gtest/gtest.h>

#include "attention_support.h"

namespace minillm::test {
namespace {

struct Setting {
  std::string isa;
  Dtype dtype;
  int64_t group, window;
  std::string name() const {
    return isa + "_" + std::string(name_of(dtype)) + "_group" + std::to_string(group) + (window > 0 ? "_window" : "");
  }
};

std::vector<Setting> settings() {
  std::vector<Setting> all;
  for (const std::string& isa : isas_here())
    for (const Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16, Dtype::kF8})
      for (const int64_t group : {1, 3, 4, 8})
        for (const int64_t window : {0, 70})
          if (isa != "scalar" || group == 3 || dtype == Dtype::kF32) all.push_back({isa, dtype, group, window});
  return all;
}

AttentionParams params_of(const Setting& s, int64_t block_size) {
  AttentionParams p;
  p.n_heads = 2 * s.group;
  p.n_kv_heads = 2;
  p.head_dim = s.group == 4 ? 40 : s.group == 3 ? 64 : 32;  // 40: padded rows of V.
  p.scale = 0.125f;
  p.window = s.window;
  p.block_size = block_size;
  return p;
}

/// All rows of `c`, computed in steps of `chunk` rows, each seeing a cache that holds nothing beyond it.
AttentionOutput in_chunks(AttentionUnit& unit, const AttentionCase& c, Dtype dtype, int64_t page_tokens, int64_t chunk, uint64_t seed) {
  TestCache cache(unit.kernels, c.params, dtype, page_tokens, {c.n_keys}, seed);
  AttentionOutput all;
  for (int64_t begin = 0; begin < c.n_queries; begin += chunk) {
    const int64_t n = std::min(chunk, c.n_queries - begin);
    cache.write(0, c.k, c.v, begin, begin + n);
    const AttentionOutput part = attend_step(unit, cache, c.params, {{&c, 0, begin, n}});
    all.out.insert(all.out.end(), part.out.begin(), part.out.end());
    all.lse.insert(all.lse.end(), part.lse.begin(), part.lse.end());
  }
  return all;
}

class AttentionBitwise : public ::testing::TestWithParam<Setting> {};

TEST_P(AttentionBitwise, ChunksDecodeThreadsAndPagesDoNotMatter) {
  const Setting& s = GetParam();
  const int64_t n = s.isa == "scalar" ? 531 : 1091;  // Past one run of 512 keys, and past two.
  for (const int64_t block_size : {16, 128, 1024}) {
    if (block_size != 128 && s.group != 3) continue;
    const AttentionCase c = random_case(params_of(s, block_size), n, n, s.dtype, 5);
    AttentionUnit one(s.isa, 1), two(s.isa, 2), three(s.isa, 3);
    WorkspaceShape shape{.max_rows = n, .n_heads = c.params.n_heads, .n_kv_heads = 2, .head_dim = 64, .max_context = n, .max_sequences = 2};
    three.attention.reserve(shape);
    const AttentionOutput whole = in_chunks(one, c, s.dtype, 64, n, 1);
    const auto expect_same = [&](const AttentionOutput& got, const char* what) {
      EXPECT_TRUE(same_bits(got.out, whole.out)) << what << " block " << block_size;
      EXPECT_TRUE(same_bits(got.lse, whole.lse)) << what << " lse, block " << block_size;
    };
    expect_same(in_chunks(two, c, s.dtype, 16, n, 2), "pages of 16");
    expect_same(in_chunks(three, c, s.dtype, 256, 500, 3), "chunks of 500");
    const int64_t chunk = on_matrices(s.isa, s.dtype, n) ? 75 : 64;  // Of 1091 rows, 75 leave 41 for the last step: enough for tiles.
    expect_same(in_chunks(three, c, s.dtype, 1024, chunk, 3), "chunks of 64 or 75");
    if (on_matrices(s.isa, s.dtype, n)) {  // Fewer tokens at a time take another way: the same to rounding, and the same bits among them.
      const AttentionOutput decoded = in_chunks(three, c, s.dtype, 64, 1, 5), few = in_chunks(two, c, s.dtype, 48, 7, 4);
      EXPECT_TRUE(same_bits(few.out, decoded.out) && same_bits(few.lse, decoded.lse)) << "chunks of 7 and decode, block " << block_size;
      EXPECT_EQ(compare_attention(c, whole.out, whole.lse, Dtype::kBF16), "") << "block " << block_size;
      EXPECT_EQ(compare_attention(c, decoded.out, decoded.lse), "") << "block " << block_size;
      continue;
    }
    expect_same(in_chunks(two, c, s.dtype, 48, 7, 4), "chunks of 7");
    if (block_size == 128) expect_same(in_chunks(three, c, s.dtype, 64, 1, 5), "decode");
  }
}

TEST_P(AttentionBitwise, OtherSequencesOfTheBatchDoNotMatter) {
  const Setting& s = GetParam();
  const AttentionParams p = params_of(s, 64);
  AttentionUnit unit(s.isa, 2);
  // Lengths of keys and of new rows: prefill, decode, chunks, empty ones.
  const std::pair<int64_t, int64_t> lengths[] = {{130, 130}, {700, 1}, {1, 1}, {0, 0},    {64, 64}, {513, 3}, {31, 31}, {600, 0},
                                                 {16, 1},    {17, 17}, {2, 1}, {900, 40}, {99, 99}, {515, 1}, {3, 3},   {257, 128}};
  std::vector<AttentionCase> cases;
  std::vector<int64_t> n_keys;
  for (const auto& [keys, rows] : lengths) {
    cases.push_back(random_case(p, rows, keys, s.dtype, 40 + cases.size()));
    n_keys.push_back(keys);
  }
  TestCache cache(unit.kernels, p, s.dtype, 32, n_keys, 8);
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < cases.size(); ++i) {
    cache.write_all(i, cases[i]);
    chunks.push_back({&cases[i], i, 0, cases[i].n_queries});
  }
  const AttentionOutput batch = attend_step(unit, cache, p, chunks);
  auto row = batch.out.begin();
  for (size_t i = 0; i < cases.size(); ++i) {
    const AttentionOutput alone = attend_case(unit, cases[i], s.dtype, 64, 77);
    EXPECT_TRUE(same_bits(alone.out, {row, row + static_cast<int64_t>(alone.out.size())})) << "sequence " << i;
    row += static_cast<int64_t>(alone.out.size());
  }
}

INSTANTIATE_TEST_SUITE_P(Settings, AttentionBitwise, ::testing::ValuesIn(settings()), [](const auto& test) { return test.param.name(); });

/// Every option at once: what depends on the position must do so in decode as in prefill.
TEST(AttentionBitwiseOptions, SoftcapAlibiAndSinksAreTheSameInDecode) {
  const std::vector<float> slopes = alibi_slopes(6), sinks = randn(3, 6);
  AttentionParams p{.n_heads = 6, .n_kv_heads = 2, .head_dim = 58, .scale = 0.2f, .softcap = 20.0f, .alibi_slopes = slopes, .sinks = sinks};
  for (const std::string& isa : {isas_here().back(), isas_here()[isas_here().size() / 2]})
    for (const Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16, Dtype::kF8}) {
      AttentionUnit unit(isa);
      const AttentionCase c = random_case(p, 600, 600, dtype, 9, 3.0);
      const AttentionOutput whole = in_chunks(unit, c, dtype, 64, 600, 1), steps = in_chunks(unit, c, dtype, 16, 1, 2);
      if (on_matrices(isa, dtype, 600)) {  // The same to rounding.
        EXPECT_EQ(compare_attention(c, whole.out, whole.lse, Dtype::kBF16), "") << name_of(dtype);
        EXPECT_EQ(compare_attention(c, steps.out, steps.lse), "") << name_of(dtype);
        continue;
      }
      EXPECT_TRUE(same_bits(whole.out, steps.out)) << name_of(dtype);
      EXPECT_TRUE(same_bits(whole.lse, steps.lse)) << name_of(dtype);
    }
}

/// Infinite values of a later token must not turn 0 x inf into NaN in the rows before it.
TEST(AttentionBitwiseOptions, LaterTokensNeverReachEarlierRows) {
  AttentionParams p{.n_heads = 4, .n_kv_heads = 2, .head_dim = 64, .scale = 0.125f};
  for (const int64_t window : {0, 20}) {
    p.window = window;
    AttentionUnit unit;
    AttentionCase c = random_case(p, 300, 300, Dtype::kF32, 11);
    const AttentionOutput clean = attend_case(unit, c, Dtype::kF32, 64);
    const int64_t bad = 150, row = p.n_heads * p.head_dim;
    std::fill_n(c.v.begin() + bad * p.n_kv_heads * p.head_dim, p.n_kv_heads * p.head_dim, std::numeric_limits<float>::infinity());
    std::fill_n(c.k.begin() + bad * p.n_kv_heads * p.head_dim, p.head_dim, std::numeric_limits<float>::quiet_NaN());
    const AttentionOutput got = attend_case(unit, c, Dtype::kF32, 64);
    EXPECT_TRUE(std::equal(got.out.begin(), got.out.begin() + bad * row, clean.out.begin())) << window;
    EXPECT_FALSE(std::isfinite(got.out[static_cast<size_t>(bad * row)]));
    if (window > 0) {
      EXPECT_TRUE(std::equal(got.out.begin() + (bad + window) * row, got.out.end(), clean.out.begin() + (bad + window) * row));
    }
  }
}

/// The same over a 16-bit cache, where rows share tiles: those that meet such a number are computed in float32.
TEST(AttentionBitwiseOptions, InfiniteNumbersInA16BitCacheStayWhereTheyAreSeen) {
  AttentionParams p{.n_heads = 6, .n_kv_heads = 2, .head_dim = 64, .scale = 0.125f};
  for (const Dtype dtype : {Dtype::kF16, Dtype::kBF16})
    for (const bool in_values : {true, false}) {
      AttentionUnit unit;
      AttentionCase c = random_case(p, 300, 300, dtype, 11);
      const int64_t bad = 150, row = p.n_heads * p.head_dim;
      std::vector<float>& part = in_values ? c.v : c.k;
      part[static_cast<size_t>(bad * p.n_kv_heads * p.head_dim)] =
          in_values ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
      const AttentionOutput got = attend_case(unit, c, dtype, 64);
      AttentionCase before = c;  // The same without the token and what follows it.
      before.n_queries = before.n_keys = bad;
      before.q.resize(static_cast<size_t>(bad * row));
      before.k.resize(static_cast<size_t>(bad * p.n_kv_heads * p.head_dim));
      before.v.resize(before.k.size());
      const std::span<const float> earlier(got.out.data(), static_cast<size_t>(bad * row));
      EXPECT_EQ(compare_attention(before, earlier, {}, yardstick_of(unit.kernels.name, dtype, 300)), "") << name_of(dtype) << in_values;
      EXPECT_FALSE(std::isfinite(got.out[static_cast<size_t>(bad * row)])) << name_of(dtype) << in_values;
      EXPECT_TRUE(std::isfinite(got.out[static_cast<size_t>(bad * row + 3 * p.head_dim)])) << "another key/value head";
    }
}

}  // namespace
}  // namespace minillm::test
