// driver.h - the few driver calls that the runtime does not offer, found at run time so that nothing links the driver library.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "minillm/error.h"

namespace minillm::cuda {

struct Driver {
  decltype(&cuMemGetAllocationGranularity) granularity;
  decltype(&cuMemAddressReserve) reserve;
  decltype(&cuMemAddressFree) free_addresses;
  decltype(&cuMemCreate) create;
  decltype(&cuMemRelease) release;
  decltype(&cuMemMap) map;
  decltype(&cuMemUnmap) unmap;
  decltype(&cuMemSetAccess) set_access;
  decltype(&cuTensorMapEncodeTiled) encode_map;
};

/// Throws Error{kDevice} naming an entry point that this driver lacks.
const Driver& driver();

inline void check_driver(CUresult status, const char* call) {
  if (status != CUDA_SUCCESS) throw Error(ErrorCode::kDevice, call, ": driver error ", static_cast<int>(status));
}

/// A map of 16-bit elements for the copy engine (device/tma.cuh): dimensions sizes[0] (contiguous) to sizes[3], strides of the others in
/// elements, boxes of 64 x 1 x 1 x 1 but for `rows` along dimension `row_dim`. is_read_once: boxes come from device memory at its full
/// speed, for which the L2 cache must not fetch more than it is asked for (256 bytes at a time cost 5% of it).
CUtensorMap box_map(const void* data, const int64_t (&sizes)[4], const int64_t (&strides)[3], int row_dim, int rows,
                    bool is_read_once = false);

}  // namespace minillm::cuda

#define MINILLM_DRIVER(call) ::minillm::cuda::check_driver((call), #call)
