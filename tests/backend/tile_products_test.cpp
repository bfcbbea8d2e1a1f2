#include "backend/cpu/tile_products.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "backend/cpu/cpu_backend.h"
#include "base/dequantise.h"
#include "base/dtype.h"
#include "support/quantised.h"

namespace minillm::cpu {
namespace {

constexpr Dtype kTypes[] = {Dtype::kF16,  Dtype::kBF16, Dtype::kQ4_0, Dtype::kQ4_1, Dtype::kQ5_0,
                            Dtype::kQ5_1, Dtype::kQ8_0, Dtype::kQ4_K, Dtype::kQ5_K, Dtype::kQ6_K};

struct Machine {
  explicit Machine(int n_threads)
      : pool(n_threads), tiles(pool, kernels_of(Isa::kAmx), [this](size_t bytes) { return memory.allocate(bytes); }) {}

  std::unique_ptr<CpuWeight> pack(std::span<const ConstTensorView> tensors) {
    return pack_weight(tensors, WeightRole::kProduct, {}, pool, [this](size_t bytes) { return memory.allocate(bytes); });
  }
  std::vector<float> multiply(const std::vector<float>& x, int64_t n_rows, const CpuWeight& w, const Beside& beside = {}) {
    // Guard values on both sides: a store outside the output is seen.
    std::vector<float> out(static_cast<size_t>(n_rows * w.rows()) + 32, 12345.0f);
    tiles.matmul({out.data() + 16, Dtype::kF32, {n_rows, w.rows()}}, {x.data(), Dtype::kF32, {n_rows, w.cols()}}, w, beside);
    for (size_t i = 0; i < 16; ++i) EXPECT_TRUE(out[i] == 12345.0f && out[out.size() - 1 - i] == 12345.0f) << "guard " << i;
    return {out.begin() + 16, out.end() - 16};
  }

  CountedMemory memory;
  ThreadPool pool;
  TileProducts tiles;
};

class Tiles : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!is_supported(Isa::kAmx)) GTEST_SKIP() << "this processor has no AMX";
  }
};

// Both operands are rounded to 8 bits: independent errors of at most 2^-8 of a value, uniform, so that a product's variance is at most
// 2/3 2^-16 of its square; 8 standard deviations. On top of it float32 sums of k terms.
void expect_product(Dtype dtype, int64_t n_rows, int64_t n, int64_t k, int n_threads) {
  Machine machine(n_threads);
  const auto rows = test::random_rows(dtype, 1, n, k);
  const ConstTensorView view(rows.data(), dtype, {n, k});
  const auto x = test::randn(2, n_rows * k);
  const auto got = machine.multiply(x, n_rows, *machine.pack({&view, 1}));
  std::vector<float> w(static_cast<size_t>(k));
  for (int64_t j = 0; j < n; ++j) {
    dequantise_row(dtype, rows.data() + static_cast<size_t>(j) * row_bytes(dtype, k), w.data(), k);
    for (int64_t t = 0; t < n_rows; ++t) {
      double want = 0, squares = 0, magnitude = 0;
      for (int64_t i = 0; i < k; ++i) {
        const double product = static_cast<double>(w[static_cast<size_t>(i)]) * static_cast<double>(x[static_cast<size_t>(t * k + i)]);
        want += product;
        squares += product * product;
        magnitude += std::fabs(product);
      }
      const double tolerance = 8 * std::sqrt(squares * 2 / 3) * 0x1p-8 + 0x1p-24 * (2 + std::sqrt(static_cast<double>(k))) * magnitude;
      ASSERT_NEAR(static_cast<double>(got[static_cast<size_t>(t * n + j)]), want, tolerance)
          << name_of(dtype) << " [" << t << ", " << j << "] of T=" << n_rows << " N=" << n << " K=" << k;
    }
  }
}

TEST_F(Tiles, MatchTheProductInDouble) {
  for (Dtype dtype : kTypes) {
    const int64_t block = is_quantised(dtype) ? block_elements(dtype) : 37;  // Float weights take odd widths.
    for (int64_t n_rows : {1, 15, 16, 17, 24, 33, 48, 63}) expect_product(dtype, n_rows, 33, block, 2);
    for (int64_t n : {1, 16, 17, 70, 300}) expect_product(dtype, 40, n, 3 * block, 2);
  }
}

TEST_F(Tiles, MatchForRowsOfManyStages) {  // Above 20 units a stage adds to the sums of the one before.
  for (Dtype dtype : kTypes)
    for (int64_t k : {768, 1536, 17 * 256}) expect_product(dtype, 50, 19, k, 2);
}

