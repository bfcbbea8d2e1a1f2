// dense_product.h - out[T, N] = x[T, K] w[N, K]^T for plain types, by cuBLASLt, with float32 sums.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/buffer.h"
#include "backend/cuda_sizes.h"
#include "minillm/types.h"

namespace minillm::cuda {

class DenseProduct {
 public:
  struct Shape {
    Dtype dtype = Dtype::kF32;      ///< Of x and w: kF32, kF16, kBF16.
    Dtype out_dtype = Dtype::kF32;  ///< kF32, or kBF16 where x and w are.
    int64_t n_tokens = 0, n = 0, k = 0;
    int64_t out_stride = 0;  ///< Elements between rows of out.
    bool add = false;        ///< out += instead of out =.
    bool operator==(const Shape&) const = default;
  };

  /// `workspace` holds kDenseWorkspaceBytes of device memory.
  explicit DenseProduct(Buffer workspace);
  ~DenseProduct();
  DenseProduct(const DenseProduct&) = delete;
  DenseProduct& operator=(const DenseProduct&) = delete;

  void run(void* out, const void* x, const void* w, const Shape& shape, cudaStream_t stream);

 private:
  struct Plan;
  const Plan& plan(const Shape& shape);

  cublasLtHandle_t handle_ = nullptr;
  Buffer workspace_;
  std::vector<std::unique_ptr<Plan>> plans_;  ///< Of the shapes met last, oldest first.
};

}  // namespace minillm::cuda
