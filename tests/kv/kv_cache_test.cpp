// kv_cache_test.cpp - the transformers Cache interface, against plain vectors that follow that library's DynamicCache.
#include "minillm/kv_cache.h"

#include <gtest/gtest.h>

#include "base/half.h"
#include "kv/paged_cache.h"
#include "kv/tiny_cache.h"

namespace minillm {
namespace {

using namespace test;

/// One layer as DynamicLayer keeps it: a list of tokens a row, each [G, D].
struct PlainLayer {
  std::vector<std::vector<std::vector<float>>> k, v;  ///< [batch][token][G * D]
};

struct PlainCache {
  std::vector<PlainLayer> layers;
  explicit PlainCache(size_t batch) : layers(kLayers) {
    for (PlainLayer& layer : layers) layer.k.resize(batch), layer.v.resize(batch);
  }
  int64_t length(int64_t layer) const { return static_cast<int64_t>(layers[static_cast<size_t>(layer)].k[0].size()); }

  void update(const Tensor& k, const Tensor& v, int64_t layer) {
    const auto append = [](const Tensor& from, auto& to) {
      const int64_t n = from.dim(2);
      for (int64_t b = 0; b < from.dim(0); ++b)
        for (int64_t i = 0; i < n; ++i) {
          std::vector<float> token;
          for (int64_t g = 0; g < kHeads; ++g)
            for (int64_t d = 0; d < kDim; ++d)
              token.push_back(from.values<float>()[static_cast<size_t>(((b * kHeads + g) * n + i) * kDim + d)]);
          to[static_cast<size_t>(b)].push_back(token);
        }
    };
    append(k, layers[static_cast<size_t>(layer)].k);
    append(v, layers[static_cast<size_t>(layer)].v);
  }
  template <typename F>
  void for_each_row(F&& f) {
    for (PlainLayer& layer : layers)
      for (auto* part : {&layer.k, &layer.v})
        for (auto& row : *part) f(row);
  }
  void crop(int64_t n) {
    for_each_row([n](auto& row) {
      const int64_t length = static_cast<int64_t>(row.size());
      row.resize(static_cast<size_t>(n >= 0 ? std::min(n, length) : std::max<int64_t>(length + n, 0)));
    });
  }
  void select(const std::vector<int64_t>& indices) {
    for (PlainLayer& layer : layers)
      for (auto* part : {&layer.k, &layer.v}) {
        auto selected = std::vector<std::vector<std::vector<float>>>();
        for (int64_t i : indices) selected.push_back((*part)[static_cast<size_t>(i)]);
        *part = std::move(selected);
      }
  }
};

/// `got` is [batch, G, tokens, D]. Bitwise: the cache is float32 here.
void expect_equal(const Tensor& got, const std::vector<std::vector<std::vector<float>>>& want, const char* what) {
  const int64_t n = static_cast<int64_t>(want[0].size());
  ASSERT_EQ(got.shape(), (std::vector<int64_t>{static_cast<int64_t>(want.size()), kHeads, n, kDim})) << what;
  for (size_t b = 0; b < want.size(); ++b)
    for (int64_t g = 0; g < kHeads; ++g)
      for (int64_t i = 0; i < n; ++i)
        for (int64_t d = 0; d < kDim; ++d)
          ASSERT_EQ(got.values<float>()[static_cast<size_t>(((static_cast<int64_t>(b) * kHeads + g) * n + i) * kDim + d)],
                    want[b][static_cast<size_t>(i)][static_cast<size_t>(g * kDim + d)])
              << what << "[" << b << ", " << g << ", " << i << ", " << d << "]";
}

TEST(KVCache, UpdateReturnsAllTokensOfTheLayer) {
  KVCache cache(tiny_config(), {.batch_size = 2, .device = kReference, .dtype = Dtype::kF32});
  PlainCache plain(2);
  EXPECT_EQ(cache.get_seq_length(), 0);
  for (int64_t n : {5, 1, 40, 0}) {
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const Tensor k = random_tensor(static_cast<uint64_t>(n), {2, kHeads, n, kDim}), v = random_tensor(7, {2, kHeads, n, kDim});
      plain.update(k, v, layer);
      EXPECT_EQ(cache.get_mask_sizes(n, layer), (std::pair<int64_t, int64_t>{plain.length(layer), 0}));
      const auto [all_k, all_v] = cache.update(k, v, layer);
      expect_equal(all_k, plain.layers[static_cast<size_t>(layer)].k, "k");
      expect_equal(all_v, plain.layers[static_cast<size_t>(layer)].v, "v");
      EXPECT_EQ(cache.get_seq_length(layer), plain.length(layer));
      if (layer + 1 < kLayers) {
        EXPECT_EQ(cache.get_seq_length(layer + 1), plain.length(layer + 1));
      }
    }
  }
  const auto [k, v] = cache.read(1, 1);
  EXPECT_EQ(k.shape(), (std::vector<int64_t>{kHeads, 46, kDim}));
  EXPECT_EQ(v.values<float>()[0], plain.layers[1].v[1][0][0]);
}

TEST(KVCache, RandomOperationsMatchPlainVectors) {
  KVCache cache(tiny_config(), {.batch_size = 2, .device = kReference, .dtype = Dtype::kF32, .page_tokens = 16});
  PlainCache plain(2);
  Random random(4);
  for (int step = 0; step < 1500; ++step) {
    SCOPED_TRACE(testing::Message() << "step " << step);
    const int64_t batch = cache.batch_size();
    switch (random.below(9)) {
      default: {
        // Mostly all layers in turn, as a model does; sometimes one alone, so that layers differ in length.
        const int64_t n = random.below(3) == 0 ? random.below(35) : 1;
        const int64_t only = random.below(4) == 0 ? random.below(kLayers) : -1;
        for (int64_t layer = 0; layer < kLayers; ++layer) {
          if (only >= 0 && layer != only) continue;
          if (plain.length(layer) + n > 512) continue;
          const Tensor k = random_tensor(random.bits(), {batch, kHeads, n, kDim}),
                       v = random_tensor(random.bits(), {batch, kHeads, n, kDim});
          plain.update(k, v, layer);
          const auto [all_k, all_v] = cache.update(k, v, layer);
          expect_equal(all_k, plain.layers[static_cast<size_t>(layer)].k, "k");
          expect_equal(all_v, plain.layers[static_cast<size_t>(layer)].v, "v");
        }
        break;
      }
      case 0: {
        const int64_t n = random.below(60) - 20;
        cache.crop(n);
        plain.crop(n);
        break;
      }
      case 1: {
        std::vector<int64_t> indices(static_cast<size_t>(batch));
        for (int64_t& i : indices) i = random.below(batch);
        cache.reorder_cache(indices);
        plain.select(indices);
        break;
      }
      case 2: {
        if (batch > 4) break;
        const int64_t repeats = 1 + random.below(3);
        cache.batch_repeat_interleave(repeats);
        std::vector<int64_t> indices;
        for (int64_t i = 0; i < batch * repeats; ++i) indices.push_back(i / repeats);
        plain.select(indices);
        break;
      }
      case 3: {
        std::vector<int64_t> indices(static_cast<size_t>(1 + random.below(batch)));
        for (int64_t& i : indices) i = random.below(batch);
        cache.batch_select_indices(indices);
        plain.select(indices);
        break;
      }
      case 4:
        if (random.below(10) != 0) break;
        cache.reset();
        plain.crop(0);
        break;
    }
    ASSERT_EQ(cache.batch_size(), static_cast<int64_t>(plain.layers[0].k.size()));
    int64_t longest = 0;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      ASSERT_EQ(cache.get_seq_length(layer), plain.length(layer)) << "layer " << layer;
      longest = std::max(longest, plain.length(layer));
    }
    ASSERT_EQ(cache.lengths(), std::vector<int64_t>(static_cast<size_t>(cache.batch_size()), longest));
    if (HasFatalFailure()) return;
  }
}

