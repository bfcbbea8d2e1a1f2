// tiny_cache.h - the small configuration that the tests of KVCache share.
#pragma once

#include <utility>
#include <vector>

#include "minillm/kv_cache.h"
#include "support/random.h"

namespace minillm::test {

inline constexpr int64_t kLayers = 3, kHeads = 2, kDim = 4;
inline constexpr Device kReference{Device::Kind::kReference, 0};

inline ModelConfig tiny_config(int64_t context = 512) {
  ModelConfig config;
  config.n_layers = kLayers;
  config.hidden_size = 16;
  config.n_heads = 4;
  config.n_kv_heads = kHeads;
  config.head_dim = kDim;
  config.ffn_size = 16;
  config.vocab_size = 32;
  config.context_length = context;
  return config;
}

inline Tensor random_tensor(uint64_t seed, std::vector<int64_t> shape) {
  int64_t n = 1;
  for (int64_t size : shape) n *= size;
  return Tensor::from_values(randn(seed, n), std::move(shape));
}

}  // namespace minillm::test
