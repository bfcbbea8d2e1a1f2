#include "base/dequantise.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/half.h"
#include "base/quant_block.h"
#include "minillm/error.h"

namespace minillm {
namespace {

constexpr Dtype kFormats[] = {Dtype::kQ4_0, Dtype::kQ4_1, Dtype::kQ5_0, Dtype::kQ5_1,
                              Dtype::kQ8_0, Dtype::kQ4_K, Dtype::kQ5_K, Dtype::kQ6_K};

template <typename T>
std::vector<T> read_values(std::istream& in, size_t n) {
  std::vector<T> values(n);
  in.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(n * sizeof(T)));
  return values;
}

// make_dequantise_golden.py wrote the file with the gguf package. Exact: each weight is one product and one sum in float32.
TEST(Dequantise, GivesTheSameFloatsAsTheGgufPackage) {
  std::ifstream in(MINILLM_TEST_DATA "/base/dequantise_golden.bin", std::ios::binary);
  for (Dtype dtype : kFormats) {
    const std::vector<char> name = read_values<char>(in, read_values<uint32_t>(in, 1)[0]);
    ASSERT_EQ(std::string(name.begin(), name.end()), name_of(dtype));
    const std::vector<uint8_t> blocks = read_values<uint8_t>(in, read_values<uint32_t>(in, 1)[0]);
    const std::vector<float> want = read_values<float>(in, 256);
    ASSERT_TRUE(in.good());
    ASSERT_EQ(blocks.size(), row_bytes(dtype, 256));
    std::vector<float> got(256);
    dequantise_row(dtype, blocks.data(), got.data(), 256);
    for (size_t i = 0; i < 256; ++i) EXPECT_EQ(got[i], want[i]) << name_of(dtype) << " element " << i;
  }
}

TEST(Dequantise, WidensFloatsAtAnyAddress) {
  const std::vector<float> want = {0.0f, -1.5f, 1024.0f, 0x1p-20f, -INFINITY};
  for (Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16}) {
    std::vector<uint8_t> bytes(1 + want.size() * 4);
    for (size_t i = 0; i < want.size(); ++i) {
      const uint16_t narrow = dtype == Dtype::kF16 ? float_to_half(want[i]) : float_to_bfloat16(want[i]);
      if (dtype == Dtype::kF32)
        std::memcpy(bytes.data() + 1 + 4 * i, &want[i], 4);
      else
        std::memcpy(bytes.data() + 1 + 2 * i, &narrow, 2);
    }
    std::vector<float> got(want.size());
    dequantise_row(dtype, bytes.data() + 1, got.data(), static_cast<int64_t>(got.size()));
    EXPECT_EQ(got, want) << name_of(dtype);
  }
}

TEST(Dequantise, LetsExtremeBlocksThrough) {
  for (Dtype dtype : kFormats) {
    for (int fill : {0x00, 0x7C, 0xFF}) {  // Scales of zero, infinity (0x7C7C is a NaN) and NaN; -1 and 0 codes.
      std::vector<uint8_t> bytes(block_bytes(dtype), static_cast<uint8_t>(fill));
      std::vector<float> out(static_cast<size_t>(block_elements(dtype)), 1.0f);
      dequantise_row(dtype, bytes.data(), out.data(), static_cast<int64_t>(out.size()));
      for (float value : out) EXPECT_EQ(std::isnan(value), fill != 0) << name_of(dtype);
    }
  }
}

TEST(Dequantise, RefusesPartialBlocksAndIntegers) {
  float out[256] = {};
  const uint8_t bytes[256] = {};
  for (Dtype dtype : kFormats) EXPECT_THROW(dequantise_row(dtype, bytes, out, 31), Error) << name_of(dtype);
  try {
    dequantise_row(Dtype::kI32, bytes, out, 4);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  }
  QuantBlock block;
  EXPECT_THROW(quant_format(Dtype::kF16), Error);
  EXPECT_THROW(read_block(Dtype::kBF16, bytes, block), Error);
}

}  // namespace
}  // namespace minillm
