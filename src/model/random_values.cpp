// random_values.cpp - quantile table and mixing function.
#include "model/random_values.h"

#include <cmath>
#include <numbers>
#include <vector>

namespace minillm {
namespace {

constexpr size_t kQuantiles = 65536;

uint64_t mix(uint64_t z) noexcept {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/// table[i] solves Phi(x) = (i + 1/2) / n. Newton's method from the middle outwards, each from its neighbour; the lower half
/// mirrors the upper.
std::vector<float> make_quantiles() {
  std::vector<float> table(kQuantiles);
  double x = 0.0;
  for (size_t i = kQuantiles / 2; i < kQuantiles; ++i) {
    const double upper_tail = 1.0 - (static_cast<double>(i) + 0.5) / kQuantiles;
    for (int step = 0; step < 6; ++step) {
      const double density = std::exp(-0.5 * x * x) / std::sqrt(2.0 * std::numbers::pi);
      x += (0.5 * std::erfc(x / std::numbers::sqrt2) - upper_tail) / density;
    }
    table[i] = static_cast<float>(x);
    table[kQuantiles - 1 - i] = -table[i];
  }
  return table;
}

}  // namespace

void fill_normal(std::span<float> out, uint64_t seed, uint64_t stream, float spread) {
  static const std::vector<float> quantiles = make_quantiles();
  const uint64_t key = mix(mix(seed + 0x9E3779B97F4A7C15u) + stream);
  for (size_t i = 0; i < out.size(); i += 4) {
    uint64_t bits = mix(key + (i / 4 + 1) * 0x9E3779B97F4A7C15u);
    for (size_t j = i; j < i + 4 && j < out.size(); ++j, bits >>= 16) out[j] = spread * quantiles[bits & (kQuantiles - 1)];
  }
}

}  // namespace minillm
