// model_promises_test.cpp - what MiniLLM promises of the model, the cache and the generator, a test for each promise: the number is its
// row in docs/PROMISES.md.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "minillm/minillm.h"
#include "support/expect_error.h"
#include "support/memory_plan.h"
#include "support/models.h"
#include "support/random.h"
#include "support/same_bits.h"
#include "support/temp_folder.h"

namespace minillm {
namespace {

/// A small Llama with grouped queries.
ModelConfig tiny() {
  ModelConfig config = Configs::small();
  config.n_layers = 2;
  config.hidden_size = 64;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 16;
  config.ffn_size = 96;
  config.vocab_size = 100;
  config.context_length = 256;
  return config;
}

std::vector<TokenId> some_ids(uint64_t seed, int64_t n, int64_t vocab = 100) { return test::random_ids(seed, n, vocab); }

std::vector<float> values(const Tensor& tensor) { return {tensor.values<float>().begin(), tensor.values<float>().end()}; }

/// Largest difference as a share of the largest value.
double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0, largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return worst / largest;
}

TEST(Promise04, StepsWithTheCacheEqualOneFullPass) {
  const test::SameBitsInAnyStep same_bits;
  MiniLLM model(tiny());
  const std::vector<TokenId> ids = some_ids(1, 90);
  const std::vector<float> whole = values(model.forward(Tensor::from_ids({ids})));
  KVCache cache(model.config());
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::vector<float> step = values(model.forward(Tensor::from_ids({{ids[i]}}), {.kv_cache = &cache}));
    ASSERT_TRUE(std::equal(step.begin(), step.end(), whole.begin() + static_cast<ptrdiff_t>(i) * 100)) << "token " << i;
  }
}

TEST(Promise05, RowsOfABatchHaveTheirOwnLengthsAndEqualTheRowAlone) {
  MiniLLM model(tiny());
  const std::vector<int64_t> lengths = {37, 1, 12, 0};
  std::vector<std::vector<TokenId>> rows;
  for (uint64_t row = 0; row < 4; ++row) rows.push_back(some_ids(row, 37));
  KVCache cache(model.config(), {.batch_size = 4});
  const std::vector<float> batch = values(model.forward(Tensor::from_ids(rows), {.kv_cache = &cache, .lengths = lengths}));
  EXPECT_EQ(cache.lengths(), lengths);
  for (size_t row = 0; row < 3; ++row) {
    rows[row].resize(static_cast<size_t>(lengths[row]));
    const std::vector<float> alone = values(model.forward(Tensor::from_ids({rows[row]})));
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), batch.begin() + static_cast<ptrdiff_t>(row) * 37 * 100)) << "row " << row;
  }
}

TEST(Promise07, APreallocatedCacheHasAFixedSize) {
  EXPECT_EQ(KVCache(Configs::small(), {.batch_size = 2, .max_length = 2048, .dtype = Dtype::kF16}).bytes(), 64 << 20);
  MiniLLM model(tiny());
  KVCache cache(model.config(), {.batch_size = 2, .max_length = 100});
  const int64_t bytes = cache.bytes();
  EXPECT_GT(bytes, 0);
  for (uint64_t i = 0; i < 10; ++i) {
    model.forward(Tensor::from_ids({some_ids(i, 10), some_ids(i + 50, 10)}), {.kv_cache = &cache});
    EXPECT_EQ(cache.bytes(), bytes);
  }
  test::expect_error(ErrorCode::kCapacity, "max_length of 100", [&] { model.forward(Tensor::from_ids({{1}, {1}}), {.kv_cache = &cache}); });
  cache.reset();
  EXPECT_EQ(cache.bytes(), bytes);
}

TEST(Promise08, OneForwardInterfaceWithEverySwitch) {
  const test::SameBitsInAnyStep same_bits;
  MiniLLM model(tiny());
  const std::vector<TokenId> ids = some_ids(1, 60);
  const std::vector<float> plain = values(model.forward(Tensor::from_ids({ids})));
  for (const bool with_cache : {false, true})
    for (const bool flash : {false, true})
      for (const int64_t block : {0, 16, 64, 1024}) {
        KVCache cache(model.config());
        const Tensor logits = model.forward(
            Tensor::from_ids({ids}), {.kv_cache = with_cache ? &cache : nullptr, .use_flash_attention = flash, .flash_block_size = block});
        EXPECT_LT(relative_difference(values(logits), plain), 1e-4) << with_cache << " " << flash << " " << block;
        EXPECT_EQ(cache.lengths()[0], with_cache ? 60 : 0);
      }
}

