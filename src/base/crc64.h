// crc64.h - CRC-64 of a stream of bytes: finds every error of up to 64 bits in a row, and all others but one in 2^64.
// Not against an adversary: whoever can write a file can write its checksum.
// Source:  ECMA-182, reflected ("CRC-64/XZ": polynomial 0x42F0E1EBA9EA3693, start and end inverted).   Cost: about 0.7 ns a byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace minillm {

class Crc64 {
 public:
  void update(std::span<const std::byte> bytes) noexcept;
  uint64_t value() const noexcept { return ~state_; }

 private:
  uint64_t state_ = ~uint64_t{0};
};

}  // namespace minillm
