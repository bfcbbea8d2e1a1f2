// launch.cuh - launches whose beginning overlaps the end of the kernel before (programmatic dependent launch, sm_90).
// A kernel launched so may run before its predecessor has finished: it reads nothing that a kernel wrote, and writes nothing, before
// wait_for_predecessor(), which every block calls. Weights never change: their first loads go in front of the wait.
// Source: CUDA C++ programming guide, "Programmatic Dependent Launch and Synchronization". Below sm_90 both calls are nothing.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

#include "backend/cuda/check.h"

namespace minillm::cuda {

__device__ __forceinline__ void wait_for_predecessor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// The next kernel's blocks may come in as soon as there is room for them.
__device__ __forceinline__ void let_successor_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/// Reads every line of a kernel's parameters, which are in no cache at its start: before the wait that costs nothing.
template <typename Parameters>
__device__ __forceinline__ void touch_parameters(const Parameters& p) {
  const auto* words = reinterpret_cast<const uint32_t*>(&p);
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(Parameters) / 4); i += 16) asm volatile("" ::"r"(words[i]));
}

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;
  MINILLM_CUDA(cudaLaunchKernelEx(&config, kernel, Parameters(std::forward<Arguments>(arguments))...));
}

/// Lets a kernel use `shared` bytes of dynamic shared memory; more than 48 KiB, its static ones included, must be asked for. Once for each
/// kernel and size.
template <typename Kernel>
void allow_shared(Kernel kernel, size_t shared) {
  if (shared > 40 * 1024) MINILLM_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
}

}  // namespace minillm::cuda
