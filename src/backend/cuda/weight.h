// weight.h - a packed weight in GPU memory: tensors of any type stacked along N, each in the layout of operations.h.
#pragma once

#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/operations.h"

namespace minillm::cuda {

class CudaWeight : public PackedWeight {
 public:
  CudaWeight(int64_t rows, int64_t cols) : PackedWeight(rows, cols) {}
  int64_t bytes() const noexcept override;

  std::vector<DeviceTensor> tensors;
  std::vector<Buffer> buffers;  ///< What the tensors point to.
};

/// Throws Error{kInvalidArgument} where another backend packed `w`.
const CudaWeight& own(const PackedWeight& w);

/// Uploads `tensors` through `backend`. Errors as Backend::pack.
std::unique_ptr<CudaWeight> pack_weight(Backend& backend, std::span<const ConstTensorView> tensors, std::optional<Dtype> convert_to);

}  // namespace minillm::cuda
