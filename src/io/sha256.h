// sha256.h - SHA-256 of a stream of bytes: how a download proves that it is what it should be.
// Source:  FIPS 180-4, sections 5 and 6.2.   Cost: plain C++, about 4 ns a byte.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace minillm {

class Sha256 {
 public:
  void update(std::span<const std::byte> bytes) noexcept;
  /// The digest as 64 lower-case hexadecimal digits; nothing may be added afterwards.
  std::string hex() noexcept;

 private:
  void compress(const std::byte* block) noexcept;

  std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> pending_{};
  size_t n_pending_ = 0;
  uint64_t n_bytes_ = 0;
};

}  // namespace minillm
