// types_test.cpp - names of dtypes and devices, sizes of blocks, checked arithmetic, readable byte counts.
#include "minillm/types.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/bytes.h"
#include "base/check.h"
#include "base/dtype.h"
#include "minillm/error.h"

namespace minillm {
namespace {

struct Known {
  Dtype dtype;
  const char* name;
  int64_t elements;
  size_t bytes;
};
constexpr Known kAll[] = {  // Sizes from the GGUF specification.
    {Dtype::kF32, "f32", 1, 4},     {Dtype::kF16, "f16", 1, 2},       {Dtype::kBF16, "bf16", 1, 2},     {Dtype::kI32, "i32", 1, 4},
    {Dtype::kQ4_0, "q4_0", 32, 18}, {Dtype::kQ4_1, "q4_1", 32, 20},   {Dtype::kQ5_0, "q5_0", 32, 22},   {Dtype::kQ5_1, "q5_1", 32, 24},
    {Dtype::kQ8_0, "q8_0", 32, 34}, {Dtype::kQ4_K, "q4_k", 256, 144}, {Dtype::kQ5_K, "q5_k", 256, 176}, {Dtype::kQ6_K, "q6_k", 256, 210},
    {Dtype::kF8, "f8", 1, 1}};

TEST(Dtype, EveryTypeHasItsNameAndSizes) {
  for (const Known& known : kAll) {
    EXPECT_EQ(name_of(known.dtype), known.name);
    EXPECT_EQ(parse_dtype(known.name), known.dtype);
    EXPECT_EQ(block_elements(known.dtype), known.elements) << known.name;
    EXPECT_EQ(block_bytes(known.dtype), known.bytes) << known.name;
    EXPECT_EQ(is_quantised(known.dtype), known.elements > 1) << known.name;
    EXPECT_EQ(row_bytes(known.dtype, 3 * known.elements), 3 * known.bytes) << known.name;
    EXPECT_EQ(row_bytes(known.dtype, 0), 0u) << known.name;
    EXPECT_THROW(row_bytes(known.dtype, -known.elements), Error) << known.name;
    if (known.elements > 1) {
      EXPECT_THROW(row_bytes(known.dtype, known.elements + 1), Error) << known.name;
    }
  }
}

TEST(Dtype, LongNamesAreUnderstoodAndOthersNamedInTheError) {
  EXPECT_EQ(parse_dtype("float32"), Dtype::kF32);
  EXPECT_EQ(parse_dtype("float16"), Dtype::kF16);
  EXPECT_EQ(parse_dtype("bfloat16"), Dtype::kBF16);
  EXPECT_EQ(parse_dtype("float8_e4m3fn"), Dtype::kF8);
  for (const char* bad : {"", "F32", "f9", "q4_2", "f32 "}) {
    try {
      parse_dtype(bad);
      ADD_FAILURE() << "'" << bad << "' accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find("'" + std::string(bad) + "'"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("q6_k"), std::string::npos) << error.what();
    }
  }
}

TEST(Device, NamesGoBothWays) {
  for (const char* name : {"cpu", "reference", "cuda:0", "cuda:7"}) EXPECT_EQ(name_of(parse_device(name)), name);
  EXPECT_EQ(parse_device("cuda"), (Device{Device::Kind::kCuda, 0}));
  for (const char* bad : {"", "gpu", "cpu:0", "cuda:", "cuda:-1", "cuda:1x", "cuda:+1", "cuda: 1", "cuda:99999999999"}) {
    try {
      parse_device(bad);
      ADD_FAILURE() << "'" << bad << "' accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << bad;
    }
  }
}

TEST(Bytes, ArithmeticIsCheckedAndCountsAreReadable) {
  constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();
  EXPECT_EQ(checked_mul(kMost / 3, 3), kMost / 3 * 3);
  EXPECT_EQ(checked_mul(uint64_t{1} << 32, uint64_t{1} << 32), std::nullopt);
  EXPECT_EQ(checked_mul(kMost, 0), 0u);
  EXPECT_EQ(checked_add(kMost, 0), kMost);
  EXPECT_EQ(checked_add(kMost, 1), std::nullopt);
  EXPECT_EQ(ceil_div(0, 16), 0);
  EXPECT_EQ(ceil_div(16, 16), 1);
  EXPECT_EQ(ceil_div(17, 16), 2);
  EXPECT_EQ(round_up(17, 16), 32);
  EXPECT_EQ(readable_bytes(0), "0 B");
  EXPECT_EQ(readable_bytes(1023), "1023 B");
  EXPECT_EQ(readable_bytes(1024), "1.0 KiB");
  EXPECT_EQ(readable_bytes(uint64_t{64} << 20), "64.0 MiB");
  EXPECT_EQ(readable_bytes(kMost), "16777216.0 TiB");
}

TEST(Check, NamesTheConditionAndTheValues) {
  const int x = 3;
  try {
    MINILLM_CHECK(x == 4, "x is ", x);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInternal);
    EXPECT_NE(std::string(error.what()).find("x == 4: x is 3"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace minillm
