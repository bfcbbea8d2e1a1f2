// weights.h - every weight of a model on its device, checked against the config before anything is copied.
// Layout: products are packed by the backend, q/k/v stacked in one weight and gate/up in another; norms and biases are
//         float32 vectors, all in one allocation.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "backend/backend.h"
#include "io/tensor_source.h"
#include "minillm/config.h"

namespace minillm {

struct LayerWeights {
  std::unique_ptr<PackedWeight> qkv, output, gate_up, down;
  AttentionInput attention;  ///< Points at `qkv`, and at vectors of Weights.
  ConstTensorView post_attention_norm;
  FeedForward feed_forward;  ///< Points at `gate_up` and `down`.
};

struct Weights {
  std::unique_ptr<PackedWeight> embedding;
  std::unique_ptr<PackedWeight> output;  ///< Null where the head is the embedding table.
  ConstTensorView final_norm;
  std::vector<LayerWeights> layers;
  std::vector<float> rope_factors;  ///< [R/2] divisors of the rotary frequencies, or empty.
  Buffer vectors;                   ///< What the vector views point into.

  const PackedWeight& head() const noexcept { return output ? *output : *embedding; }
  int64_t bytes() const noexcept;
};

/// Throws Error{kNotFound} for a missing tensor, Error{kCorruptFile} for a wrong shape or a norm in a block format,
/// Error{kUnsupported} for a tensor that the model would not read; each names file, tensor, what was met and expected.
void check_tensors(const ModelConfig& config, const TensorSource& source);

/// Copies a file's tensors to `backend`, products in `convert_to` if given. Throws as check_tensors and Backend::pack do.
Weights load_weights(const ModelConfig& config, const TensorSource& source, Backend& backend, std::optional<Dtype> convert_to);

/// Normal values with standard deviation 0.02, norms one, biases zero; a function of `seed` and the shapes alone.
/// Stored as float32 unless `convert_to` says otherwise.
Weights random_weights(const ModelConfig& config, uint64_t seed, Backend& backend, std::optional<Dtype> convert_to);

}  // namespace minillm
