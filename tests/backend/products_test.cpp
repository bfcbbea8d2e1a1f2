#include "backend/cpu/products.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "base/dequantise.h"
#include "base/dtype.h"
#include "support/quantised.h"

namespace minillm::cpu {
namespace {

std::vector<Isa> usable_isas() {
  std::vector<Isa> isas;
  for (Isa isa : all_isas())
    if (is_supported(isa)) isas.push_back(isa);
  return isas;
}

std::string isa_name(const ::testing::TestParamInfo<Isa>& info) { return std::string(name_of(info.param)); }

/// Two threads, one instruction set, and the parts a product needs.
struct Machine {
  explicit Machine(Isa isa, int n_threads = 2)
      : pool(n_threads), products(pool, kernels_of(isa), [this](size_t bytes) { return memory.allocate(bytes); }) {}

  std::unique_ptr<CpuWeight> pack(std::span<const ConstTensorView> tensors, WeightRole role = WeightRole::kProduct,
                                  std::optional<Dtype> convert_to = {}) {
    return pack_weight(tensors, role, convert_to, pool, [this](size_t bytes) { return memory.allocate(bytes); });
  }
  std::vector<float> multiply(const std::vector<float>& x, int64_t n_rows, const CpuWeight& w) {
    // Guard values on both sides: a store outside the output is seen.
    std::vector<float> out(static_cast<size_t>(n_rows * w.rows()) + 32, 12345.0f);
    products.matmul({out.data() + 16, Dtype::kF32, {n_rows, w.rows()}}, {x.data(), Dtype::kF32, {n_rows, w.cols()}}, w);
    for (size_t i = 0; i < 16; ++i) EXPECT_TRUE(out[i] == 12345.0f && out[out.size() - 1 - i] == 12345.0f) << "guard " << i;
    return {out.begin() + 16, out.end() - 16};
  }

  CountedMemory memory;
  ThreadPool pool;
  Products products;
};

std::vector<float> dequantised(Dtype dtype, const std::vector<uint8_t>& rows, int64_t n_rows, int64_t k) {
  std::vector<float> values(static_cast<size_t>(n_rows * k));
  for (int64_t row = 0; row < n_rows; ++row)
    dequantise_row(dtype, rows.data() + static_cast<size_t>(row) * row_bytes(dtype, k), values.data() + row * k, k);
  return values;
}

/// Activations as the kernels see them, in double: 15 bits with a scale every 32 values of a row of `k`, 8 bits where the unit's
/// largest value is at most kFineAbove times the root of the mean square of those of its row.
std::vector<double> rounded_activations(const std::vector<float>& x, int64_t k) {
  std::vector<double> rounded(x.size());
  const auto width = static_cast<size_t>(k);
  for (size_t row = 0; row < x.size(); row += width) {
    std::vector<float> largest;
    double energy = 0;
    for (size_t unit = row; unit < row + width; unit += 32) {
      largest.push_back(0);
      for (size_t i = unit; i < unit + 32; ++i) largest.back() = std::max(largest.back(), std::fabs(x[i]));
      energy += static_cast<double>(largest.back()) * static_cast<double>(largest.back());
    }
    for (size_t i = row; i < row + width; ++i) {
      const float amax = largest[(i - row) / 32], inverse = amax == 0 ? 0 : 127.0f / amax;
      const bool fine = static_cast<double>(amax) > kFineAbove * std::sqrt(energy / static_cast<double>(largest.size()));
      const float steps = x[i] * inverse, code = std::nearbyintf(steps);
      const float low = fine ? std::nearbyintf((steps - code) * 128.0f) : 0.0f;
      rounded[i] = (static_cast<double>(code) + static_cast<double>(low) / 128.0) * static_cast<double>(amax / 127.0f);
    }
  }
  return rounded;
}

struct Expected {
  double value = 0, size = 0;  ///< The sum, and the sum of absolute values.
};
Expected dot_in_double(const double* x, const float* w, int64_t k) {
  Expected sum;
  for (int64_t i = 0; i < k; ++i) {
    const double term = x[i] * static_cast<double>(w[i]);
    sum.value += term;
    sum.size += std::fabs(term);
  }
  return sum;
}

class ProductsOn : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Isas, ProductsOn, ::testing::ValuesIn(usable_isas()), isa_name);

TEST_P(ProductsOn, QuantisedWeightsMatchDoubleOnTheSameIntegers) {
  Machine machine(GetParam());
  const bool scalar = GetParam() == Isa::kScalar;
  for (Dtype dtype : test::kBlockFormats)
    for (int64_t n_rows : {1, 3, 13}) {
      const int64_t n = scalar ? 37 : 133, k = 256 * (dtype == Dtype::kQ6_K ? 9 : 3);  // 9 * 256: more than one chunk of k.
      const auto rows = test::random_rows(dtype, 1, n, k);
      const auto x = test::randn(2, n_rows * k);
      const ConstTensorView view(rows.data(), dtype, {n, k});
      const auto got = machine.multiply(x, n_rows, *machine.pack({&view, 1}));
      const auto w = dequantised(dtype, rows, n, k);
      const auto rounded = rounded_activations(x, k);
      for (int64_t t = 0; t < n_rows; ++t)
        for (int64_t i = 0; i < n; ++i) {
          // Integer parts are exact. Each of K/32 (at most K/16) float steps rounds a partial sum of at most `size`
          // (offsets: twice that, code and offset parts may cancel), and each scale product rounds once.
          const Expected want = dot_in_double(rounded.data() + t * k, w.data() + i * k, k);
          const double tolerance = 4 * (2.0 + std::sqrt(static_cast<double>(k) / 16)) * 0x1p-24 * (want.size + 1.0);
          ASSERT_NEAR(got[static_cast<size_t>(t * n + i)], want.value, tolerance)
              << name_of(dtype) << " T=" << n_rows << " t=" << t << " n=" << i;
        }
    }
}

TEST_P(ProductsOn, FloatWeightsMatchDouble) {
  Machine machine(GetParam());
  for (Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16})
    for (int64_t n_rows : {1, 2, 15}) {
      const int64_t n = 69, k = 523;  // Odd on purpose; more than one chunk of k.
      const auto rows = test::random_rows(dtype, 3, n, k);
      const auto x = test::randn(4, n_rows * k);
      const ConstTensorView view(rows.data(), dtype, {n, k});
      const auto got = machine.multiply(x, n_rows, *machine.pack({&view, 1}));
      const auto w = dequantised(dtype, rows, n, k);
      const std::vector<double> wide(x.begin(), x.end());
      for (int64_t t = 0; t < n_rows; ++t)
        for (int64_t i = 0; i < n; ++i) {
          const Expected want = dot_in_double(wide.data() + t * k, w.data() + i * k, k);
          const double tolerance = 4 * std::sqrt(static_cast<double>(k)) * 0x1p-24 * want.size;  // One chain of K roundings.
          ASSERT_NEAR(got[static_cast<size_t>(t * n + i)], want.value, tolerance) << name_of(dtype) << " t=" << t << " n=" << i;
        }
    }
}

