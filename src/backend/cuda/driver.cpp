// driver.cpp - finds the driver's entry points once.
#include "backend/cuda/driver.h"

#include <cuda_runtime_api.h>

#include "backend/cuda/check.h"

namespace minillm::cuda {
namespace {

template <typename F>
void find(F& function, const char* name) {
  constexpr unsigned kVersion = 12000;  // Entry points as of CUDA 12.0.
  void* address = nullptr;
  cudaDriverEntryPointQueryResult result{};
  MINILLM_CUDA(cudaGetDriverEntryPointByVersion(name, &address, kVersion, cudaEnableDefault, &result));
  if (result != cudaDriverEntryPointSuccess || address == nullptr)
    throw Error(ErrorCode::kDevice, "cuda: the driver lacks ", name, "; expected one of CUDA 12 or newer");
  function = reinterpret_cast<F>(address);
}

}  // namespace

const Driver& driver() {
  static const Driver found = [] {
    Driver d{};
    find(d.granularity, "cuMemGetAllocationGranularity");
    find(d.reserve, "cuMemAddressReserve");
    find(d.free_addresses, "cuMemAddressFree");
    find(d.create, "cuMemCreate");
    find(d.release, "cuMemRelease");
    find(d.map, "cuMemMap");
    find(d.unmap, "cuMemUnmap");
    find(d.set_access, "cuMemSetAccess");
    find(d.encode_map, "cuTensorMapEncodeTiled");
    return d;
  }();
  return found;
}

}  // namespace minillm::cuda
