// cost_model_test.cpp - the bytes and operations that `bench` divides by, against counting one by one.
#include "cli/cost_model.h"

#include <gtest/gtest.h>

namespace minillm::cli {
namespace {

TEST(PassCost, CountsEveryVisibleKeyOnce) {
  ModelConfig config = Configs::small();
  config.sliding_pattern = 3;
  for (const int64_t window : {0, 1, 5, 64})
    for (const int64_t depth : {0, 3, 100})
      for (const int64_t n_tokens : {1, 4, 70}) {
        config.sliding_window = window;
        double pairs = 0;
        for (int64_t layer = 0; layer < config.n_layers; ++layer)
          for (int64_t position = depth; position < depth + n_tokens; ++position)
            pairs += static_cast<double>(config.layer_slides(layer) ? std::min(position + 1, window) : position + 1);
        const WeightCost none{};
        EXPECT_DOUBLE_EQ(pass_cost(config, none, n_tokens, depth, 2).flops, 2 * 4 * static_cast<double>(config.q_size()) * pairs)
            << window << " " << depth << " " << n_tokens;
      }
}

TEST(PassCost, CountsWhatFollowsTheLastAttentionForTheLastTokenAlone) {
  const WeightCost weights{.product_bytes = 0, .body_parameters = 100, .head_parameters = 7, .last_parameters = 30};
  const WeightCost none{};
  const ModelConfig config = Configs::small();
  const auto products = [&](int64_t n_tokens) {
    return pass_cost(config, weights, n_tokens, 0, 1).flops - pass_cost(config, none, n_tokens, 0, 1).flops;
  };
  EXPECT_DOUBLE_EQ(products(1), 2 * (100 + 7));
  EXPECT_DOUBLE_EQ(products(5), 2 * (5 * 70 + 30 + 7));
}

TEST(PassCost, ReadsTheCacheOnceAndWritesTheNewTokens) {
  const ModelConfig config = Configs::small();  // 8 layers, 8 heads of 64: K and V of a token are 2048 bytes a layer in float16.
  const WeightCost none{};
  EXPECT_DOUBLE_EQ(pass_cost(config, none, 1, 99, 1).bytes, 8 * 2048 * (100 + 1));
  EXPECT_DOUBLE_EQ(pass_cost(config, none, 1, 99, 3).bytes, 3 * 8 * 2048 * (100 + 1));
}

TEST(WeightCost, LeavesOutATableThatIsOnlyLookedUp) {
  ModelConfig config = Configs::small();
  const double table = static_cast<double>(config.vocab_size * config.hidden_size);
  EXPECT_DOUBLE_EQ(weight_cost(config, 1000, 100).product_bytes, 1000);
  EXPECT_DOUBLE_EQ(weight_cost(config, 1000, 100).head_parameters, table);
  const double body = weight_cost(config, 1000, 100).body_parameters;
  EXPECT_DOUBLE_EQ(weight_cost(config, 1000, 100).last_parameters,
                   static_cast<double>(config.hidden_size * (config.q_size() + 3 * config.ffn_size)));
  config.tied_embeddings = false;
  EXPECT_DOUBLE_EQ(weight_cost(config, 1000, 100).product_bytes, 900);
  EXPECT_DOUBLE_EQ(weight_cost(config, 1000, 100).body_parameters, body);
}

}  // namespace
}  // namespace minillm::cli
