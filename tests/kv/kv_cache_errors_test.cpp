// kv_cache_errors_test.cpp - what KVCache refuses, with which code, and that a refused call changes nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "kv/paged_cache.h"
#include "kv/tiny_cache.h"
#include "minillm/error.h"

namespace minillm {
namespace {

using namespace test;

TEST(KVCacheErrors, RefusesTokensPastItsLengthAndStaysAsItWas) {
  for (const int64_t max_length : {0, 20}) {  // 0: the context, which is 20 too.
    KVCache cache(tiny_config(20), {.batch_size = 2, .max_length = max_length, .device = kReference, .dtype = Dtype::kF32});
    const Tensor most = random_tensor(1, {2, kHeads, 18, kDim}), three = random_tensor(2, {2, kHeads, 3, kDim});
    const Tensor before = cache.update(most, most, 1).first;
    const int64_t bytes = cache.bytes();
    try {
      cache.update(three, three, 1);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCapacity) << error.what();
    }
    EXPECT_EQ(cache.get_seq_length(1), 18);
    EXPECT_EQ(cache.get_seq_length(0), 0);
    EXPECT_EQ(cache.bytes(), bytes);
    const Tensor none({2, kHeads, 0, kDim});
    const Tensor after = cache.update(none, none, 1).first;
    EXPECT_TRUE(std::ranges::equal(before.values<float>(), after.values<float>()));
    const Tensor two = random_tensor(3, {2, kHeads, 2, kDim});
    cache.update(two, two, 1);
    EXPECT_EQ(cache.get_seq_length(1), 20);
  }
}

TEST(KVCacheErrors, RefusesWrongTensorsLayersAndRows) {
  KVCache cache(tiny_config(), {.batch_size = 2, .device = kReference});
  const Tensor good({2, kHeads, 3, kDim});
  const std::vector<std::vector<int64_t>> bad_shapes = {
      {1, kHeads, 3, kDim}, {2, kHeads + 1, 3, kDim}, {2, kHeads, 3, kDim - 1}, {2, kHeads, 3 * kDim}, {2, kHeads, 4, kDim}};
  for (const auto& shape : bad_shapes) EXPECT_THROW(cache.update(good, Tensor(shape), 0), Error);
  for (size_t i = 0; i + 1 < bad_shapes.size(); ++i) EXPECT_THROW(cache.update(Tensor(bad_shapes[i]), Tensor(bad_shapes[i]), 0), Error);
  const Tensor integers({2, kHeads, 3, kDim}, Dtype::kI32);
  EXPECT_THROW(cache.update(integers, integers, 0), Error);
  for (int64_t layer : {int64_t{-1}, kLayers}) {
    EXPECT_THROW(cache.update(good, good, layer), Error);
    EXPECT_THROW(cache.read(layer, 0), Error);
    EXPECT_THROW(cache.get_seq_length(layer), Error);
    EXPECT_THROW(cache.get_mask_sizes(1, layer), Error);
  }
  EXPECT_THROW(cache.get_mask_sizes(-1), Error);
  EXPECT_THROW(cache.read(0, 2), Error);
  EXPECT_THROW(cache.reorder_cache(std::vector<int64_t>{0, 2}), Error);
  EXPECT_THROW(cache.batch_select_indices(std::vector<int64_t>{-1}), Error);
  EXPECT_THROW(cache.batch_select_indices({}), Error);
  EXPECT_THROW(cache.batch_repeat_interleave(0), Error);
  EXPECT_THROW(cache.batch_repeat_interleave(INT64_MAX), Error);
  EXPECT_EQ(cache.lengths(), (std::vector<int64_t>{0, 0}));
  cache.paged().reserve(1, 1);
  cache.paged().advance(1, 1);
  EXPECT_THROW(cache.update(good, good, 0), Error);  // Rows of unequal length.
}

TEST(KVCacheErrors, RefusesSizesItCannotHold) {
  const auto code_of = [](const ModelConfig& config, const KVCacheOptions& options) {
    try {
      KVCache cache(config, options);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kInternal;
  };
  const ModelConfig config = tiny_config();
  for (int64_t page_tokens : {0, 8, 40, 2048, -16})
    EXPECT_EQ(code_of(config, {.device = kReference, .page_tokens = page_tokens}), ErrorCode::kInvalidArgument) << page_tokens;
  for (int64_t batch_size : {int64_t{0}, int64_t{-1}, INT64_MAX})
    EXPECT_EQ(code_of(config, {.batch_size = batch_size, .device = kReference}), ErrorCode::kInvalidArgument) << batch_size;
  for (int64_t max_length : {int64_t{-1}, INT64_MAX})
    EXPECT_EQ(code_of(config, {.max_length = max_length, .device = kReference}), ErrorCode::kInvalidArgument) << max_length;
  for (Dtype dtype : {Dtype::kQ8_0, Dtype::kI32})
    EXPECT_EQ(code_of(config, {.device = kReference, .dtype = dtype}), ErrorCode::kUnsupported);
  ModelConfig bad = config;
  bad.n_kv_heads = 0;
  EXPECT_EQ(code_of(bad, {.device = kReference}), ErrorCode::kInvalidArgument);
  bad = config;
  bad.context_length = 0;
  EXPECT_EQ(code_of(bad, {.device = kReference}), ErrorCode::kInvalidArgument);
  bad = config;
  bad.head_dim = bad.n_kv_heads = bad.n_layers = int64_t{1} << 24;
  EXPECT_EQ(code_of(bad, {.device = kReference}), ErrorCode::kOutOfMemory);
}

}  // namespace
}  // namespace minillm
