// attention_append_test.cpp - bias, norm and rotation of q and k, and the slots that k and v go to, against double.
#include <gtest/gtest.h>

#include <cmath>

#include "attention_support.h"

namespace minillm::test {
namespace {

constexpr int64_t kHeads = 6, kKvHeads = 2;

struct AppendCase {
  const char* name;
  int64_t width, rope_dim;
  RopeLayout layout;
  bool bias, norm;
  Dtype dtype;
};

struct Inputs {
  std::vector<float> qkv, bias, q_norm, k_norm, angles;
};

/// One head in double.
std::vector<double> prepare(const AppendCase& c, const Inputs& in, int64_t row, int64_t index, const std::vector<float>* norm,
                            bool rotated) {
  const int64_t columns = (kHeads + 2 * kKvHeads) * c.width;
  std::vector<double> x(static_cast<size_t>(c.width));
  double squares = 0;
  for (int64_t d = 0; d < c.width; ++d) {
    double value = static_cast<double>(in.qkv[static_cast<size_t>(row * columns + index * c.width + d)]);
    if (c.bias) value += static_cast<double>(in.bias[static_cast<size_t>(index * c.width + d)]);
    x[static_cast<size_t>(d)] = value;
    squares += value * value;
  }
  if (c.norm && norm != nullptr)
    for (size_t d = 0; d < x.size(); ++d)
      x[d] *= static_cast<double>((*norm)[d]) / std::sqrt(squares / static_cast<double>(c.width) + 1e-6);
  const int64_t half = rotated ? c.rope_dim / 2 : 0;
  for (int64_t i = 0; i < half; ++i) {
    const bool pairs = c.layout == RopeLayout::kInterleaved;
    double &a = x[static_cast<size_t>(pairs ? 2 * i : i)], &b = x[static_cast<size_t>(pairs ? 2 * i + 1 : i + half)];
    const double cosine = static_cast<double>(in.angles[static_cast<size_t>(row * c.rope_dim + i)]);
    const double sine = static_cast<double>(in.angles[static_cast<size_t>(row * c.rope_dim + half + i)]);
    const double old = a;
    a = old * cosine - b * sine;
    b = old * sine + b * cosine;
  }
  return x;
}

AttentionInput heads_of(int64_t width) {
  AttentionInput w;
  w.n_heads = kHeads;
  w.n_kv_heads = kKvHeads;
  w.head_dim = width;
  return w;
}

class Append : public ::testing::TestWithParam<std::tuple<std::string, AppendCase>> {};

TEST_P(Append, RotatesAndStoresEveryRowAtItsSlot) {
  const auto& [isa, c] = GetParam();
  AttentionUnit unit(isa);
  const std::pair<int64_t, int64_t> slices[] = {{3, 20}, {0, 5}, {40, 30}, {1, 0}};  // New rows, cached tokens.
  const AttentionParams p{.n_heads = kHeads, .n_kv_heads = kKvHeads, .head_dim = c.width};
  TestCache cache(unit.kernels, p, c.dtype, 32, {23, 5, 70, 1}, 4);
  std::vector<SequenceSlice> sequences;
  int64_t n_rows = 0;
  for (size_t i = 0; i < 4; ++i) {
    sequences.push_back({n_rows, slices[i].first, slices[i].second, cache.tables[i].data()});
    n_rows += slices[i].first;
  }
  const int64_t columns = (kHeads + 2 * kKvHeads) * c.width;
  const Inputs in{randn(1, n_rows * columns), randn(2, columns), randn(3, c.width), randn(4, c.width), randn(5, n_rows * c.rope_dim)};
  AttentionInput w = heads_of(c.width);
  w.norm_eps = 1e-6f;
  w.rope_layout = c.layout;
  w.rope_dim = c.rope_dim;
  if (c.bias) w.bias = {in.bias.data(), Dtype::kF32, {columns}};
  if (c.norm) w.q_norm = {in.q_norm.data(), Dtype::kF32, {c.width}}, w.k_norm = {in.k_norm.data(), Dtype::kF32, {c.width}};
  std::vector<float> q(static_cast<size_t>(n_rows * kHeads * c.width));
  unit.attention.rotate_and_append({{}, {}, sequences}, {q.data(), Dtype::kF32, {n_rows, kHeads, c.width}},
                                   {in.qkv.data(), Dtype::kF32, {n_rows, columns}}, w,
                                   {in.angles.data(), Dtype::kF32, {n_rows, c.rope_dim}}, *cache.storage, 0);
  const double float_tolerance = 4e-6;  // A few roundings of values up to about 10.
  const double stored = c.dtype == Dtype::kF32 ? 0 : c.dtype == Dtype::kF16 ? 0x1p-11 : 0x1p-8;
  for (size_t i = 0; i < 4; ++i)
    for (int64_t r = 0; r < sequences[i].n_rows; ++r) {
      const int64_t row = sequences[i].first_row + r, slot = sequences[i].n_cached + r;
      for (int64_t h = 0; h < kHeads; ++h) {
        const std::vector<double> want = prepare(c, in, row, h, &in.q_norm, true);
        for (int64_t d = 0; d < c.width; ++d)
          ASSERT_NEAR(static_cast<double>(q[static_cast<size_t>((row * kHeads + h) * c.width + d)]), want[static_cast<size_t>(d)],
                      float_tolerance);
      }
      std::vector<float> k(static_cast<size_t>(kKvHeads * c.width)), v(k.size());
      cache.storage->read(0, cache.tables[i][static_cast<size_t>(slot / 32)], slot % 32, {k.data(), Dtype::kF32, {1, kKvHeads, c.width}},
                          {v.data(), Dtype::kF32, {1, kKvHeads, c.width}});
      for (int64_t g = 0; g < kKvHeads; ++g) {
        const std::vector<double> key = prepare(c, in, row, kHeads + g, &in.k_norm, true);
        const std::vector<double> value = prepare(c, in, row, kHeads + kKvHeads + g, nullptr, false);
        for (int64_t d = 0; d < c.width; ++d) {
          const size_t at = static_cast<size_t>(g * c.width + d), j = static_cast<size_t>(d);
          ASSERT_NEAR(static_cast<double>(k[at]), key[j], float_tolerance + stored * std::abs(key[j])) << "slot " << slot << " d " << d;
          ASSERT_NEAR(static_cast<double>(v[at]), value[j], float_tolerance + stored * std::abs(value[j])) << "slot " << slot << " d " << d;
        }
      }
    }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, Append,
    ::testing::Combine(::testing::ValuesIn(isas_here()),
                       ::testing::Values(AppendCase{"Plain", 64, 64, RopeLayout::kHalves, false, false, Dtype::kF16},
                                         AppendCase{"PartialInterleaved", 80, 24, RopeLayout::kInterleaved, true, false, Dtype::kBF16},
                                         AppendCase{"NormedOddWidth", 58, 58, RopeLayout::kHalves, true, true, Dtype::kF32},
                                         AppendCase{"NoRope", 16, 0, RopeLayout::kHalves, false, true, Dtype::kF32},
                                         AppendCase{"PartialHalves", 256, 100, RopeLayout::kHalves, false, true, Dtype::kF16})),
    [](const auto& test) { return std::get<0>(test.param) + "_" + std::get<1>(test.param).name; });

TEST(Append, ARowIsTheSameAloneAndInAnyBatch) {
  AttentionUnit unit;
  const AttentionParams p{.n_heads = kHeads, .n_kv_heads = kKvHeads, .head_dim = 64};
  const int64_t n = 50, columns = (kHeads + 2 * kKvHeads) * 64;
  const std::vector<float> qkv = randn(1, n * columns), norm = randn(2, 64), angles = randn(3, n * 64);
  AttentionInput w = heads_of(64);
  w.rope_dim = 64;
  w.q_norm = w.k_norm = {norm.data(), Dtype::kF32, {64}};
  std::vector<float> q[2], k[2], v[2];
  for (const int64_t chunk : {int64_t{1}, n}) {
    const size_t i = chunk == 1 ? 0 : 1;
    TestCache cache(unit.kernels, p, Dtype::kF32, 64, {n});
    q[i].resize(static_cast<size_t>(n * kHeads * 64)), k[i].resize(static_cast<size_t>(n * kKvHeads * 64)), v[i].resize(k[i].size());
    for (int64_t begin = 0; begin < n; begin += chunk) {
      const SequenceSlice slice{0, chunk, begin, cache.tables[0].data()};
      unit.attention.rotate_and_append({{}, {}, {&slice, 1}}, {q[i].data() + begin * kHeads * 64, Dtype::kF32, {chunk, kHeads, 64}},
                                       {qkv.data() + begin * columns, Dtype::kF32, {chunk, columns}}, w,
                                       {angles.data() + begin * 64, Dtype::kF32, {chunk, 64}}, *cache.storage, 0);
    }
    cache.storage->read(0, cache.tables[0][0], 0, {k[i].data(), Dtype::kF32, {n, kKvHeads, 64}},
                        {v[i].data(), Dtype::kF32, {n, kKvHeads, 64}});
  }
  EXPECT_TRUE(same_bits(q[0], q[1]));
  EXPECT_TRUE(same_bits(k[0], k[1]));
  EXPECT_TRUE(same_bits(v[0], v[1]));
}

}  // namespace
}  // namespace minillm::test
