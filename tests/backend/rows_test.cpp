#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "support/random.h"

namespace minillm::cpu {
namespace {

constexpr double kUlp = 0x1p-24;  ///< Relative error of one rounding.
constexpr int64_t kLengths[] = {1, 15, 16, 17, 31, 33, 576, 1000};

std::vector<Isa> usable_isas() {
  std::vector<Isa> isas;
  for (Isa isa : all_isas())
    if (is_supported(isa)) isas.push_back(isa);
  return isas;
}

class Rows : public ::testing::TestWithParam<Isa> {
 protected:
  const Kernels& kernels_ = kernels_of(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Isas, Rows, ::testing::ValuesIn(usable_isas()), [](const auto& test) { return std::string(name_of(test.param)); });

double silu(double x) { return x / (1 + std::exp(-x)); }
double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

TEST_P(Rows, RmsNormMatchesDouble) {
  for (int64_t n : kLengths)
    for (double size : {1.0, 1e-3, 1e4}) {
      const auto x = test::randn(1, n, size), w = test::randn(2, n);
      std::vector<float> out(static_cast<size_t>(n) + 1, 7.0f);
      kernels_.rms_norm(out.data(), x.data(), w.data(), n, 1e-5f);
      double squares = 0;
      for (float value : x) squares += static_cast<double>(value) * static_cast<double>(value);
      const double scale = 1 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(1e-5f));
      for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
        const double want = static_cast<double>(x[i]) * scale * static_cast<double>(w[i]);
        // The sum of squares rounds at most n / 32 + 8 times a lane, the rest 5 times.
        ASSERT_NEAR(out[i], want, (static_cast<double>(n) / 32 + 13) * kUlp * std::fabs(want)) << "n=" << n << " i=" << i;
      }
      EXPECT_EQ(out.back(), 7.0f);
    }
}

TEST_P(Rows, AddIsExact) {
  for (int64_t n : kLengths) {
    const auto x = test::randn(3, n), y = test::randn(4, n);
    auto got = x;
    got.push_back(7.0f);
    kernels_.add(got.data(), y.data(), n);
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) ASSERT_EQ(got[i], x[i] + y[i]);
    EXPECT_EQ(got.back(), 7.0f);
  }
}

// The exponential is within 2 units in the last place, its argument exact: 8 roundings in all. Below -87 the exponential is
// clamped, where silu is under 1e-35.
TEST_P(Rows, SiluHasASmallRelativeError) {
  std::vector<float> gate, up;
  for (double x = -86.0; x < 90.0; x += 0.0137) gate.push_back(static_cast<float>(x));
  for (double x : {0.0, 1e-30, -1e-30, 1e-8, -3e38, 3e38, -100.0, 1000.0}) gate.push_back(static_cast<float>(x));
  up.assign(gate.size(), 1.0f);
  std::vector<float> out(gate.size());
  kernels_.gate_silu(out.data(), gate.data(), up.data(), static_cast<int64_t>(gate.size()));
  for (size_t i = 0; i < gate.size(); ++i) {
    const double want = silu(static_cast<double>(gate[i]));
    ASSERT_NEAR(out[i], want, 12 * kUlp * std::fabs(want) + 4 * std::fabs(static_cast<double>(gate[i])) * std::exp(-87.0)) << gate[i];
  }
}

// As silu, but the argument 2v of the exponential carries 3 roundings of its own, which the exponential magnifies by |2v|.
TEST_P(Rows, GeluHasASmallRelativeError) {
  std::vector<float> gate, up;
  for (double x = -10.0; x < 12.0; x += 0.00137) gate.push_back(static_cast<float>(x));
  for (double x : {0.0, 1e-30, -1e-8, -50.0, 1e4, -1e12, 3e38}) gate.push_back(static_cast<float>(x));
  up.assign(gate.size(), 1.0f);
  std::vector<float> out(gate.size());
  kernels_.gate_gelu(out.data(), gate.data(), up.data(), static_cast<int64_t>(gate.size()));
  for (size_t i = 0; i < gate.size(); ++i) {
    const double x = static_cast<double>(gate[i]), twice = 1.5957691216 * (x + 0.044715 * x * x * x);
    const double want = x / (1 + std::exp(-twice));  // The form of the kernel: 1 + tanh loses its digits in double, too.
    EXPECT_NEAR(want, gelu(x), 1e-12 * std::fabs(x) + 1e-15);
    const double magnified = std::fabs(twice) > 87 ? 0 : 4 * std::fabs(twice);
    ASSERT_NEAR(out[i], want, (12 + magnified) * kUlp * std::fabs(want) + 4 * std::fabs(x) * std::exp(-87.0)) << gate[i];
  }
}

TEST_P(Rows, GatesMultiplyByUpAndKeepToTheirRow) {
  for (int64_t n : kLengths) {
    const auto gate = test::randn(5, n), up = test::randn(6, n);
    for (const bool use_silu : {true, false}) {
      std::vector<float> out(static_cast<size_t>(n) + 1, 7.0f);
      (use_silu ? kernels_.gate_silu : kernels_.gate_gelu)(out.data(), gate.data(), up.data(), n);
      for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
        const double x = static_cast<double>(gate[i]), want = (use_silu ? silu(x) : gelu(x)) * static_cast<double>(up[i]);
        ASSERT_NEAR(out[i], want, 64 * kUlp * std::fabs(want) + 1e-12);
      }
      EXPECT_EQ(out.back(), 7.0f);
    }
  }
}

TEST_P(Rows, SoftcapHasASmallRelativeError) {
  for (float c : {1.0f, 30.0f, 50.0f}) {
    std::vector<float> x;
    for (double y = -20.0; y < 20.0; y += 0.00371) x.push_back(static_cast<float>(y * static_cast<double>(c)));
    for (double y : {0.0, 1e-20, -1e-6, 0.49999, 0.5, -0.5, 1e10, -3e38}) x.push_back(static_cast<float>(y));
    auto got = x;
    kernels_.softcap(got.data(), static_cast<int64_t>(got.size()), c);
    for (size_t i = 0; i < x.size(); ++i) {
      const double wide = static_cast<double>(c), want = wide * std::tanh(static_cast<double>(x[i]) / wide);
      // From 1/2 on, 1 - e^-2|y| keeps at least 63% of the 1, so its error of about 4 roundings grows by less than 2.
      ASSERT_NEAR(got[i], want, 16 * kUlp * std::fabs(want)) << x[i] << " c=" << c;
    }
  }
}

TEST_P(Rows, NaNStaysNaN) {
  std::vector<float> nan(17, std::numeric_limits<float>::quiet_NaN()), one(17, 1.0f), out(17);
  kernels_.gate_silu(out.data(), nan.data(), one.data(), 17);
  for (float y : out) EXPECT_TRUE(std::isnan(y));
  kernels_.gate_gelu(out.data(), nan.data(), one.data(), 17);
  for (float y : out) EXPECT_TRUE(std::isnan(y));
  kernels_.rms_norm(out.data(), nan.data(), one.data(), 17, 1e-5f);
  for (float y : out) EXPECT_TRUE(std::isnan(y));
  kernels_.softcap(nan.data(), 17, 30.0f);
  for (float y : nan) EXPECT_TRUE(std::isnan(y));
}

}  // namespace
}  // namespace minillm::cpu