TEST_P(ProductsOn, ARowOfABatchIsBitwiseTheRowAlone) {
  const bool scalar = GetParam() == Isa::kScalar;
  Machine machine(GetParam()), one_thread(GetParam(), 1), three(GetParam(), 3);
  const int64_t n = scalar ? 20 : 150, max_rows = scalar ? 17 : 512;
  std::vector<Dtype> dtypes(std::begin(test::kBlockFormats), std::end(test::kBlockFormats));
  dtypes.insert(dtypes.end(), {Dtype::kF32, Dtype::kF16, Dtype::kBF16});
  for (Dtype dtype : dtypes) {
    const int64_t k = dtype == Dtype::kQ4_K || scalar ? 2304 : 768;
    const auto rows = test::random_rows(dtype, 5, n, k);
    auto x = test::randn(6, max_rows * k);
    for (int64_t i = 0; i < max_rows * k; ++i)  // Fine units, not the same in all rows.
      if ((i / k / 3 + i % k / 32) % 12 == 0) x[static_cast<size_t>(i)] *= 20;
    const ConstTensorView view(rows.data(), dtype, {n, k});
    const auto w = machine.pack({&view, 1});
    std::vector<float> alone;
    for (int64_t t = 0; t < max_rows; ++t) {
      const auto row = machine.multiply({x.begin() + t * k, x.begin() + (t + 1) * k}, 1, *w);
      alone.insert(alone.end(), row.begin(), row.end());
    }
    for (int64_t n_rows : {1, 2, 3, 5, 16, 17, 23, 64, 512}) {
      if (n_rows > max_rows) break;
      if (machine.products.tiles().take(*w, n_rows)) continue;  // Equal to rounding: tile_products_test.cpp.
      const std::vector<float> batch(x.begin(), x.begin() + n_rows * k);
      for (Machine* m : {&machine, &one_thread, &three}) {
        const auto got = m->multiply(batch, n_rows, *w);
        ASSERT_EQ(std::memcmp(got.data(), alone.data(), got.size() * sizeof(float)), 0)
            << name_of(dtype) << " T=" << n_rows << " threads=" << m->pool.n_threads();
      }
    }
  }
}

