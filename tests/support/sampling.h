// sampling.h - options of a request by what its tokens are drawn from.
#pragma once

#include "minillm/engine.h"

namespace minillm::test {

inline GenerationOptions with(float temperature, int64_t top_k = 0, float top_p = 1.0f, float min_p = 0.0f) {
  GenerationOptions options;
  options.temperature = temperature;
  options.top_k = top_k;
  options.top_p = top_p;
  options.min_p = min_p;
  return options;
}

}  // namespace minillm::test
