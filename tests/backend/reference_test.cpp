// reference_test.cpp - the oracle itself, against formulas worked out by hand or written a second way.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "backend/backend.h"
#include "minillm/metrics.h"
#include "support/random.h"
#include "support/sanitizer_options.h"

namespace minillm {
namespace {

using test::randn;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TensorView view(std::vector<float>& values, std::initializer_list<int64_t> shape) { return {values.data(), Dtype::kF32, shape}; }
ConstTensorView view(const std::vector<float>& values, std::initializer_list<int64_t> shape) { return {values.data(), Dtype::kF32, shape}; }

std::unique_ptr<PackedWeight> pack(Backend& backend, const std::vector<float>& w, int64_t n, int64_t k,
                                   std::optional<Dtype> convert_to = {}) {
  const ConstTensorView tensor = view(w, {n, k});
  return backend.pack({&tensor, 1}, WeightRole::kBoth, convert_to);
}

TEST(Reference, ProductIsTheSumOfRowTimesColumn) {
  const auto backend = make_reference_backend();
  const std::vector<float> x{1, 2, 3, 4, 5, 6}, w{1, 0, -1, 0.5f, 0.5f, 0.5f};
  std::vector<float> out(4, kNan);
  const auto weight = pack(*backend, w, 2, 3);
  EXPECT_EQ(weight->rows(), 2);
  EXPECT_EQ(weight->cols(), 3);
  backend->matmul(view(out, {2, 2}), view(x, {2, 3}), *weight);
  EXPECT_EQ(out, (std::vector<float>{-2, 3, -2, 7.5f}));
}

TEST(Reference, ConvertedWeightsAreRoundedOnce) {
  const auto backend = make_reference_backend();
  const std::vector<float> w{1.0f + 0x1p-9f}, x{1};
  std::vector<float> out(1);
  backend->matmul(view(out, {1, 1}), view(x, {1, 1}), *pack(*backend, w, 1, 1, Dtype::kBF16));
  EXPECT_EQ(out[0], 1.0f);
  backend->matmul(view(out, {1, 1}), view(x, {1, 1}), *pack(*backend, w, 1, 1, Dtype::kF16));
  EXPECT_EQ(out[0], 1.0f + 0x1p-9f);
  EXPECT_THROW(pack(*backend, w, 1, 1, Dtype::kQ4_0), Error);
}

TEST(Reference, PackRefusesWhatItCannotStack) {
  const auto backend = make_reference_backend();
  const std::vector<float> a(6), b(4);
  const ConstTensorView differing[] = {view(a, {2, 3}), view(b, {2, 2})}, flat[] = {view(a, {6})};
  const int32_t ids[] = {1};
  const ConstTensorView integers[] = {{ids, Dtype::kI32, {1, 1}}};
  EXPECT_THROW(backend->pack(differing, WeightRole::kProduct), Error);
  EXPECT_THROW(backend->pack(flat, WeightRole::kProduct), Error);
  EXPECT_THROW(backend->pack(integers, WeightRole::kProduct), Error);
  EXPECT_THROW(backend->pack({}, WeightRole::kProduct), Error);
}

TEST(Reference, EmbedsScaledRowsAndRefusesUnknownIds) {
  const auto backend = make_reference_backend();
  const std::vector<float> table{1, 2, 3, 4, 5, 6};
  const auto weight = pack(*backend, table, 3, 2);
  std::vector<TokenId> tokens{2, 0};
  const std::vector<int32_t> positions{0, 1};
  const SequenceSlice sequence{0, 2, 0, nullptr};
  std::vector<float> out(4);
  backend->begin_step({tokens, positions, {&sequence, 1}});
  backend->embed(view(out, {2, 2}), *weight, 2.0f);
  EXPECT_EQ(out, (std::vector<float>{10, 12, 2, 4}));
  for (TokenId bad : {-1, 3}) {
    tokens[1] = bad;
    EXPECT_THROW(backend->embed(view(out, {2, 2}), *weight, 2.0f), Error) << bad;
  }
}

TEST(Reference, NormDividesByTheRootMeanSquare) {
  const auto backend = make_reference_backend();
  std::vector<float> x{3, 4};
  const std::vector<float> weight{2, 1};
  backend->rms_norm(view(x, {1, 2}), view(x, {1, 2}), view(weight, {2}), 0.0f);
  EXPECT_FLOAT_EQ(x[0], 6 / std::sqrt(12.5f));
  EXPECT_FLOAT_EQ(x[1], 4 / std::sqrt(12.5f));
}

TEST(Reference, ActivationsFollowTheirFormulas) {
  const auto backend = make_reference_backend();
  const std::vector<float> gate_up{1, -2, 10, 3};
  std::vector<float> out(2);
  backend->gated_activation(view(out, {1, 2}), view(gate_up, {1, 4}), Activation::kSilu);
  EXPECT_FLOAT_EQ(out[0], 10 * 0.731058579f);
  EXPECT_FLOAT_EQ(out[1], 3 * -0.238405844f);
  backend->gated_activation(view(out, {1, 2}), view(gate_up, {1, 4}), Activation::kGeluTanh);
  EXPECT_FLOAT_EQ(out[0], 10 * 0.841191991f);
  EXPECT_FLOAT_EQ(out[1], 3 * -0.0454023f);
}

TEST(Reference, RotationKeepsTheAngleBetweenPositionsOnly) {
  // q at position 7 and k at 4 have the product of q at 3 and k at 0, in both layouts.
  const auto backend = make_reference_backend();
  constexpr int64_t kDim = 8;
  for (const RopeLayout layout : {RopeLayout::kHalves, RopeLayout::kInterleaved}) {
    std::vector<float> products;
    for (const int32_t start : {0, 4}) {
      const auto storage = backend->make_kv_storage(
          {.n_layers = 1, .n_kv_heads = 1, .head_dim = kDim, .page_tokens = 16, .max_pages = 1, .dtype = Dtype::kF32});
      storage->commit(1);
      const std::vector<TokenId> tokens{0, 0};
      const std::vector<int32_t> positions{start, start + 3};
      const int32_t page = 0;
      const SequenceSlice sequence{0, 2, 0, &page};
      backend->begin_step({tokens, positions, {&sequence, 1}});
      const std::vector<float> frequencies{1.0f, 0.3f, 0.1f};  // The last two elements stay as they are.
      std::vector<float> angles(12), q(2 * kDim), k(kDim), v(kDim);
      backend->rope_angles(view(angles, {2, 6}), frequencies);
      std::vector<float> qkv = randn(3, 3 * kDim);
      const std::vector<float> first = qkv;
      qkv.insert(qkv.end(), first.begin(), first.end());
      AttentionInput input;
      input.n_heads = input.n_kv_heads = 1;
      input.head_dim = kDim;
      input.rope_layout = layout;
      input.rope_dim = 6;
      backend->rotate_and_append(view(q, {2, 1, kDim}), view(qkv, {2, 3 * kDim}), input, view(angles, {2, 6}), *storage, 0);
      storage->read(0, 0, 0, view(k, {1, 1, kDim}), view(v, {1, 1, kDim}));
      float product = 0;
      for (size_t d = 0; d < kDim; ++d) product += q[kDim + d] * k[d];
      products.push_back(product);
      for (size_t d = 0; d < kDim; ++d) EXPECT_EQ(v[d], first[2 * kDim + d]);
      EXPECT_EQ(q[kDim + 6], first[6]);
      EXPECT_EQ(q[kDim + 7], first[7]);
    }
    EXPECT_NEAR(products[0], products[1], 2e-5);
    EXPECT_GT(std::abs(products[0]), 0.01);
  }
}

/// Attention of one head over S keys of width 1, where everything can be worked out by hand.
struct TinyAttention {
  std::vector<float> q, k, v;
  AttentionParams params{.n_heads = 1, .n_kv_heads = 1, .head_dim = 1, .scale = 1.0f};
  std::vector<float> out{}, lse{};

