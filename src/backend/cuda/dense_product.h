// dense_product.h - out[T, N] = x[T, K] w[N, K]^T for plain types, by cuBLASLt, with float32 sums.
#pragma once

#include <cublasLt.h>

#include <cstdint>

#include "backend/buffer.h"
#include "minillm/types.h"

namespace minillm::cuda {

class DenseProduct {
 public:
  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;  ///< What NVIDIA advises for Hopper.

  /// `workspace` holds kWorkspaceBytes of device memory.
  explicit DenseProduct(Buffer workspace);
  ~DenseProduct();
  DenseProduct(const DenseProduct&) = delete;
  DenseProduct& operator=(const DenseProduct&) = delete;

  /// x and w are both `dtype` (kF32, kF16, kBF16); out is float32 with rows `out_stride` apart.
  void run(float* out, int64_t out_stride, const void* x, const void* w, Dtype dtype, int64_t n_tokens, int64_t n, int64_t k,
           cudaStream_t stream);

 private:
  cublasLtHandle_t handle_ = nullptr;
  Buffer workspace_;
};

}  // namespace minillm::cuda
