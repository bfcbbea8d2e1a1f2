#include "backend/cpu/pack.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "backend/cpu/memory.h"
#include "base/dequantise.h"
#include "base/dtype.h"
#include "base/half.h"
#include "support/quantised.h"
#include "support/sanitizer_options.h"

namespace minillm::cpu {
namespace {

class Pack : public ::testing::Test {
 protected:
  std::unique_ptr<CpuWeight> pack(std::span<const ConstTensorView> tensors, WeightRole role, std::optional<Dtype> convert_to = {}) {
    return pack_weight(tensors, role, convert_to, pool_, [this](size_t bytes) { return memory_.allocate(bytes); });
  }
  CountedMemory memory_;
  ThreadPool pool_{2};
};

TEST_F(Pack, RowsComeBackExactlyFromEveryFormatAndRole) {
  const int64_t n = 37, k = 768;
  std::vector<Dtype> dtypes(std::begin(test::kBlockFormats), std::end(test::kBlockFormats));
  dtypes.insert(dtypes.end(), {Dtype::kF32, Dtype::kF16, Dtype::kBF16});
  for (Dtype dtype : dtypes)
    for (WeightRole role : {WeightRole::kLookup, WeightRole::kBoth}) {
      const auto first = test::random_rows(dtype, 1, n, k), second = test::random_rows(Dtype::kQ8_0, 2, 5, k);
      const ConstTensorView views[] = {{first.data(), dtype, {n, k}}, {second.data(), Dtype::kQ8_0, {5, k}}};
      const auto w = pack(views, role);
      ASSERT_EQ(w->rows(), n + 5);
      std::vector<float> want(static_cast<size_t>(k)), got(static_cast<size_t>(k));
      for (int64_t row = 0; row < n + 5; ++row) {
        if (row < n)
          dequantise_row(dtype, first.data() + static_cast<size_t>(row) * row_bytes(dtype, k), want.data(), k);
        else
          dequantise_row(Dtype::kQ8_0, second.data() + static_cast<size_t>(row - n) * row_bytes(Dtype::kQ8_0, k), want.data(), k);
        w->look_up(row, got.data());
        ASSERT_EQ(got, want) << name_of(dtype) << " row " << row;
      }
    }
}

TEST_F(Pack, ConvertsToAFloatType) {
  const int64_t n = 18, k = 256;
  for (Dtype source : {Dtype::kQ4_K, Dtype::kQ5_1, Dtype::kF32, Dtype::kBF16})
    for (Dtype to : {Dtype::kF32, Dtype::kF16, Dtype::kBF16})
      for (WeightRole role : {WeightRole::kLookup, WeightRole::kBoth}) {
        const auto rows = test::random_rows(source, 3, n, k);
        const ConstTensorView view(rows.data(), source, {n, k});
        const auto w = pack({&view, 1}, role, to);
        std::vector<float> want(static_cast<size_t>(k)), got(static_cast<size_t>(k));
        for (int64_t row = 0; row < n; ++row) {
          dequantise_row(source, rows.data() + static_cast<size_t>(row) * row_bytes(source, k), want.data(), k);
          for (float& value : want) {
            if (to == Dtype::kF16) value = half_to_float(float_to_half(value));
            if (to == Dtype::kBF16) value = bfloat16_to_float(float_to_bfloat16(value));
          }
          w->look_up(row, got.data());
          ASSERT_EQ(got, want) << name_of(source) << " to " << name_of(to) << " row " << row;
        }
      }
}

TEST_F(Pack, MemoryIsThatOfTheFormatAndIsGivenBack) {
  const auto rows = test::random_rows(Dtype::kQ4_1, 4, 64, 576);
  const ConstTensorView view(rows.data(), Dtype::kQ4_1, {64, 576});
  {
    const auto w = pack({&view, 1}, WeightRole::kProduct);
    EXPECT_EQ(w->bytes(), static_cast<int64_t>(rows.size()));
    EXPECT_EQ(memory_.use().current, w->bytes());
  }
  EXPECT_EQ(memory_.use().current, 0);
  EXPECT_EQ(memory_.use().peak, static_cast<int64_t>(rows.size()));
  memory_.reset_peak();
  EXPECT_EQ(memory_.use().peak, 0);
}

TEST_F(Pack, RefusesWhatItCannotHold) {
  const std::vector<uint8_t> bytes(4096);
  const ConstTensorView good(bytes.data(), Dtype::kQ8_0, {2, 64}), wider(bytes.data(), Dtype::kQ8_0, {2, 96}),
      integers(bytes.data(), Dtype::kI32, {2, 64}), vector(bytes.data(), Dtype::kF32, {64}), empty(bytes.data(), Dtype::kF32, {0, 64}),
      partial(bytes.data(), Dtype::kQ4_K, {2, 64});
  const auto code = [&](std::vector<ConstTensorView> tensors, std::optional<Dtype> convert_to = {}) {
    try {
      pack(tensors, WeightRole::kProduct, convert_to);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kInternal;
  };
  EXPECT_EQ(code({}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({good, wider}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({vector}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({empty}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({partial}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({integers}), ErrorCode::kUnsupported);
  EXPECT_EQ(code({good}, Dtype::kQ4_0), ErrorCode::kUnsupported);
  EXPECT_EQ(code({good}, Dtype::kI32), ErrorCode::kUnsupported);
}

TEST(CountedMemory, WeightsLieSideBySideAndAreCounted) {
  CountedMemory memory;
  std::vector<Buffer> weights;
  int64_t bytes = 0;
  for (size_t size : {size_t{1000}, size_t{1} << 20, size_t{7} << 20, size_t{8} << 20, size_t{9} << 20, size_t{8} << 20, size_t{8} << 20}) {
    weights.push_back(memory.allocate_weight(size));  // Past 32 MiB a new run starts; 9 MiB get memory of their own.
    std::memset(weights.back().data(), static_cast<int>(weights.size()), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(weights.back().data()) % 64, 0u);
    EXPECT_EQ(memory.use().current, bytes += static_cast<int64_t>(size));
  }
  EXPECT_EQ(static_cast<uint8_t*>(weights[1].data()) - static_cast<uint8_t*>(weights[0].data()), 1024);
  for (size_t i = 0; i < weights.size(); ++i) {
    const uint8_t* data = static_cast<const uint8_t*>(weights[i].data());
    EXPECT_EQ(data[0], i + 1);
    EXPECT_EQ(data[weights[i].bytes() - 1], i + 1);
  }
  weights.clear();
  EXPECT_EQ(memory.use().current, 0);
}

TEST(CountedMemory, RefusesMoreThanThereIs) {
  CountedMemory memory;
  for (size_t bytes : {SIZE_MAX, SIZE_MAX / 2, size_t{1} << 60}) {
    try {
      memory.allocate(bytes);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    }
  }
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.allocate(1).data()) % 64, 0u);
}

}  // namespace
}  // namespace minillm::cpu
