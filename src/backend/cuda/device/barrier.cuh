// barrier.cuh - the two kinds of barrier inside a block.
//   mbarrier: a word in shared memory that counts arrivals and, for bulk copies, bytes; it flips a phase bit when both are complete.
//   named barrier: a hardware barrier among some warps; one side may arrive without waiting. Number 0 is __syncthreads.
// Source: PTX ISA 8.x, "mbarrier" and "barrier". Bulk copies and their bytes exist from sm_90 on; before, asynchronous copies arrive.
#pragma once

#include <cstdint>

#include "backend/cuda/device/mma.cuh"

namespace minillm::cuda {

/// A barrier in shared memory. Waiting needs the parity of the phase one waits for; Phase keeps it.
struct Barrier {
  uint64_t word;

  __device__ __forceinline__ void init(uint32_t arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(&word)), "r"(arrivals));
  }
  __device__ __forceinline__ void arrive() { asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(&word)) : "memory"); }
  /// One arrival once all copy16_async of this thread so far are complete.
  __device__ __forceinline__ void arrive_after_copies() {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(&word)) : "memory");
  }
  /// One arrival, and `bytes` that bulk copies will bring before the phase is complete.
  __device__ __forceinline__ void arrive_expecting(uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&word)), "r"(bytes) : "memory");
  }
  /// Whether the phase of this parity is complete.
  __device__ __forceinline__ bool test(uint32_t parity) const {
    uint32_t done;
    asm volatile(
        "{\n.reg .pred done;\n"
        "mbarrier.test_wait.parity.shared.b64 done, [%1], %2;\n"
        "selp.u32 %0, 1, 0, done;\n}"
        : "=r"(done)
        : "r"(shared_address(&word)), "r"(parity)
        : "memory");
    return done != 0;
  }
  __device__ __forceinline__ void wait(uint32_t parity) {
    asm volatile(
        "{\n.reg .pred done;\nagain:\n"
#if __CUDA_ARCH__ >= 900
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
#else
        "mbarrier.test_wait.parity.shared.b64 done, [%0], %1;\n"
#endif
        "@!done bra again;\n}" ::"r"(shared_address(&word)),
        "r"(parity)
        : "memory");
  }
};

/// Makes initialised barriers visible to the copy engine.
__device__ __forceinline__ void fence_barrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
/// Orders ordinary writes to shared memory before what the copy engine or the tensor cores read next.
__device__ __forceinline__ void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ __forceinline__ void named_sync(int id, int n_threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(n_threads) : "memory"); }
__device__ __forceinline__ void named_arrive(int id, int n_threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(n_threads) : "memory");
}

/// The first lane's `x`. Tells the compiler that a value is the same in the whole warp, so that what follows from it
/// (descriptors, stage numbers, branches) stays in uniform registers: without it every wgmma waits for three moves there.
__device__ __forceinline__ int uniform(int x) { return __shfl_sync(0xFFFFFFFFu, x, 0); }

template <int kRegisters>
__device__ __forceinline__ void give_up_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace minillm::cuda
