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

CUtensorMap box_map(const void* data, const int64_t (&sizes)[4], const int64_t (&strides)[3], int row_dim, int rows, bool is_read_once) {
  CUtensorMap map;
  cuuint64_t dims[4], bytes[3];
  cuuint32_t box[4] = {64, 1, 1, 1}, unit[4] = {1, 1, 1, 1};
  for (int i = 0; i < 4; ++i) dims[i] = static_cast<cuuint64_t>(sizes[i]);
  for (int i = 0; i < 3; ++i) bytes[i] = static_cast<cuuint64_t>(strides[i]) * 2;
  box[row_dim] = static_cast<cuuint32_t>(rows);
  MINILLM_DRIVER(driver().encode_map(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<void*>(data), dims, bytes, box, unit,
                                     CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                     is_read_once ? CU_TENSOR_MAP_L2_PROMOTION_NONE : CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                     CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
  return map;
}

}  // namespace minillm::cuda
