// kv_storage.h - pages of keys and values in GPU memory.
// Layout:  a page is [layer][K|V][head][token][D] in the cache's dtype.
// Memory:  the address range of all pages is reserved once; commit() maps physical memory behind its beginning, 2 MiB at a time, so
//          addresses never change and captured graphs stay valid. Source: CUDA driver API, virtual memory management.
#pragma once

#include <cuda.h>

#include <vector>

#include "backend/cuda/operations.h"
#include "backend/kv_storage.h"

namespace minillm::cuda {

class CudaKvStorage : public KvStorage {
 public:
  /// Throws Error{kInvalidArgument} for a page size or dtype it cannot hold, Error{kOutOfMemory} without address space.
  CudaKvStorage(const KvShape& shape, int device, cudaStream_t stream);
  ~CudaKvStorage() override;
  CudaKvStorage(const CudaKvStorage&) = delete;
  CudaKvStorage& operator=(const CudaKvStorage&) = delete;

  void commit(int64_t n_pages) override;
  void copy_page(int32_t from, int32_t to) override;
  void write(int64_t layer, int32_t page, int64_t slot, ConstTensorView k, ConstTensorView v) override;
  void read(int64_t layer, int32_t page, int64_t slot, TensorView k, TensorView v) const override;
  int64_t bytes() const noexcept override { return committed_bytes_; }

  KeyLayout layout(int64_t layer) const;

 private:
  std::byte* at(int64_t layer, int32_t page, int part, int64_t head, int64_t slot) const;

  int device_;
  cudaStream_t stream_;
  size_t granularity_ = 0, reserved_ = 0, mapped_ = 0;
  CUdeviceptr base_ = 0;
  std::vector<CUmemGenericAllocationHandle> chunks_;  ///< One for each granularity_ mapped.
  int64_t committed_bytes_ = 0;
};

}  // namespace minillm::cuda