TEST(Promise09, DtypesAreChosenAndCanBeChosen) {
  const test::SameBitsInAnyStep same_bits;
  const std::vector<TokenId> ids = some_ids(1, 60);
  EXPECT_EQ(KVCache(Configs::small()).dtype(), Dtype::kF16);
  MiniLLM model(tiny());
  const auto logits_with = [&](Dtype dtype) {
    KVCache cache(model.config(), {.dtype = dtype});
    return values(model.forward(Tensor::from_ids({ids}), {.kv_cache = &cache}));
  };
  const std::vector<float> exact = logits_with(Dtype::kF32);
  // Keys and values are rounded to 11 or 8 bits; a few roundings meet in a logit.
  const double half = relative_difference(logits_with(Dtype::kF16), exact), brain = relative_difference(logits_with(Dtype::kBF16), exact);
  EXPECT_LT(half, 4 * 0x1p-11);
  EXPECT_LT(brain, 4 * 0x1p-8);
  EXPECT_GT(brain, half);
  RecordProperty("float16_difference", std::to_string(half));
  RecordProperty("bfloat16_difference", std::to_string(brain));
  MiniLLM narrow(tiny(), {.dtype = Dtype::kBF16});
  EXPECT_LT(narrow.weight_bytes(), model.weight_bytes() * 6 / 10);
}

TEST(Promise10, TheMemoryPlanIsWhatARunTakes) {
  MINILLM_NEEDS_MODEL(path, "smollm2");
  test::expect_plan_is_what_a_run_takes(path, {});
}

TEST(Promise11, SmallMediumAndLargeBuildRunAndGenerate) {
  const auto check = [](ModelConfig config, int64_t layers, int64_t hidden, int64_t heads, int64_t kv_heads, int64_t ffn, int64_t context) {
    SCOPED_TRACE(config.name);
    EXPECT_EQ(config.n_layers, layers);
    EXPECT_EQ(config.hidden_size, hidden);
    EXPECT_EQ(config.n_heads, heads);
    EXPECT_EQ(config.n_kv_heads, kv_heads);
    EXPECT_EQ(config.ffn_size, ffn);
    EXPECT_EQ(config.context_length, context);
    EXPECT_EQ(config.vocab_size, 32000);
    config.n_layers = std::min<int64_t>(layers, 2);  // Every width as it is; all layers would take a second each.
    MiniLLM model(config, {.dtype = Dtype::kBF16});
    EXPECT_EQ(model.forward(Tensor::from_ids({{1, 2, 3}})).shape(), (std::vector<int64_t>{1, 3, 32000}));
    EXPECT_EQ(TextGenerator(model).generate({1, 2, 3}, {.max_new_tokens = 3, .ignore_eos = true}).size(), 6u);
  };
  check(Configs::small(), 8, 512, 8, 8, 1536, 2048);
  check(Configs::medium(), 12, 768, 12, 4, 2048, 4096);
  check(Configs::large(), 24, 1024, 16, 4, 2816, 8192);
}

TEST(Promise12, TheGeneratorWithAModelGiven) {
  MiniLLM model(tiny());
  const std::vector<TokenId> prompt_ids = some_ids(1, 5);
  TextGenerator generator(model, {.use_flash_attention = true});
  const auto ids = generator.generate(prompt_ids, {.max_new_tokens = 50, .temperature = 0.8f});
  EXPECT_EQ(ids.size(), 55u);
  EXPECT_TRUE(std::equal(prompt_ids.begin(), prompt_ids.end(), ids.begin()));
}

