// cost_model.cpp - see cost_model.h.
#include "cost_model.h"

#include <algorithm>

namespace minillm::cli {
namespace {

/// Keys that the queries at positions [begin, end) see in total, with `window` newest tokens visible (0: all).
double visible_keys(int64_t begin, int64_t end, int64_t window) {
  const auto triangle = [](int64_t n) { return 0.5 * static_cast<double>(n) * static_cast<double>(n + 1); };  // 1 + 2 + ... + n
  if (window == 0) return triangle(end) - triangle(begin);
  const int64_t split = std::clamp(window, begin, end);  // Queries from here on see a full window.
  return triangle(split) - triangle(begin) + static_cast<double>(end - split) * static_cast<double>(window);
}

}  // namespace

WeightCost weight_cost(const ModelConfig& config, double weight_bytes, double embedding_bytes) {
  WeightCost cost;
  cost.head_parameters = static_cast<double>(config.vocab_size) * static_cast<double>(config.hidden_size);
  const double tables = config.tied_embeddings ? 1 : 2;
  cost.body_parameters = static_cast<double>(config.n_parameters()) - tables * cost.head_parameters;
  cost.last_parameters = static_cast<double>(config.hidden_size) * static_cast<double>(config.q_size() + 3 * config.ffn_size);
  cost.product_bytes = weight_bytes - (config.tied_embeddings ? 0 : embedding_bytes);
  return cost;
}

PassCost pass_cost(const ModelConfig& config, const WeightCost& weights, int64_t n_tokens, int64_t depth, int64_t batch) {
  const double rows = static_cast<double>(batch);
  const double kv_element = config.kv_dtype == Dtype::kF32 ? 4 : config.kv_dtype == Dtype::kF8 ? 1 : 2;
  const double token_bytes = 2 * static_cast<double>(config.kv_size()) * kv_element;  // K and V of one token in one layer.
  PassCost cost;
  cost.bytes = weights.product_bytes;
  const double for_all = weights.body_parameters - weights.last_parameters, for_last = weights.last_parameters + weights.head_parameters;
  cost.flops = 2 * rows * (for_all * static_cast<double>(n_tokens) + for_last);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    const int64_t window = config.layer_slides(layer) ? config.sliding_window : 0;
    const int64_t context = depth + n_tokens;
    const int64_t read = window > 0 ? std::min(context, window + n_tokens - 1) : context;
    cost.bytes += rows * token_bytes * static_cast<double>(read + n_tokens);
    cost.flops += rows * 4 * static_cast<double>(config.q_size()) * visible_keys(depth, context, window);
  }
  return cost;
}

}  // namespace minillm::cli