TEST_P(ProductsOn, StackedTensorsOfMixedTypesEqualTheirParts) {
  Machine machine(GetParam());
  const int64_t k = 512;
  const struct {
    Dtype dtype;
    int64_t n;
  } parts[] = {{Dtype::kQ5_0, 40}, {Dtype::kQ5_0, 16}, {Dtype::kQ8_0, 23}, {Dtype::kF32, 9}, {Dtype::kQ6_K, 17}};
  std::vector<std::vector<uint8_t>> bytes;
  std::vector<ConstTensorView> views;
  for (const auto& part : parts) bytes.push_back(test::random_rows(part.dtype, bytes.size(), part.n, k));
  for (size_t i = 0; i < bytes.size(); ++i)
    views.emplace_back(bytes[i].data(), parts[i].dtype, std::initializer_list<int64_t>{parts[i].n, k});
  const auto stacked = machine.pack(views);
  EXPECT_EQ(stacked->rows(), 105);
  for (int64_t n_rows : {1, 7}) {
    const auto x = test::randn(7, n_rows * k);
    const auto all = machine.multiply(x, n_rows, *stacked);
    int64_t first = 0;
    for (size_t i = 0; i < views.size(); ++i) {
      const auto part = machine.multiply(x, n_rows, *machine.pack({&views[i], 1}));
      for (int64_t t = 0; t < n_rows; ++t)
        for (int64_t j = 0; j < parts[i].n; ++j)
          ASSERT_EQ(all[static_cast<size_t>(t * stacked->rows() + first + j)], part[static_cast<size_t>(t * parts[i].n + j)])
              << i << " " << j;
      first += parts[i].n;
    }
  }
}

// Long enough for two groups of rows (row_groups.h), short enough for one, and a single row. What is done beside gives no other bits.
TEST_P(ProductsOn, WorkBesideAProductSeesEachRowOnceAndEachFinalBlockOnce) {
  Machine machine(GetParam());
  const int64_t k = 64, half = 70;  // Five panels each, the last of six rows.
  for (Dtype dtype : {Dtype::kQ4_1, Dtype::kF32})
    for (bool pairs : {false, true}) {
      const auto gate = test::random_rows(dtype, 21, half, k), up = test::random_rows(dtype, 22, half, k);
      const ConstTensorView views[] = {{gate.data(), dtype, {half, k}}, {up.data(), dtype, {half, k}}};
      const auto w = machine.pack(views);
      ASSERT_TRUE(is_pair(*w));
      for (int64_t n_rows : {1, 3, 40, 300}) {
        const auto x = test::randn(23, n_rows * k);
        const auto want = machine.multiply(x, n_rows, *w);
        std::vector<float> late(x.size(), std::nanf("")), out(want.size(), std::nanf(""));
        std::vector<int> rows(static_cast<size_t>(n_rows), 0), times(want.size(), 0);
        const auto before = [&](int64_t row, float* to) {
          ++rows[static_cast<size_t>(row)];
          std::copy_n(x.begin() + row * k, k, to != nullptr ? to : late.data() + row * k);
        };
        const auto after = [&](const OutputBlock& b) {
          for (int64_t part = 0; part < (pairs ? 2 : 1); ++part)
            for (int64_t row = b.row; row < b.row + b.n_rows; ++row)
              for (int64_t column = b.column + part * half; column < b.column + part * half + b.n_columns; ++column) {
                const auto at = static_cast<size_t>(row * 2 * half + column);
                ++times[at];
                EXPECT_EQ(std::memcmp(&out[at], &want[at], sizeof(float)), 0) << "not final";
              }
        };
        machine.products.matmul({out.data(), Dtype::kF32, {n_rows, 2 * half}}, {late.data(), Dtype::kF32, {n_rows, k}}, *w,
                                {.before = before, .after = after, .pairs = pairs});
        EXPECT_EQ(rows, std::vector<int>(static_cast<size_t>(n_rows), 1));
        EXPECT_EQ(times, std::vector<int>(want.size(), 1)) << n_rows << " rows";
      }
    }
}

