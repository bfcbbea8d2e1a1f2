// crc64.cpp - eight bytes at a time: table k holds the remainders of a byte that is followed by k zero bytes.
// Source: Kounavis & Berry 2005, "A systematic approach to building high performance, software-based, CRC generators".
#include "base/crc64.h"

#include <array>
#include <cstring>

namespace minillm {
namespace {

constexpr uint64_t kPolynomial = 0xC96C5795D7870F42;  // Bits reversed.

using Tables = std::array<std::array<uint64_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables tables{};
  for (uint64_t byte = 0; byte < 256; ++byte) {
    uint64_t remainder = byte;
    for (int bit = 0; bit < 8; ++bit) remainder = (remainder >> 1) ^ ((remainder & 1) != 0 ? kPolynomial : 0);
    tables[0][byte] = remainder;
  }
  for (size_t k = 1; k < tables.size(); ++k)
    for (size_t byte = 0; byte < 256; ++byte) tables[k][byte] = (tables[k - 1][byte] >> 8) ^ tables[0][tables[k - 1][byte] & 0xFF];
  return tables;
}

constexpr Tables kTables = make_tables();

}  // namespace

void Crc64::update(std::span<const std::byte> bytes) noexcept {
  uint64_t state = state_;
  while (bytes.size() >= 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data(), 8);
    word ^= state;
    state = 0;
    for (size_t k = 0; k < 8; ++k) state ^= kTables[7 - k][(word >> (8 * k)) & 0xFF];
    bytes = bytes.subspan(8);
  }
  for (const std::byte byte : bytes) state = (state >> 8) ^ kTables[0][(state ^ static_cast<uint64_t>(byte)) & 0xFF];
  state_ = state;
}

}  // namespace minillm
