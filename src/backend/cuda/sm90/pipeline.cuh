// pipeline.cuh - a ring of shared-memory stages between one producer and several consumers.
// A stage is full when its bytes have arrived, empty when every consumer has let go of it. Both sides walk the ring with a
// Cursor: the stage, and the parity that flips each time round. A producer's first round finds every stage empty.
#pragma once

#include "backend/cuda/device/barrier.cuh"

namespace minillm::cuda::sm90 {

template <int kStages>
struct Cursor {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

template <int kStages>
struct Pipeline {
  Barrier full[kStages], empty[kStages];

  __device__ __forceinline__ void init(uint32_t n_consumer_arrivals) {
    for (int i = 0; i < kStages; ++i) {
      full[i].init(1);
      empty[i].init(n_consumer_arrivals);
    }
  }
  __device__ __forceinline__ void wait_empty(const Cursor<kStages>& at) { empty[at.stage].wait(at.parity ^ 1); }
  __device__ __forceinline__ void wait_full(const Cursor<kStages>& at) { full[at.stage].wait(at.parity); }
  __device__ __forceinline__ void release(const Cursor<kStages>& at) { empty[at.stage].arrive(); }
};

}  // namespace minillm::cuda::sm90
