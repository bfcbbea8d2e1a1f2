// draw.h - how the next token of a row is taken, for devices that choose tokens themselves.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace minillm {

/// The rules of engine/sampler.h, without penalties.
struct Draw {
  double uniform = 0;     ///< In [0, 1).
  float temperature = 0;  ///< 0: the highest logit, the lowest id of equals.
  float top_p = 1, min_p = 0;
  int32_t top_k = 0;  ///< 0 is off.
};

/// Whether any row takes something else than its highest logit.
inline bool any_drawn(std::span<const Draw> draws) {
  return std::ranges::any_of(draws, [](const Draw& draw) { return draw.temperature > 0; });
}

}  // namespace minillm
