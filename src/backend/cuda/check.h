// check.h - every CUDA call and launch is checked; a failure is Error{kDevice} that names the call.
#pragma once

#include <cuda_runtime_api.h>

#include "minillm/error.h"

namespace minillm::cuda {

inline void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw Error(ErrorCode::kDevice, call, ": ", cudaGetErrorString(status));
}

}  // namespace minillm::cuda

/// Also after every launch: MINILLM_CUDA(cudaGetLastError()).
#define MINILLM_CUDA(call) ::minillm::cuda::check((call), #call)
