#include "backend/cpu/cpu_backend.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "minillm/metrics.h"
#include "support/quantised.h"

namespace minillm::cpu {
namespace {

class CpuBackendTest : public ::testing::Test {
 protected:
  template <typename F>
  static ErrorCode code_of(F&& f) {
    try {
      f();
    } catch (const Error& error) {
      return error.code();
    }
    ADD_FAILURE() << "nothing was thrown";
    return ErrorCode::kInternal;
  }
  CpuBackend backend_{{.n_threads = 2}, choose_isa("")};
};

TEST_F(CpuBackendTest, SaysWhatItIs) {
  EXPECT_EQ(name_of(backend_.device()), "cpu");
  EXPECT_EQ(backend_.description(), "cpu (" + std::string(name_of(choose_isa(""))) + ", 2 threads)");
}

TEST_F(CpuBackendTest, CountsWhatItAllocates) {
  const int64_t before = backend_.memory().current;
  {
    Buffer a = backend_.allocate(1000), b = backend_.allocate(24);
    EXPECT_EQ(backend_.memory().current, before + 1024);
    Buffer moved = std::move(a);
    EXPECT_EQ(backend_.memory().current, before + 1024);
  }
  EXPECT_EQ(backend_.memory().current, before);
  EXPECT_GE(backend_.memory().peak, before + 1024);
}

TEST_F(CpuBackendTest, StepsWithinTheReservedShapeAllocateNothing) {
  const int64_t n = 96, k = 256;
  const auto rows = test::random_rows(Dtype::kQ4_K, 1, n, k);
  const ConstTensorView view(rows.data(), Dtype::kQ4_K, {n, k});
  const auto w = backend_.pack({&view, 1}, WeightRole::kProduct, {});
  backend_.reserve_workspace({.max_rows = 40,
                              .max_logit_rows = 1,
                              .hidden = k,
                              .n_heads = 2,
                              .n_kv_heads = 1,
                              .head_dim = 64,
                              .ffn = 512,
                              .vocab = n,
                              .max_context = 128,
                              .max_sequences = 2});
  const auto x = test::randn(2, 40 * k);
  std::vector<float> out(40 * n);
  backend_.reset_peak_memory();
  const int64_t before = backend_.memory().current;
  for (int64_t n_rows : {1, 40}) backend_.matmul({out.data(), Dtype::kF32, {n_rows, n}}, {x.data(), Dtype::kF32, {n_rows, k}}, *w);
  EXPECT_EQ(backend_.memory().peak, before);
}

TEST_F(CpuBackendTest, EmbedLooksUpAndScales) {
  const int64_t v = 50, e = 64;
  const auto rows = test::random_rows(Dtype::kF32, 3, v, e);
  const float* values = reinterpret_cast<const float*>(rows.data());
  const ConstTensorView view(rows.data(), Dtype::kF32, {v, e});
  const auto table = backend_.pack({&view, 1}, WeightRole::kBoth, {});
  const std::vector<TokenId> tokens = {49, 0, 7};
  const std::vector<int32_t> positions = {0, 1, 2};
  backend_.begin_step({tokens, positions, {}});
  std::vector<float> out(3 * e);
  backend_.embed({out.data(), Dtype::kF32, {3, e}}, *table, 2.5f);
  for (size_t t = 0; t < 3; ++t)
    for (size_t i = 0; i < e; ++i) ASSERT_EQ(out[t * e + i], 2.5f * values[static_cast<size_t>(tokens[t]) * e + i]);

  for (TokenId bad : {-1, 50}) {
    const std::vector<TokenId> one = {bad};
    backend_.begin_step({one, {positions.data(), 1}, {}});
    EXPECT_EQ(code_of([&] { backend_.embed({out.data(), Dtype::kF32, {1, e}}, *table, 1.0f); }), ErrorCode::kInvalidArgument);
  }
}

TEST_F(CpuBackendTest, RopeAnglesAreThoseOfDouble) {
  const std::vector<int32_t> positions = {0, 1, 100000, 8191};
  const std::vector<TokenId> tokens(4, 0);
  const std::vector<float> frequencies = {1.0f, 0.31f, 1e-4f};
  backend_.begin_step({tokens, positions, {}});
  std::vector<float> angles(4 * 6);
  backend_.rope_angles({angles.data(), Dtype::kF32, {4, 6}}, frequencies);
  for (size_t t = 0; t < 4; ++t)
    for (size_t i = 0; i < 3; ++i) {
      const double angle = static_cast<double>(positions[t]) * static_cast<double>(frequencies[i]);
      EXPECT_EQ(angles[6 * t + i], static_cast<float>(std::cos(angle)));
      EXPECT_EQ(angles[6 * t + 3 + i], static_cast<float>(std::sin(angle)));
    }
}

TEST_F(CpuBackendTest, GatherRowsCopiesAndChecks) {
  const auto x = test::randn(4, 5 * 8);
  std::vector<float> out(2 * 8);
  const std::vector<int32_t> rows = {4, 1};
  backend_.gather_rows({out.data(), Dtype::kF32, {2, 8}}, {x.data(), Dtype::kF32, {5, 8}}, rows);
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(out[i], x[4 * 8 + i]);
    EXPECT_EQ(out[8 + i], x[8 + i]);
  }
  const std::vector<int32_t> outside = {5, 0};
  EXPECT_EQ(code_of([&] {
              backend_.gather_rows({out.data(), Dtype::kF32, {2, 8}}, {x.data(), Dtype::kF32, {5, 8}}, outside);
            }),
            ErrorCode::kInternal);
}

TEST_F(CpuBackendTest, RefusesWeightsPackedForSomethingElse) {
  struct Foreign : PackedWeight {
    Foreign() : PackedWeight(4, 32) {}
    int64_t bytes() const noexcept override { return 0; }
  };
  const auto rows = test::random_rows(Dtype::kQ8_0, 5, 4, 32);
  const ConstTensorView view(rows.data(), Dtype::kQ8_0, {4, 32});
  const auto lookup = backend_.pack({&view, 1}, WeightRole::kLookup, {}), product = backend_.pack({&view, 1}, WeightRole::kProduct, {});
  const std::vector<float> x(32);
  std::vector<float> out(32);
  const TensorView y(out.data(), Dtype::kF32, {1, 4});
  const ConstTensorView input(x.data(), Dtype::kF32, {1, 32});
  EXPECT_EQ(code_of([&] { backend_.matmul(y, input, *lookup); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { backend_.matmul(y, input, Foreign()); }), ErrorCode::kInvalidArgument);
  const std::vector<TokenId> tokens = {0};
  const std::vector<int32_t> positions = {0};
  backend_.begin_step({tokens, positions, {}});
  EXPECT_EQ(code_of([&] { backend_.embed({out.data(), Dtype::kF32, {1, 32}}, *product, 1.0f); }), ErrorCode::kInvalidArgument);
}

TEST_F(CpuBackendTest, EnvironmentForcesTheInstructionSet) {
  ASSERT_EQ(::setenv("MINILLM_ISA", "scalar", 1), 0);
  EXPECT_EQ(make_cpu_backend({.n_threads = 1})->description(), "cpu (scalar, 1 thread)");
  ASSERT_EQ(::setenv("MINILLM_ISA", "mmx", 1), 0);
  EXPECT_EQ(code_of([] { make_cpu_backend({.n_threads = 1}); }), ErrorCode::kInvalidArgument);
  ::unsetenv("MINILLM_ISA");
}

TEST_F(CpuBackendTest, PeaksAreMeasured) {
  const MachinePeaks peaks = backend_.measure_peaks();
  EXPECT_GT(peaks.read_gb_s, 0.1);
  EXPECT_GT(peaks.float_gflop_s, 0.1);
  EXPECT_GT(peaks.quantised_gflop_s, 0.1);
  if (is_supported(Isa::kAmx)) {
    EXPECT_GT(CpuBackend({.n_threads = 1}, Isa::kAmx).measure_peaks().bf16_gflop_s, 0.1);
  }
  EXPECT_EQ(CpuBackend({.n_threads = 1}, Isa::kScalar).measure_peaks().bf16_gflop_s, 0.0);
}

}  // namespace
}  // namespace minillm::cpu
