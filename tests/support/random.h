// random.h - seeded random numbers for tests: the same on every machine and standard library.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "minillm/types.h"

namespace minillm::test {

/// SplitMix64 (Steele et al. 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() noexcept {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  double uniform() noexcept { return static_cast<double>(bits() >> 11) * 0x1p-53; }  ///< [0, 1)
  int64_t below(int64_t n) noexcept { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }
  double normal() noexcept { return std::sqrt(-2.0 * std::log(1.0 - uniform())) * std::cos(6.283185307179586 * uniform()); }

 private:
  uint64_t state_;
};

/// `n` normal values with standard deviation `spread`.
inline std::vector<float> randn(uint64_t seed, int64_t n, double spread = 1.0) {
  Random random(seed);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = static_cast<float>(spread * random.normal());
  return values;
}

/// `n` token ids below `vocab`.
inline std::vector<TokenId> random_ids(uint64_t seed, int64_t n, int64_t vocab) {
  Random random(seed);
  std::vector<TokenId> ids(static_cast<size_t>(n));
  for (TokenId& id : ids) id = static_cast<TokenId>(random.below(vocab));
  return ids;
}

}  // namespace minillm::test
