// products_test.cpp - products with weights of every type, stacked weights, and row lookups, on every backend.
#include <cstring>

#include "conformance/rig.h"

namespace minillm {
namespace {

using namespace test;

struct Size {
  int64_t t, n, k;
};

/// What an output may be wrong by. Quantised weights meet activations rounded to int8 in units of 32 with the step
/// max |x| / 127: independent errors of variance step^2 / 12 each, 8 standard deviations. On top of it float32 sums: of K / 32
/// units of code sums (their terms are as large as the row's largest weight), or of K terms for float weights.
std::vector<double> tolerances(const HostWeight& w, const std::vector<float>& x, int64_t n_tokens, bool quantised, bool bf16) {
  std::vector<double> result;
  std::vector<std::vector<float>> rows;
  for (int64_t n = 0; n < w.n; ++n) rows.push_back(w.row(n));
  for (int64_t t = 0; t < n_tokens; ++t)
    for (const std::vector<float>& row : rows) {
      double variance = 0, magnitude = 0, largest = 0, absolute = 0;
      for (int64_t unit = 0; unit < w.k; unit += 32) {
        double most = 0, squares = 0;
        for (int64_t k = unit; k < std::min(w.k, unit + 32); ++k) {
          const double a = std::abs(static_cast<double>(x[static_cast<size_t>(t * w.k + k)])),
                       b = std::abs(static_cast<double>(row[static_cast<size_t>(k)]));
          most = std::max(most, a);
          largest = std::max(largest, b);
          squares += b * b;
          absolute += a;
          magnitude += a * b;
        }
        variance += squares * (most / 127) * (most / 127) / 12;
      }
      const double units = static_cast<double>(ceil_div(w.k, 32)), k = static_cast<double>(w.k);
      if (quantised)
        result.push_back(8 * std::sqrt(variance) + 0x1p-24 * (8 + units) * absolute * largest);
      else
        result.push_back(0x1p-24 * (2 + std::sqrt(k)) * magnitude + (bf16 ? 0x1p-8 * magnitude : 0) + 1e-30);
    }
  return result;
}

class Products : public OnTarget {
 protected:
  void expect_product(const HostWeight& w, int64_t n_tokens, uint64_t seed, std::optional<Dtype> convert_to = {}) {
    const std::vector<float> x = randn(seed, n_tokens * w.k);
    const auto packed = w.pack(*backend_, WeightRole::kProduct, convert_to), plain = w.pack(*oracle_, WeightRole::kProduct, convert_to);
    EXPECT_EQ(packed->rows(), w.n);
    EXPECT_EQ(packed->cols(), w.k);
    EXPECT_GE(packed->bytes(), static_cast<int64_t>(w.bytes.size()) / 2);
    const Array got(*backend_, {n_tokens, w.n}), want(*oracle_, {n_tokens, w.n});
    backend_->matmul(got, Array(*backend_, {n_tokens, w.k}, x), *packed);
    oracle_->matmul(want, Array(*oracle_, {n_tokens, w.k}, x), *plain);
    const std::vector<double> tolerance = tolerances(w, x, n_tokens, is_quantised(w.dtype) && !convert_to, GetParam().bf16_products != 0);
    expect_close(
        got, want, [&](int64_t i) { return tolerance[static_cast<size_t>(i)]; },
        std::string(name_of(w.dtype)) + " T=" + std::to_string(n_tokens) + " N=" + std::to_string(w.n) + " K=" + std::to_string(w.k));
  }
};

TEST_P(Products, MatchTheOracleForEveryTypeAndAwkwardSizes) {
  const Size sizes[] = {{1, 1, 1},   {0, 17, 1},  {1, 16, 2},  {2, 17, 1},  {3, 15, 3},  {5, 48, 2}, {7, 33, 1},
                        {8, 100, 5}, {17, 31, 2}, {33, 65, 1}, {1, 130, 9}, {64, 16, 1}, {96, 33, 2}};
  for (const Dtype dtype : kWeightTypes)
    for (const Size& size : sizes) {
      // K in blocks; float weights take odd widths.
      const int64_t k = is_quantised(dtype) ? size.k * block_elements(dtype) : size.k * 37 - 4;
      expect_product(HostWeight(1 + static_cast<uint64_t>(size.n), dtype, size.n, k), size.t, 2);
    }
}

TEST_P(Products, MatchTheOracleForLongRows) {
  for (const Dtype dtype : kWeightTypes)
    for (const int64_t n_tokens : {1, 3, 8, 9}) expect_product(HostWeight(3, dtype, 19, 17 * 256), n_tokens, 4);
}

TEST_P(Products, MatchTheOracleAfterConversion) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kQ4_1, Dtype::kQ6_K})
    for (const Dtype to : {Dtype::kF32, Dtype::kF16, Dtype::kBF16})
      for (const int64_t n_tokens : {1, 6}) expect_product(HostWeight(5, dtype, 21, 512), n_tokens, 6, to);
}

