// random_values.h - normal values as a function of (seed, stream, index): no state, the same whatever is asked for first.
// Method: SplitMix64's mixing function (Steele et al. 2014, doi:10.1145/2660193.2660195) gives 64 bits for every four values;
//         16 bits each choose one of 65,536 equally likely quantiles of the normal distribution (largest 4.17 deviations).
// Cost:   about 1 ns a value, so that a model of a billion random weights is there in seconds.
#pragma once

#include <cstdint>
#include <span>

namespace minillm {

void fill_normal(std::span<float> out, uint64_t seed, uint64_t stream, float spread);

}  // namespace minillm