TEST(Promise12, TheGeneratorWithTheDefaultModelOrTheWayToGetIt) {
  {
    MINILLM_NEEDS_MODEL(path, "smollm2");
    const std::vector<TokenId> prompt_ids = Tokenizer::load(path).encode("Once upon a time");
    TextGenerator generator({.use_flash_attention = true});
    EXPECT_GT(generator.generate(prompt_ids, {.max_new_tokens = 50, .temperature = 0.8f}).size(), prompt_ids.size());
  }
  const test::TempFolder nothing_pulled;
  const char* home = ::getenv("MINILLM_HOME");
  const std::string before = home == nullptr ? "" : home;
  ::setenv("MINILLM_HOME", nothing_pulled.path().c_str(), 1);
  test::expect_error(ErrorCode::kNotFound, "minillm pull", [] { TextGenerator generator({.use_flash_attention = true}); });
  home == nullptr ? ::unsetenv("MINILLM_HOME") : ::setenv("MINILLM_HOME", before.c_str(), 1);
}

TEST(Promise14, SixteenSequencesOfDifferentLengthsAtOnce) {
  MiniLLM model(tiny());
  std::vector<std::vector<TokenId>> prompts;
  for (uint64_t row = 0; row < 16; ++row) prompts.push_back(some_ids(row, 3 + 5 * static_cast<int64_t>(row)));
  TextGenerator generator(model);
  GenerationOptions options{.max_new_tokens = 40, .temperature = 1.0f};
  for (TokenId id = 0; id < 5; ++id) options.stop_token_ids.push_back(id);  // One in twenty: rows end at different places.
  const std::vector<Generation> together = generator.generate_batch(prompts, options);
  std::vector<size_t> ends;
  for (size_t row = 0; row < 16; ++row) {
    GenerationOptions own = options;
    own.seed += row;
    EXPECT_EQ(together[row].ids, generator.generate_batch({prompts[row]}, own)[0].ids) << "row " << row;
    ends.push_back(together[row].ids.size());
  }
  EXPECT_NE(*std::ranges::min_element(ends), *std::ranges::max_element(ends));
}

TEST(Promise16, CachesOfTwiceTheContextForFourToSixteenRows) {
  const ModelConfig config = Configs::small();
  for (const int64_t batch : {4, 8, 16}) {
    const KVCache cache(config, {.batch_size = batch, .max_length = 2 * config.context_length});
    EXPECT_EQ(cache.bytes(), batch * 64 << 20) << "16 KiB a token";
    EXPECT_EQ(cache.get_max_length(), 4096);
  }
}

/// Memory of this process that is in use now.
int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t pages = 0, resident = 0;
  file >> pages >> resident;
  return resident * 4096;
}

TEST(Promise17, TheCacheGrowsAndGivesMemoryBack) {
  KVCache cache(Configs::small(), {.batch_size = 1});
  EXPECT_EQ(cache.bytes(), 0);
  const int64_t empty = resident_bytes();
  {
    const Tensor k({1, 8, 1024, 64});
    for (int64_t layer = 0; layer < 8; ++layer) cache.update(k, k, layer);
  }
  constexpr int64_t kFull = 16 << 20;  // 16 KiB a token.
  EXPECT_EQ(cache.bytes(), kFull);
  const int64_t full = resident_bytes();
  EXPECT_GT(full - empty, kFull * 9 / 10);
  cache.crop(512);
  EXPECT_EQ(cache.bytes(), kFull / 2);
  EXPECT_LT(resident_bytes(), full - kFull * 4 / 10);
  cache.reset();
  EXPECT_EQ(cache.bytes(), 0);
  EXPECT_LT(resident_bytes(), full - kFull * 9 / 10);
}

TEST(Promise18, GroupedQueryAttentionInBFloat16) {
  ModelConfig config = tiny();
  config.kv_dtype = Dtype::kBF16;
  MiniLLM fast(config, {.dtype = Dtype::kBF16}), exact(config, {.device = {Device::Kind::kReference, 0}, .dtype = Dtype::kBF16});
  EXPECT_EQ(KVCache(config).dtype(), Dtype::kBF16);
  const Tensor ids = Tensor::from_ids({some_ids(1, 50)});
  // Activations may be rounded to bfloat16 where the processor multiplies it, 2^-9 each time.
  EXPECT_LT(relative_difference(values(fast.forward(ids)), values(exact.forward(ids))), 0.03);
}

}  // namespace
}  // namespace minillm