TEST_P(Products, RowsDoNotDependOnTheRowsBesideThem) {
  const int64_t most = GetParam().same_bits_up_to, n_tokens = most == 0 ? 35 : std::min<int64_t>(35, most);
  for (const Dtype dtype : kWeightTypes) {
    const HostWeight w(7, dtype, 50, 768);
    const std::vector<float> x = randn(8, n_tokens * w.k);
    const auto packed = w.pack(*backend_);
    const Array all(*backend_, {n_tokens, w.n});
    backend_->matmul(all, Array(*backend_, {n_tokens, w.k}, x), *packed);
    const std::vector<float> want = all.host();
    for (const int64_t chunk : {1, 2, 3, 8, 16}) {
      std::vector<float> got;
      for (int64_t t = 0; t < n_tokens; t += chunk) {
        const int64_t n = std::min(chunk, n_tokens - t);
        const Array part(*backend_, {n, w.n});
        backend_->matmul(part, Array(*backend_, {n, w.k}, {x.begin() + t * w.k, x.begin() + (t + n) * w.k}), *packed);
        const std::vector<float> values = part.host();
        got.insert(got.end(), values.begin(), values.end());
      }
      expect_same_bits(got, want, std::string(name_of(dtype)) + " in chunks of " + std::to_string(chunk));
    }
    for (const int n_threads : {1, 3}) {
      const auto other = make_target(GetParam(), n_threads);
      const Array again(*other, {n_tokens, w.n});
      other->matmul(again, Array(*other, {n_tokens, w.k}, x), *w.pack(*other));
      expect_same_bits(again.host(), want, std::string(name_of(dtype)) + " with " + std::to_string(n_threads) + " threads");
    }
  }
}

TEST_P(Products, StackedTensorsOfMixedTypesAreOneWeight) {
  const std::vector<HostWeight> parts = {{11, Dtype::kQ5_0, 33, 768}, {12, Dtype::kQ8_0, 16, 768}, {13, Dtype::kQ6_K, 7, 768},
                                         {14, Dtype::kF16, 9, 768},   {15, Dtype::kQ4_K, 1, 768},  {16, Dtype::kF32, 20, 768}};
  std::vector<ConstTensorView> views;
  int64_t n_rows = 0;
  for (const HostWeight& part : parts) views.push_back(part.view()), n_rows += part.n;
  const auto stacked = backend_->pack(views, WeightRole::kProduct);
  ASSERT_EQ(stacked->rows(), n_rows);
  for (const int64_t n_tokens : {1, 4, 21}) {
    const std::vector<float> x = randn(17, n_tokens * 768);
    const Array got(*backend_, {n_tokens, n_rows});
    backend_->matmul(got, Array(*backend_, {n_tokens, 768}, x), *stacked);
    const std::vector<float> all = got.host();
    int64_t first = 0;
    for (const HostWeight& part : parts) {
      const Array want(*oracle_, {n_tokens, part.n});
      oracle_->matmul(want, Array(*oracle_, {n_tokens, 768}, x), *part.pack(*oracle_));
      std::vector<float> cut;
      for (int64_t t = 0; t < n_tokens; ++t)
        cut.insert(cut.end(), all.begin() + t * n_rows + first, all.begin() + t * n_rows + first + part.n);
      const std::vector<double> tolerance = tolerances(part, x, n_tokens, is_quantised(part.dtype), GetParam().bf16_products != 0);
      expect_close(
          Array(*oracle_, {n_tokens, part.n}, cut), want, [&](int64_t i) { return tolerance[static_cast<size_t>(i)]; },
          "rows from " + std::to_string(first) + " in " + std::string(name_of(part.dtype)));
      first += part.n;
    }
  }
}

