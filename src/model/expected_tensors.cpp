// expected_tensors.cpp - which tensors a model of a given config has, and their shapes.
#include "model/expected_tensors.h"

namespace minillm {

std::vector<int64_t> layer_tensor_shape(const ModelConfig& config, LayerTensor tensor) {
  const int64_t hidden = config.hidden_size, q = config.q_size(), kv = config.kv_size(), ffn = config.ffn_size;
  switch (tensor) {
    case LayerTensor::kAttentionNorm:
    case LayerTensor::kPostAttentionNorm:
    case LayerTensor::kFfnNorm:
    case LayerTensor::kPostFfnNorm:
      return {hidden};
    case LayerTensor::kQ:
      return {q, hidden};
    case LayerTensor::kK:
    case LayerTensor::kV:
      return {kv, hidden};
    case LayerTensor::kQBias:
      return {q};
    case LayerTensor::kKBias:
    case LayerTensor::kVBias:
      return {kv};
    case LayerTensor::kQNorm:
    case LayerTensor::kKNorm:
      return {config.head_dim};
    case LayerTensor::kAttentionOutput:
      return {hidden, q};
    case LayerTensor::kGate:
    case LayerTensor::kUp:
      return {ffn, hidden};
    case LayerTensor::kDown:
      return {hidden, ffn};
  }
  return {};
}

std::vector<LayerTensor> layer_tensors(const ModelConfig& config) {
  using enum LayerTensor;
  struct Part {
    LayerTensor tensor;
    bool present;
  };
  const bool bias = config.qkv_bias, qk_norm = config.qk_norm, post = config.post_norms;
  const Part parts[] = {{kAttentionNorm, true},
                        {kQ, true},
                        {kK, true},
                        {kV, true},
                        {kQBias, bias},
                        {kKBias, bias},
                        {kVBias, bias},
                        {kQNorm, qk_norm},
                        {kKNorm, qk_norm},
                        {kAttentionOutput, true},
                        {kPostAttentionNorm, post},
                        {kFfnNorm, true},
                        {kGate, true},
                        {kUp, true},
                        {kDown, true},
                        {kPostFfnNorm, post}};
  std::vector<LayerTensor> tensors;
  for (const Part& part : parts)
    if (part.present) tensors.push_back(part.tensor);
  return tensors;
}

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config, const TensorNames& names) {
  std::vector<ExpectedTensor> tensors{{names.embedding(), {config.vocab_size, config.hidden_size}}};
  for (int64_t i = 0; i < config.n_layers; ++i)
    for (LayerTensor tensor : layer_tensors(config)) tensors.push_back({names.layer(i, tensor), layer_tensor_shape(config, tensor)});
  tensors.push_back({names.final_norm(), {config.hidden_size}});
  if (!config.tied_embeddings) tensors.push_back({names.output(), {config.vocab_size, config.hidden_size}});
  return tensors;
}

}  // namespace minillm