TEST(KVCache, CropCountsFromTheEndBelowZeroAndFromTheStartAbove) {
  KVCache cache(tiny_config(), {.batch_size = 2, .device = kReference});
  cache.paged().reserve(0, 30);
  cache.paged().advance(0, 30);
  cache.paged().reserve(1, 10);
  cache.paged().advance(1, 10);
  EXPECT_EQ(cache.get_seq_length(), 30);
  cache.crop(25);
  EXPECT_EQ(cache.lengths(), (std::vector<int64_t>{25, 10}));
  cache.crop(-7);
  EXPECT_EQ(cache.lengths(), (std::vector<int64_t>{18, 3}));
  cache.crop(-7);
  EXPECT_EQ(cache.lengths(), (std::vector<int64_t>{11, 0}));
  cache.crop(100);
  EXPECT_EQ(cache.lengths(), (std::vector<int64_t>{11, 0}));
  cache.crop(INT64_MIN);
  EXPECT_EQ(cache.lengths(), (std::vector<int64_t>{0, 0}));
  EXPECT_EQ(cache.bytes(), 0);
}

TEST(KVCache, NarrowStorageRoundsToNearest) {
  for (const Dtype dtype : {Dtype::kF16, Dtype::kBF16, Dtype::kF8}) {
    KVCache cache(tiny_config(), {.device = kReference, .dtype = dtype});
    EXPECT_EQ(cache.dtype(), dtype);
    const Tensor k = random_tensor(1, {1, kHeads, 3, kDim}), v = random_tensor(2, {1, kHeads, 3, kDim});
    const auto [all_k, all_v] = cache.update(k, v, 0);
    for (size_t i = 0; i < k.values<float>().size(); ++i) {
      const float x = k.values<float>()[i];
      const float want = dtype == Dtype::kF8    ? f8_to_float(float_to_f8(x))
                         : dtype == Dtype::kF16 ? half_to_float(float_to_half(x))
                                                : bfloat16_to_float(float_to_bfloat16(x));
      EXPECT_EQ(all_k.values<float>()[i], want) << i;
    }
  }
}

