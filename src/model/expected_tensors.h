// expected_tensors.h - the list of tensors that a config asks for: one place for names, shapes and presence.
#pragma once

#include <string>
#include <vector>

#include "minillm/config.h"
#include "model/tensor_names.h"

namespace minillm {

struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;  ///< [N, K] of a product, [n] of a vector.
  bool is_vector() const noexcept { return shape.size() == 1; }
};

/// Rows of a layer's tensor and, for a matrix, its columns.
std::vector<int64_t> layer_tensor_shape(const ModelConfig& config, LayerTensor tensor);
/// The tensors of one layer of `config`, in the order of the forward pass.
std::vector<LayerTensor> layer_tensors(const ModelConfig& config);
/// All of a model's tensors.
std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config, const TensorNames& names);

}  // namespace minillm