  void run() {
    const auto backend = make_reference_backend();
    const int64_t n_rows = static_cast<int64_t>(q.size()), n_keys = static_cast<int64_t>(k.size());
    out.assign(q.size(), kNan);
    lse.assign(q.size(), kNan);
    backend->dense_attention(view(out, {1, n_rows, 1, 1}), view(std::as_const(q), {1, n_rows, 1, 1}),
                             view(std::as_const(k), {1, n_keys, 1, 1}), view(std::as_const(v), {1, n_keys, 1, 1}), params,
                             view(lse, {1, n_rows, 1}));
  }
};

TEST(ReferenceAttention, EqualScoresGiveTheMeanOfWhatARowSees) {
  TinyAttention a{.q = {0, 0}, .k = {5, -3, 2}, .v = {1, 2, 6}};
  a.run();
  EXPECT_FLOAT_EQ(a.out[0], 1.5f);  // Bottom-right aligned: row 0 of 2 stands at key 1 of 3.
  EXPECT_FLOAT_EQ(a.out[1], 3.0f);
  EXPECT_FLOAT_EQ(a.lse[1], std::log(3.0f));
  a.params.causal = false;
  a.run();
  EXPECT_FLOAT_EQ(a.out[0], 3.0f);
  a.params.causal = true;
  a.params.window = 1;
  a.run();
  EXPECT_EQ(a.out, (std::vector<float>{2, 6}));
}

TEST(ReferenceAttention, ScoresAreScaledCappedAndBiased) {
  TinyAttention a{.q = {2}, .k = {3, 1}, .v = {1, 0}};
  a.params.scale = 0.5f;
  a.params.softcap = 4.0f;
  const std::vector<float> slopes{0.25f};
  a.params.alibi_slopes = slopes;
  a.run();
  const double first = 4 * std::tanh(3.0 / 4) - 0.25, second = 4 * std::tanh(1.0 / 4);
  EXPECT_NEAR(a.out[0], std::exp(first) / (std::exp(first) + std::exp(second)), 1e-7);
  EXPECT_NEAR(a.lse[0], std::log(std::exp(first) + std::exp(second)), 1e-6);
}

TEST(ReferenceAttention, SinkTakesWeightWithoutAValue) {
  TinyAttention a{.q = {1}, .k = {0, 0}, .v = {3, 3}};
  const std::vector<float> sinks{0.0f};
  a.params.sinks = sinks;
  a.run();
  EXPECT_FLOAT_EQ(a.out[0], 2.0f);
  EXPECT_FLOAT_EQ(a.lse[0], std::log(3.0f));
}

TEST(ReferenceAttention, RowThatSeesNothingGivesZeros) {
  TinyAttention a{.q = {1, 1, 1}, .k = {1}, .v = {7}};
  a.run();  // Rows 0 and 1 of 3 stand before the only key.
  EXPECT_EQ(a.out, (std::vector<float>{0, 0, 7}));
  EXPECT_EQ(a.lse[0], -std::numeric_limits<float>::infinity());
  const std::vector<float> sinks{2.5f};
  a.params.sinks = sinks;
  a.run();
  EXPECT_EQ(a.out[0], 0.0f);
  EXPECT_EQ(a.lse[0], 2.5f);
}

TEST(ReferenceAttention, LargeScoresDoNotOverflowAndNanIsNotHidden) {
  TinyAttention a{.q = {1e4f}, .k = {1e4f, -1e4f}, .v = {2, 5}};
  a.run();
  EXPECT_EQ(a.out[0], 2.0f);
  EXPECT_FLOAT_EQ(a.lse[0], 1e8f);
  a.k[0] = a.k[1] = kNan;
  a.run();
  EXPECT_TRUE(std::isnan(a.out[0]));
}

TEST(Reference, CountsItsMemory) {
  const auto backend = make_reference_backend();
  {
    const Buffer one = backend->allocate(1000);
    { const Buffer two = backend->allocate(500); }
    EXPECT_EQ(reinterpret_cast<uintptr_t>(one.data()) % 64, 0u);
    EXPECT_EQ(backend->memory().current, 1000);
    EXPECT_EQ(backend->memory().peak, 1500);
    backend->reset_peak_memory();
    EXPECT_EQ(backend->memory().peak, 1000);
  }
  EXPECT_EQ(backend->memory().current, 0);
  EXPECT_THROW(backend->allocate(size_t{1} << 60), Error);
  EXPECT_THROW(backend->allocate(~size_t{0}), Error);
}

TEST(Reference, StorageRefusesShapesItCannotHold) {
  const auto backend = make_reference_backend();
  const KvShape good{.n_layers = 1, .n_kv_heads = 1, .head_dim = 4, .page_tokens = 16, .max_pages = 2, .dtype = Dtype::kF16};
  for (int64_t page_tokens : {0, 8, 24, 2048}) {
    KvShape bad = good;
    bad.page_tokens = page_tokens;
    EXPECT_THROW(backend->make_kv_storage(bad), Error) << page_tokens;
  }
  KvShape bad = good;
  bad.dtype = Dtype::kQ8_0;
  EXPECT_THROW(backend->make_kv_storage(bad), Error);
  bad = good;
  bad.head_dim = 0;
  EXPECT_THROW(backend->make_kv_storage(bad), Error);
  EXPECT_EQ(backend->make_kv_storage(good)->bytes(), 0);
}

TEST(Reference, MeasuresItsPeaks) {
  const MachinePeaks peaks = make_reference_backend()->measure_peaks();
  EXPECT_GT(peaks.read_gb_s, 0);
  EXPECT_GT(peaks.float_gflop_s, 0);
}

}  // namespace
}  // namespace minillm
