// bytes.h - sizes: checked arithmetic on numbers that come from outside, and readable byte counts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace minillm {

/// a * b, or nothing if it does not fit.
inline std::optional<uint64_t> checked_mul(uint64_t a, uint64_t b) noexcept {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}
inline std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) noexcept {
  uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

constexpr int64_t ceil_div(int64_t n, int64_t d) noexcept { return (n + d - 1) / d; }
constexpr int64_t round_up(int64_t n, int64_t multiple) noexcept { return ceil_div(n, multiple) * multiple; }

/// "93.8 MiB", "512 B".
std::string readable_bytes(uint64_t bytes);

}  // namespace minillm
