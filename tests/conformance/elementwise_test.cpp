// elementwise_test.cpp - norms, activations, rotary angles, sums and gathers on every backend.
#include "conformance/rig.h"

namespace minillm {
namespace {

using namespace test;

constexpr int64_t kRows[] = {0, 1, 2, 7, 33}, kWidths[] = {1, 3, 16, 31, 64, 577, 2048};
constexpr double kUlp = 0x1p-23;  // Of a number in [1, 2); relative to others at most this.

class Elementwise : public OnTarget {};

TEST_P(Elementwise, NormMatchesTheOracle) {
  for (const int64_t t : kRows)
    for (const int64_t e : kWidths)
      for (const float eps : {1e-6f, 1e-5f, 0.1f}) {
        const std::vector<float> x = randn(1, t * e, 3), w = randn(2, e);
        const Array got(*backend_, {t, e}), want(*oracle_, {t, e}), in_place(*backend_, {t, e}, x);
        oracle_->rms_norm(want, Array(*oracle_, {t, e}, x), Array(*oracle_, {e}, w), eps);
        const Array weight(*backend_, {e}, w);
        backend_->rms_norm(got, Array(*backend_, {t, e}, x), weight, eps);
        backend_->rms_norm(in_place, in_place, weight, eps);
        const std::vector<float> y = want.host();
        // The sum of e squares in float32, halved by the root, then three roundings.
        const double relative = (4 + std::sqrt(static_cast<double>(e)) / 2) * kUlp;
        const std::string what = "T=" + std::to_string(t) + " E=" + std::to_string(e);
        expect_close(
            got, want, [&](int64_t i) { return relative * std::abs(static_cast<double>(y[static_cast<size_t>(i)])); }, what);
        expect_same_bits(in_place.host(), got.host(), what + " in place");
      }
}

TEST_P(Elementwise, NormOfZerosAndOfTinyAndHugeRowsStaysFinite) {
  const std::vector<float> w(64, 2.0f);
  for (const float value : {0.0f, 1e-18f, 1e18f}) {
    const std::vector<float> x(64, value);
    const Array got(*backend_, {1, 64}), want(*oracle_, {1, 64});
    backend_->rms_norm(got, Array(*backend_, {1, 64}, x), Array(*backend_, {64}, w), 1e-6f);
    oracle_->rms_norm(want, Array(*oracle_, {1, 64}, x), Array(*oracle_, {64}, w), 1e-6f);
    expect_close(got, want, 1e-5, "rows of " + std::to_string(value));
  }
}

TEST_P(Elementwise, ActivationsMatchTheOracle) {
  for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh})
    for (const int64_t t : kRows)
      for (const int64_t f : kWidths) {
        std::vector<float> gate_up = randn(3, t * 2 * f, 4);
        const float special[] = {0.0f, -0.0f, 100.0f, -100.0f, 1e4f, -1e4f, 1e-20f, -20.0f};
        for (size_t i = 0; i < std::min(gate_up.size(), std::size(special)); ++i) gate_up[i] = special[i];
        const Array got(*backend_, {t, f}), want(*oracle_, {t, f});
        backend_->gated_activation(got, Array(*backend_, {t, 2 * f}, gate_up), activation);
        oracle_->gated_activation(want, Array(*oracle_, {t, 2 * f}, gate_up), activation);
        // Polynomial exp of a few ulps. GELU's 1 + tanh cancels for x << 0: absolute 2 ulp of 1, times x and the other factor.
        const auto tolerance = [&](int64_t i) {
          const auto at = static_cast<size_t>(i / f * 2 * f + i % f);
          const double gate = std::abs(static_cast<double>(gate_up[at])),
                       up = std::abs(static_cast<double>(gate_up[at + static_cast<size_t>(f)]));
          return 8 * kUlp * gate * up + 1e-30;
        };
        expect_close(got, want, tolerance, "T=" + std::to_string(t) + " F=" + std::to_string(f));
      }
}

TEST_P(Elementwise, SoftcapMatchesTheOracleAtEveryMagnitude) {
  for (const float cap : {30.0f, 50.0f, 0.5f}) {
    std::vector<float> x = randn(4, 999, 40);
    for (size_t i = 0; i < 200; ++i) x[i] = std::ldexp(i % 2 == 0 ? 1.3f : -1.3f, static_cast<int>(i) - 120);
    const Array got(*backend_, {27, 37}, x), want(*oracle_, {27, 37}, x);
    backend_->softcap(got, cap);
    oracle_->softcap(want, cap);
    // Relative for small x, where tanh must not lose its argument to 1 - 1.
    const std::vector<float> y = want.host();
    expect_close(
        got, want, [&](int64_t i) { return 8 * kUlp * std::abs(static_cast<double>(y[static_cast<size_t>(i)])) + 1e-37; },
        "cap " + std::to_string(cap));
  }
}

TEST_P(Elementwise, AddAndGatherAreExact) {
  for (const int64_t t : kRows)
    for (const int64_t e : kWidths) {
      const std::vector<float> x = randn(5, t * e), y = randn(6, t * e);
      const Array sum(*backend_, {t, e}, x);
      backend_->add(sum, Array(*backend_, {t, e}, y));
      std::vector<float> want(x.size());
      std::ranges::transform(x, y, want.begin(), std::plus<>());
      expect_same_bits(sum.host(), want, "sum");
      if (t == 0) continue;
      const std::vector<int32_t> rows = {static_cast<int32_t>(t - 1), 0, static_cast<int32_t>(t / 2), 0};
      const Array gathered(*backend_, {4, e});
      backend_->gather_rows(gathered, sum, rows);
      std::vector<float> picked;
      for (const int32_t row : rows) picked.insert(picked.end(), want.begin() + row * e, want.begin() + (row + 1) * e);
      expect_same_bits(gathered.host(), picked, "gather");
      backend_->gather_rows(Array(*backend_, {0, e}), sum, {});
    }
}

TEST_P(Elementwise, AnglesAreExactAtLongPositions) {
  Step step({{0, 6}}, 16);
  step.positions = {0, 1, 511, 8191, 131071, 1048575};
  std::vector<float> frequencies;
  for (int i = 0; i < 32; ++i) frequencies.push_back(static_cast<float>(std::pow(500000.0, -i / 32.0)));
  const Array got(*backend_, {6, 64}), want(*oracle_, {6, 64});
  backend_->begin_step(step.batch());
  oracle_->begin_step(step.batch());
  backend_->rope_angles(got, frequencies);
  oracle_->rope_angles(want, frequencies);
  // The angle itself, up to 2^20, must not be rounded to float32 before cos and sin: that alone would cost 0.06.
  expect_close(got, want, 2e-7, "angles");
}

MINILLM_ON_EVERY_TARGET(Elementwise);

}  // namespace
}  // namespace minillm
