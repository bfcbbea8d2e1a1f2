// half_test.cpp - the 16-bit and 8-bit types: widening is exact for all their values, narrowing goes to nearest even.
#include "base/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace minillm {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The value of a binary float with 1 + exponent_bits + mantissa_bits bits, by its definition (IEEE 754, 3.4).
double by_definition(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const uint32_t mantissa = bits & ((1u << mantissa_bits) - 1), exponent = (bits >> mantissa_bits) & ((1u << exponent_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double sign = (bits >> (exponent_bits + mantissa_bits)) != 0 ? -1 : 1;
  if (exponent == (1u << exponent_bits) - 1) return mantissa != 0 ? std::nan("") : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp((1u << mantissa_bits) + mantissa, static_cast<int>(exponent) - bias - mantissa_bits);
}

struct Format {
  const char* name;
  int exponent_bits, mantissa_bits;
  float (*widen)(uint16_t);
  uint16_t (*narrow)(float);
  uint16_t infinity;
};
const Format kFormats[] = {{"half", 5, 10, half_to_float, float_to_half, 0x7C00},
                           {"bfloat16", 8, 7, bfloat16_to_float, float_to_bfloat16, 0x7F80}};

TEST(Half, WideningIsExactAndNarrowingBringsEachValueBack) {
  for (const Format& f : kFormats)
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
      const uint16_t x = static_cast<uint16_t>(bits);
      const float wide = f.widen(x);
      const double want = by_definition(bits, f.exponent_bits, f.mantissa_bits);
      if (std::isnan(want)) {
        ASSERT_TRUE(std::isnan(wide)) << f.name << " " << bits;
        ASSERT_TRUE(std::isnan(f.widen(f.narrow(wide)))) << f.name << " " << bits;
      } else {
        ASSERT_EQ(static_cast<double>(wide), want) << f.name << " " << bits;
        ASSERT_EQ(std::signbit(wide), bits >= 0x8000) << f.name << " " << bits;
        ASSERT_EQ(f.narrow(wide), x) << f.name << " " << bits;
      }
    }
}

TEST(Half, NarrowingGoesToTheNearestAndTiesToEven) {
  for (const Format& f : kFormats)
    for (uint16_t x = 0; x + 1 < f.infinity; ++x) {  // Every gap between two finite neighbours.
      const uint16_t next = static_cast<uint16_t>(x + 1);
      const float low = f.widen(x), high = f.widen(next);
      const float middle = static_cast<float>((static_cast<double>(low) + static_cast<double>(high)) / 2);  // Exact in float32.
      const uint16_t even = x % 2 == 0 ? x : next;
      ASSERT_EQ(f.narrow(middle), even) << f.name << " " << x;
      ASSERT_EQ(f.narrow(std::nextafter(middle, 0.0f)), x) << f.name << " " << x;
      ASSERT_EQ(f.narrow(std::nextafter(middle, kInfinity)), next) << f.name << " " << x;
      ASSERT_EQ(f.narrow(-middle), even | 0x8000) << f.name << " " << x;
    }
}

TEST(Half, NarrowingOverflowsToInfinityPastHalfAStep) {
  for (const Format& f : kFormats) {
    const double largest = by_definition(f.infinity - 1u, f.exponent_bits, f.mantissa_bits);
    const double step = largest - by_definition(f.infinity - 2u, f.exponent_bits, f.mantissa_bits);
    const float border = static_cast<float>(largest + step / 2);
    EXPECT_EQ(f.narrow(border), f.infinity) << f.name;  // A tie goes to even, which is infinity.
    EXPECT_EQ(f.narrow(std::nextafter(border, 0.0f)), f.infinity - 1) << f.name;
    EXPECT_EQ(f.narrow(kInfinity), f.infinity) << f.name;
    EXPECT_EQ(f.narrow(-kInfinity), f.infinity | 0x8000) << f.name;
    EXPECT_EQ(f.narrow(std::numeric_limits<float>::max()), f.infinity) << f.name;
  }
}

TEST(Half, NarrowingKeepsNanAndFlushesTheTiniest) {
  for (const Format& f : kFormats) {
    for (const uint32_t nan : {0x7F800001u, 0x7FC00000u, 0xFFFFFFFFu, 0xFF800001u})
      EXPECT_TRUE(std::isnan(f.widen(f.narrow(std::bit_cast<float>(nan))))) << f.name << " " << nan;
    EXPECT_EQ(f.narrow(std::numeric_limits<float>::denorm_min()), 0) << f.name;
    EXPECT_EQ(f.narrow(-0.0f), 0x8000) << f.name;
  }
}

TEST(F8, WideningIsExactAndNarrowingBringsEachValueBack) {
  for (uint32_t bits = 0; bits < 0x100; ++bits) {
    const auto x = static_cast<uint8_t>(bits);
    const float wide = f8_to_float(x);
    if ((bits & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(wide)) << bits;
      EXPECT_TRUE(std::isnan(f8_to_float(float_to_f8(wide)))) << bits;
      continue;
    }
    // Exponent 15 is one of numbers here: written out, since by_definition() takes it for infinities.
    const uint32_t mantissa = bits & 7u, exponent = bits >> 3 & 15u;
    const double size = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, static_cast<int>(exponent) - 10);
    EXPECT_EQ(static_cast<double>(wide), bits >= 0x80 ? -size : size) << bits;
    EXPECT_EQ(std::signbit(wide), bits >= 0x80) << bits;
    EXPECT_EQ(float_to_f8(wide), x) << bits;
  }
  EXPECT_EQ(f8_to_float(0x7E), 448.0f);
  EXPECT_EQ(f8_to_float(0x01), 0x1p-9f);
}

TEST(F8, NarrowingGoesToTheNearestAndTiesToEven) {
  for (uint8_t x = 0; x < 0x7E; ++x) {
    const auto next = static_cast<uint8_t>(x + 1), even = x % 2 == 0 ? x : next;
    const float middle = (f8_to_float(x) + f8_to_float(next)) / 2;  // Exact.
    EXPECT_EQ(float_to_f8(middle), even) << int{x};
    EXPECT_EQ(float_to_f8(std::nextafter(middle, 0.0f)), x) << int{x};
    EXPECT_EQ(float_to_f8(std::nextafter(middle, kInfinity)), next) << int{x};
    EXPECT_EQ(float_to_f8(-middle), even | 0x80) << int{x};
  }
}

TEST(F8, WhatIsTooLargeBecomesTheLargestAndNanStays) {
  for (const float x : {448.0f, 464.0f, 1e6f, std::numeric_limits<float>::max(), kInfinity}) {
    EXPECT_EQ(float_to_f8(x), 0x7E) << x;
    EXPECT_EQ(float_to_f8(-x), 0xFE) << x;
  }
  for (const uint32_t nan : {0x7F800001u, 0x7FC00000u, 0xFFFFFFFFu, 0xFF800001u})
    EXPECT_TRUE(std::isnan(f8_to_float(float_to_f8(std::bit_cast<float>(nan))))) << nan;
  EXPECT_EQ(float_to_f8(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(float_to_f8(-0.0f), 0x80);
}

}  // namespace
}  // namespace minillm