TEST_F(Tiles, MatchForManyRows) {  // Two groups; more rows than one pass takes.
  for (int n_threads : {1, 2}) expect_product(Dtype::kQ4_1, 1100, 20, 800, n_threads);
}

TEST_F(Tiles, RowsDoNotDependOnTheRowsBesideThem) {
  for (Dtype dtype : {Dtype::kQ4_1, Dtype::kQ6_K, Dtype::kBF16})
    for (int64_t k : {256, 1024}) {
      constexpr int64_t kRows = 600, kColumns = 50;
      const auto rows = test::random_rows(dtype, 3, kColumns, k);
      const ConstTensorView view(rows.data(), dtype, {kColumns, k});
      auto x = test::randn(4, kRows * k);
      x[5] = std::numeric_limits<float>::quiet_NaN();
      Machine machine(2);
      const auto want = machine.multiply(x, kRows, *machine.pack({&view, 1}));
      for (int n_threads : {1, 3})
        for (int64_t first : {0, 7, 130})
          for (int64_t n_rows : {1, 24, 47, 300}) {
            Machine other(n_threads);
            const auto got = other.multiply({x.begin() + first * k, x.begin() + (first + n_rows) * k}, n_rows, *other.pack({&view, 1}));
            ASSERT_EQ(std::memcmp(got.data(), want.data() + first * kColumns, got.size() * sizeof(float)), 0)
                << name_of(dtype) << ": rows from " << first << ", " << n_rows << " of them, " << n_threads << " threads";
          }
      for (int64_t j = 0; j < kColumns; ++j)
        EXPECT_TRUE(std::isnan(want[static_cast<size_t>(j)]) && std::isfinite(want[static_cast<size_t>(kColumns + j)]));
    }
}

TEST_F(Tiles, InfinitiesAndLargeValuesKeepTheirSize) {
  std::vector<float> w(32 * 16, 0.0f), x(24 * 32, 0.0f);
  w[0] = 2.0f;
  x[0] = std::numeric_limits<float>::infinity();
  x[32] = 1e38f;
  x[64] = -3.0f;
  const ConstTensorView view(w.data(), Dtype::kF32, {16, 32});
  Machine machine(1);
  const auto packed = pack_weight({&view, 1}, WeightRole::kProduct, Dtype::kBF16, machine.pool,
                                  [&](size_t bytes) { return machine.memory.allocate(bytes); });
  const auto got = machine.multiply(x, 24, *packed);
  EXPECT_EQ(got[0], std::numeric_limits<float>::infinity());
  EXPECT_NEAR(static_cast<double>(got[16]), 2e38, 1e36);
  EXPECT_EQ(got[32], -6.0f);
}

TEST_F(Tiles, WeightsInFloat32AreNotRounded) {
  Machine machine(1);
  const std::vector<float> w(32 * 16, 1.0f);
  const ConstTensorView view(w.data(), Dtype::kF32, {16, 32});
  EXPECT_FALSE(machine.tiles.take(*machine.pack({&view, 1}), 512));
}

// What a gate rounds for the next product is what would be rounded from the activation in float32, but for its last bits.
TEST_F(Tiles, GatedRowsAreThoseOfTheActivation) {
  const Kernels& kernels = kernels_of(Isa::kAmx);
  constexpr int64_t kRows = 40, kWidth = 64;
  const auto gate = test::randn(5, kRows * kWidth, 3.0), up = test::randn(6, kRows * kWidth);
  for (bool silu : {true, false}) {
    Machine machine(1);
    const RoundedRows to = machine.tiles.room(kRows, kWidth);
    std::vector<float> want(gate.size());
    (silu ? kernels.gate_silu : kernels.gate_gelu)(want.data(), gate.data(), up.data(), kRows * kWidth);
    for (int64_t column = 0; column < kWidth; column += 16)
      (silu ? kernels.gate_silu_rounded : kernels.gate_gelu_rounded)(
          {.gate = gate.data() + column, .up = up.data() + column, .stride = kWidth, .row = 0, .n_rows = kRows, .column = column}, to);
    for (int64_t t = 0; t < kRows; ++t)
      for (int64_t i = 0; i < kWidth; ++i) {
        const uint32_t bits = static_cast<uint32_t>(to.strip(t / 16)[i / 32 * RoundedRows::kTileValues + t % 16 * 32 + i % 32]) << 16;
        float got;
        std::memcpy(&got, &bits, sizeof got);
        const float expected = want[static_cast<size_t>(t * kWidth + i)];
        EXPECT_NEAR(got, expected, 0x1.01p-8f * std::fabs(expected)) << t << ", " << i;
      }
  }
}

}  // namespace
}  // namespace minillm::cpu
