// layer_view_test.cpp - what a layer shows, by the tables of the four transformers layer classes. The replay of 2,000 recorded sequences is
// in tests/python/test_cache_replay.py.
#include "kv/layer_view.h"

#include <gtest/gtest.h>

#include "kv/tiny_cache.h"

namespace minillm {
namespace {

using namespace test;

void expect_shown(const LayerView& view, int64_t seen, int64_t n_new, int64_t first, int64_t n, int64_t width) {
  const TokenRange range = view.shown(seen, n_new);
  EXPECT_EQ(range.first, first) << seen << " + " << n_new;
  EXPECT_EQ(range.n, n) << seen << " + " << n_new;
  EXPECT_EQ(range.width, width) << seen << " + " << n_new;
  if (n_new > 0 && n_new != 1) {  // A mask is made for exactly what update() returns.
    EXPECT_EQ(view.mask_sizes(seen, n_new).first, width) << seen << " + " << n_new;
  }
}

TEST(LayerView, DynamicLayersShowEveryToken) {
  const LayerView view;
  expect_shown(view, 0, 3, 0, 3, 3);
  expect_shown(view, 5, 1, 0, 6, 6);
  EXPECT_EQ(view.mask_sizes(5, 2), (std::pair<int64_t, int64_t>{7, 0}));
  EXPECT_EQ(view.get_max_length(), -1);
}

TEST(LayerView, DynamicSlidingLayersShowTheWindowLessOneAndTheNewTokens) {
  const LayerView view{.window = 4};
  expect_shown(view, 0, 9, 0, 9, 9);
  expect_shown(view, 2, 2, 0, 4, 4);
  expect_shown(view, 9, 2, 6, 5, 5);
  EXPECT_EQ(view.mask_sizes(9, 2), (std::pair<int64_t, int64_t>{5, 6}));
  EXPECT_EQ(view.get_max_length(), 4);
}

TEST(LayerView, StaticLayersShowTheWholeBuffer) {
  const LayerView view{.max_length = 8};
  expect_shown(view, 0, 3, 0, 3, 8);
  expect_shown(view, 3, 5, 0, 8, 8);
  EXPECT_EQ(view.mask_sizes(3, 1), (std::pair<int64_t, int64_t>{8, 0}));
  EXPECT_EQ(view.get_max_length(), 8);
}

TEST(LayerView, StaticSlidingLayersShowARing) {
  const LayerView view{.max_length = 32, .window = 4};
  expect_shown(view, 0, 3, 0, 3, 4);  // Filling: the buffer.
  expect_shown(view, 3, 3, 0, 6, 6);  // Overflowing: every token.
  expect_shown(view, 6, 1, 3, 4, 4);  // Full, one token: the ring.
  expect_shown(view, 6, 3, 3, 6, 6);  // Full, more: the ring less one, and the new.
  EXPECT_EQ(view.mask_sizes(6, 1), (std::pair<int64_t, int64_t>{4, 3}));
  EXPECT_EQ(view.get_max_length(), 4);
  EXPECT_EQ((LayerView{.max_length = 3, .window = 4}).get_max_length(), 3);
}

TEST(LayerView, APreallocatedCacheShowsZerosBehindItsTokensAndItsLayersSlideAsTheConfigSays) {
  ModelConfig config = tiny_config();
  config.sliding_window = 4;
  config.sliding_pattern = 2;
  KVCache cache(config, {.max_length = 6, .device = kReference, .dtype = Dtype::kF32});
  const Tensor k = random_tensor(1, {1, kHeads, 5, kDim});
  EXPECT_EQ(cache.update(k, k, 0).first.dim(2), 5);  // Slides, and overflows its ring of 4.
  const Tensor keys = cache.update(k, k, 1).first;
  ASSERT_EQ(keys.dim(2), 6);
  EXPECT_EQ(keys.values<float>()[0], k.values<float>()[0]);
  EXPECT_EQ(keys.values<float>()[5 * kDim], 0.0f);
  EXPECT_TRUE(cache.is_sliding(0));
  EXPECT_FALSE(cache.is_sliding(1));
  EXPECT_TRUE(cache.is_preallocated());
  EXPECT_EQ(cache.n_layers(), kLayers);
  EXPECT_EQ(cache.get_max_length(0), 4);
  EXPECT_EQ(cache.get_max_length(), 6);
  EXPECT_THROW(cache.get_max_length(kLayers), Error);
  EXPECT_THROW(cache.is_sliding(-1), Error);
}

}  // namespace
}  // namespace minillm
