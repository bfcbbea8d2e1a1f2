// activate.cuh - SiLU and the tanh form of GELU. Source: Hendrycks & Gimpel 2016, arXiv:1606.08415.
#pragma once

#include <cmath>

namespace minillm::cuda {

__device__ __forceinline__ float activate(float x, bool gelu) {
  if (!gelu) return x / (1.0f + expf(-x));
  return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

}  // namespace minillm::cuda