TEST(KVCache, AcceptsTensorsOfSixteenBits) {
  KVCache cache(tiny_config(), {.device = kReference, .dtype = Dtype::kF32});
  Tensor k({1, kHeads, 1, kDim}, Dtype::kF16), v({1, kHeads, 1, kDim}, Dtype::kBF16);
  k.values<uint16_t>()[3] = float_to_half(1.5f);
  v.values<uint16_t>()[5] = float_to_bfloat16(-2.0f);
  const auto [all_k, all_v] = cache.update(k, v, 2);
  EXPECT_EQ(all_k.values<float>()[3], 1.5f);
  EXPECT_EQ(all_v.values<float>()[5], -2.0f);
}

TEST(KVCache, PreallocatesExactlyWhatTheTableSays) {
  ModelConfig small;  // Configs::small: 8 layers, 8 heads of 64, context 2048.
  small.n_layers = 8;
  small.n_heads = small.n_kv_heads = 8;
  small.head_dim = 64;
  small.context_length = 2048;
  for (const Device device : {kReference, Device{}}) {
    KVCache cache(small, {.batch_size = 2, .max_length = 2048, .device = device});
    EXPECT_EQ(cache.bytes(), 67'108'864) << name_of(device);
    EXPECT_EQ(cache.get_max_length(), 2048);
    cache.reset();
    EXPECT_EQ(cache.bytes(), 67'108'864) << name_of(device);
    KVCache growing(small, {.batch_size = 2, .device = device});
    EXPECT_EQ(growing.bytes(), 0);
    EXPECT_EQ(growing.get_max_length(), -1);
  }
}

TEST(KVCache, MovesWithItsContent) {
  KVCache a(tiny_config(), {.device = kReference});
  const Tensor k = random_tensor(1, {1, kHeads, 3, kDim});
  a.update(k, k, 0);
  KVCache b = std::move(a);
  EXPECT_EQ(b.get_seq_length(), 3);
  EXPECT_EQ(b.device(), kReference);
}

}  // namespace
}  // namespace minillm