TEST_P(Products, ActivationsOfOneUnitDoNotDisturbAnother) {
  // One huge activation coarsens its own unit of 32 alone.
  const HostWeight w(21, Dtype::kQ8_0, 20, 96);
  std::vector<float> x = randn(22, 96);
  x[40] = 3e4f;
  const Array got(*backend_, {1, w.n}), want(*oracle_, {1, w.n});
  backend_->matmul(got, Array(*backend_, {1, w.k}, x), *w.pack(*backend_));
  oracle_->matmul(want, Array(*oracle_, {1, w.k}, x), *w.pack(*oracle_));
  const std::vector<double> tolerance = tolerances(w, x, 1, true, false);
  expect_close(
      got, want, [&](int64_t i) { return tolerance[static_cast<size_t>(i)]; }, "huge activation");
}

TEST_P(Products, ZeroActivationsGiveZeros) {
  for (const Dtype dtype : kWeightTypes) {
    const HostWeight w(23, dtype, 18, 256);
    const Array got(*backend_, {2, w.n});
    backend_->matmul(got, Array(*backend_, {2, w.k}, std::vector<float>(2 * 256)), *w.pack(*backend_));
    for (float y : got.host()) ASSERT_EQ(y, 0.0f) << name_of(dtype);
  }
}

TEST_P(Products, LookupsAreTheDequantisedRows) {
  for (const Dtype dtype : kWeightTypes)
    for (const WeightRole role : {WeightRole::kLookup, WeightRole::kBoth}) {
      const HostWeight w(31, dtype, 37, 512);
      Step step({{0, 5}}, 16);
      step.tokens = {36, 0, 17, 17, 35};
      const auto packed = w.pack(*backend_, role);
      for (const float scale : {1.0f, 22.627417f}) {
        const Array got(*backend_, {5, w.k});
        backend_->begin_step(step.batch());
        backend_->embed(got, *packed, scale);
        std::vector<float> want;
        for (TokenId token : step.tokens)
          for (float x : w.row(token)) want.push_back(x * scale);
        expect_close(
            got, Array(*oracle_, {5, w.k}, want), [&](int64_t i) { return 0x1p-23 * std::abs(want[static_cast<size_t>(i)]); },
            std::string(name_of(dtype)) + (role == WeightRole::kBoth ? " tied" : " lookup"));
      }
      step.tokens[3] = 37;
      const Array out(*backend_, {5, w.k});
      backend_->begin_step(step.batch());
      EXPECT_THROW(backend_->embed(out, *packed, 1.0f), Error) << name_of(dtype);
    }
}

TEST_P(Products, TiedWeightsMultiplyLikeUntiedOnes) {
  for (const Dtype dtype : kWeightTypes) {
    const HostWeight w(41, dtype, 45, 512);
    const std::vector<float> x = randn(42, 3 * w.k);
    const Array tied(*backend_, {3, w.n}), plain(*backend_, {3, w.n});
    backend_->matmul(tied, Array(*backend_, {3, w.k}, x), *w.pack(*backend_, WeightRole::kBoth));
    backend_->matmul(plain, Array(*backend_, {3, w.k}, x), *w.pack(*backend_, WeightRole::kProduct));
    const std::vector<double> tolerance = tolerances(w, x, 3, is_quantised(dtype), GetParam().bf16_products != 0);
    // Not bitwise: a head may get a second int8 term that other products do without.
    expect_close(
        tied, plain, [&](int64_t i) { return 2 * tolerance[static_cast<size_t>(i)]; }, std::string(name_of(dtype)));
  }
}

TEST_P(Products, PackRefusesWhatItCannotHold) {
  const HostWeight a(51, Dtype::kF32, 4, 64), b(52, Dtype::kF32, 4, 32);
  const ConstTensorView differing[] = {a.view(), b.view()};
  EXPECT_THROW(backend_->pack(differing, WeightRole::kProduct), Error);
  const std::vector<int32_t> ids(64);
  const ConstTensorView integers[] = {{ids.data(), Dtype::kI32, {2, 32}}};
  EXPECT_THROW(backend_->pack(integers, WeightRole::kProduct), Error);
  EXPECT_THROW(a.pack(*backend_, WeightRole::kProduct, Dtype::kQ4_0), Error);
}

MINILLM_ON_EVERY_TARGET(Products);

}  // namespace
}  // namespace minillm
