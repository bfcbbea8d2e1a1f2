// crc64_test.cpp - CRC-64/XZ against its published check value and a plain division, however the bytes are cut.
#include "base/crc64.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace minillm {
namespace {

/// Bit by bit, as the definition says.
uint64_t plain_crc(std::span<const std::byte> bytes) {
  uint64_t state = ~uint64_t{0};
  for (const std::byte byte : bytes) {
    state ^= static_cast<uint64_t>(byte);
    for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ ((state & 1) != 0 ? 0xC96C5795D7870F42 : 0);
  }
  return ~state;
}

TEST(Crc64, GivesThePublishedCheckValue) {
  const std::string digits = "123456789";
  Crc64 crc;
  crc.update(std::as_bytes(std::span(digits)));
  EXPECT_EQ(crc.value(), 0x995DC9BBDF1939FA);
  EXPECT_EQ(Crc64().value(), 0u);
}

TEST(Crc64, IsTheSameHoweverTheBytesAreCut) {
  std::vector<std::byte> bytes(1000);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * i * 7 + i / 3);
  const uint64_t expected = plain_crc(bytes);
  for (const size_t cut : {0u, 1u, 7u, 8u, 9u, 500u, 999u, 1000u}) {
    Crc64 crc;
    crc.update(std::span(bytes).first(cut));
    crc.update(std::span(bytes).subspan(cut));
    EXPECT_EQ(crc.value(), expected) << cut;
  }
}

}  // namespace
}  // namespace minillm
