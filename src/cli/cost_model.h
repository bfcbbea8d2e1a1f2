// cost_model.h - what a forward pass must cost on any engine: the bytes it has to read and the operations it has to do.
// The rates that `bench` prints are these divided by the measured time, so a wasteful kernel shows as a low rate.
//   bytes   every weight that takes part in products, once a pass, as the file stores it (the embedding table only where it is
//           also the output head: otherwise a pass looks up a few rows); the keys and values of each sequence's context, read
//           once a pass; the new ones, written once. Activations stay in cache and are left out.
//   flops   2 for each weight of a product and token (the head, and in the last layer what follows attention, only for tokens whose
//           logits are wanted), and 4 D for each query head, key that the query sees, and layer: D multiply-adds for the score and D
//           for the value. A multiply-add is 2.
#pragma once

#include <cstdint>

#include "minillm/config.h"

namespace minillm::cli {

struct PassCost {
  double bytes = 0, flops = 0;
  PassCost& operator+=(const PassCost& other) {
    bytes += other.bytes;
    flops += other.flops;
    return *this;
  }
};

/// Sizes of a model's weights that a pass reads.
struct WeightCost {
  double product_bytes = 0;    ///< All weights of products, the head included.
  double body_parameters = 0;  ///< Weights of products without the head.
  double head_parameters = 0;
  double last_parameters = 0;  ///< Of the body's: what follows attention in the last layer.
};

/// `weight_bytes` and `embedding_bytes` are as stored; the embedding's count only if it is the head, too.
WeightCost weight_cost(const ModelConfig& config, double weight_bytes, double embedding_bytes);

/// One pass of `n_tokens` new tokens in each of `batch` sequences that hold `depth` tokens, logits of the last one wanted.
PassCost pass_cost(const ModelConfig& config, const WeightCost& weights, int64_t n_tokens, int64_t depth, int64_t batch);

}  // namespace minillm::cli