// Crafted blocks: the smallest and largest codes with activations that are all at the end of their range.
TEST_P(ProductsOn, ExtremeCodesAreExact) {
  Machine machine(GetParam());
  const int64_t k = 256, n = 17;
  for (Dtype dtype : test::kBlockFormats)
    for (int fill : {0x00, 0x80, 0x7F, 0xFF}) {
      auto rows = test::random_rows(dtype, 8, n, k);
      const size_t block = block_bytes(dtype);
      const bool has_m = block == 20 || block == 24 || block == 144 || block == 176;
      for (size_t at = 0; at < rows.size(); ++at) {
        const size_t in_block = at % block;
        const bool is_float = dtype == Dtype::kQ6_K ? in_block >= 208 : in_block < (has_m ? 4u : 2u);
        if (!is_float) rows[at] = static_cast<uint8_t>(fill);
      }
      const ConstTensorView view(rows.data(), dtype, {n, k});
      const auto packed = machine.pack({&view, 1});
      const auto w = dequantised(dtype, rows, n, k);
      for (float value : {1.0f, -1.0f, 1e20f, -1e-20f}) {
        const std::vector<float> x(static_cast<size_t>(2 * k), value);
        for (int64_t n_rows : {1, 2}) {
          const auto got = machine.multiply(x, n_rows, *packed);
          const std::vector<double> wide(x.begin(), x.end());
          for (int64_t i = 0; i < n; ++i) {
            const Expected want = dot_in_double(wide.data(), w.data() + i * k, k);
            ASSERT_NEAR(got[static_cast<size_t>(i)], want.value, 64 * 0x1p-24 * want.size + 1e-36) << name_of(dtype) << " fill " << fill;
          }
        }
      }
    }
}

TEST_P(ProductsOn, NonFiniteInputsGiveNaNInTheirRowsOnly) {
  Machine machine(GetParam());
  const int64_t k = 256, n = 20;
  for (Dtype dtype : test::kBlockFormats) {
    auto rows = test::random_rows(dtype, 9, n, k);
    const ConstTensorView view(rows.data(), dtype, {n, k});
    for (float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
      auto x = test::randn(10, 3 * k);
      x[static_cast<size_t>(k + 77)] = bad;
      const auto got = machine.multiply(x, 3, *machine.pack({&view, 1}));
      for (int64_t i = 0; i < 3 * n; ++i) ASSERT_EQ(std::isnan(got[static_cast<size_t>(i)]), i / n == 1) << name_of(dtype) << " " << i;
    }
    const uint16_t infinity = 0x7C00;  // A scale of one weight row.
    std::memcpy(rows.data() + 5 * row_bytes(dtype, k) + (dtype == Dtype::kQ6_K ? 208 : 0), &infinity, 2);
    const auto got = machine.multiply(test::randn(11, 2 * k), 2, *machine.pack({&view, 1}));
    for (int64_t i = 0; i < 2 * n; ++i) ASSERT_EQ(std::isfinite(got[static_cast<size_t>(i)]), i % n != 5) << name_of(dtype) << " " << i;
  }
}

// An eighth of the units are 32 times larger than the others, and different ones in neighbouring rows: the large ones have all of their
// bits, and a tile of rows that do not agree about which are large gives what each row gives alone.
TEST_P(ProductsOn, LargeUnitsAreFineWhicheverRowsShareATile) {
  Machine machine(GetParam());
  const int64_t k = 512, n = 40, n_rows = 9;
  const auto rows = test::random_rows(Dtype::kQ8_0, 13, n, k);
  const ConstTensorView view(rows.data(), Dtype::kQ8_0, {n, k});
  const auto packed = machine.pack({&view, 1});
  const auto w = dequantised(Dtype::kQ8_0, rows, n, k);
  auto x = test::randn(14, n_rows * k);
  for (int64_t i = 0; i < n_rows * k; ++i)
    if ((i / k + i % k / 32) % 8 == 0) x[static_cast<size_t>(i)] *= 32;
  const auto rounded = rounded_activations(x, k);
  for (size_t i = 0; i < x.size(); ++i)  // The large units' steps are 128 times finer than those of 8 bits.
    if ((i / 512 + i % 512 / 32) % 8 == 0) {
      ASSERT_NEAR(rounded[i], static_cast<double>(x[i]), 32 * 5.0 / 127 / 128) << i;
    }
  const auto got = machine.multiply(x, n_rows, *packed);
  for (int64_t t = 0; t < n_rows; ++t)
    for (int64_t i = 0; i < n; ++i) {
      const Expected want = dot_in_double(rounded.data() + t * k, w.data() + i * k, k);
      const double tolerance = 4 * (2.0 + std::sqrt(static_cast<double>(k) / 16)) * 0x1p-24 * (want.size + 1.0);
      ASSERT_NEAR(got[static_cast<size_t>(t * n + i)], want.value, tolerance) << t << " " << i;
    }
}

TEST_P(ProductsOn, ZeroAndTinyActivationsGiveZero) {
  Machine machine(GetParam());
  const auto rows = test::random_rows(Dtype::kQ4_1, 12, 16, 64);
  const ConstTensorView view(rows.data(), Dtype::kQ4_1, {16, 64});
  for (float value : {0.0f, 1e-38f, 1e-42f})
    for (float y : machine.multiply(std::vector<float>(64, value), 1, *machine.pack({&view, 1}))) EXPECT_EQ(y, 0.0f);
}

}  // namespace
}  // namespace minillm::cpu
