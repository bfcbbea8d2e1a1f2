// model_test.cpp - MiniLLM at its surface: random weights, options, every refusal, and that a refused call changes nothing.
#include "minillm/model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "minillm/error.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

namespace minillm {
namespace {

ModelConfig tiny() { return test::tiny_model("llama").config; }

MiniLLM make_model(LoadOptions options = {}) {
  options.device = parse_device("reference");
  return MiniLLM(tiny(), options);
}

template <typename F>
void expect_error(ErrorCode code, const std::vector<std::string>& words, F&& f) {
  try {
    f();
    ADD_FAILURE() << "no error; expected one about " << words[0];
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& word : words)
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << word << ": " << error.what();
  }
}

std::vector<float> values(const Tensor& tensor) { return {tensor.values<float>().begin(), tensor.values<float>().end()}; }

TEST(RandomModel, IsTheSameForTheSameSeed) {
  const Tensor ids = Tensor::from_ids({{1, 2, 3}});
  LoadOptions other;
  other.seed = 1;
  const std::vector<float> want = values(make_model().forward(ids));
  EXPECT_EQ(values(make_model().forward(ids)), want);
  EXPECT_NE(values(make_model(other).forward(ids)), want);
  EXPECT_TRUE(std::ranges::all_of(want, [](float v) { return std::isfinite(v); }));
}

TEST(RandomModel, CountsItsMemory) {
  const MiniLLM model = make_model();
  EXPECT_EQ(model.memory().weights, model.weight_bytes());
  EXPECT_GE(model.weight_bytes(), model.config().n_parameters() * 4);
  EXPECT_GT(model.memory().workspace, 0);
  EXPECT_GE(model.memory().peak, model.memory().weights + model.memory().workspace);
}

TEST(LoadOptions, ChangeContextCacheTypeAndBlockSize) {
  LoadOptions options;
  options.context_length = 100;
  options.kv_dtype = Dtype::kBF16;
  options.flash_block_size = 32;
  const MiniLLM model = make_model(options);
  EXPECT_EQ(model.config().context_length, 100);
  EXPECT_EQ(model.config().kv_dtype, Dtype::kBF16);
  EXPECT_EQ(model.flash_block_size(), 32);
  const int64_t chosen = make_model().flash_block_size();
  EXPECT_TRUE(chosen >= 16 && chosen <= 1024) << chosen;
}

TEST(LoadOptions, AreRefusedOutOfRange) {
  const auto refused = [](const char* word, auto change) {
    LoadOptions options;
    change(options);
    expect_error(ErrorCode::kInvalidArgument, {word}, [&] { make_model(options); });
  };
  refused("context_length", [](LoadOptions& o) { o.context_length = -1; });
  refused("context_length", [](LoadOptions& o) { o.context_length = int64_t{1} << 32; });
  refused("kv_dtype", [](LoadOptions& o) { o.kv_dtype = Dtype::kQ8_0; });
  refused("dtype", [](LoadOptions& o) { o.dtype = Dtype::kQ4_0; });
  refused("n_threads", [](LoadOptions& o) { o.n_threads = -1; });
  for (int64_t block : {-16, 1, 8, 48, 2048}) refused("flash_block_size", [&](LoadOptions& o) { o.flash_block_size = block; });
}

TEST(Load, RefusesAFileThatIsNotThere) {
  expect_error(ErrorCode::kNotFound, {"/no/such/model.gguf"}, [] { MiniLLM::load("/no/such/model.gguf"); });
}

TEST(ForwardRefuses, InputsThatMakeNoSense) {
  MiniLLM model = make_model();
  const auto refused = [&](const std::vector<std::string>& words, const Tensor& ids, ForwardOptions options = {}) {
    expect_error(ErrorCode::kInvalidArgument, words, [&] { model.forward(ids, options); });
  };
  refused({"f32", "expected i32"}, Tensor({1, 3}));
  refused({"rank 1"}, Tensor({3}, Dtype::kI32));
  refused({"[1, 0]"}, Tensor({1, 0}, Dtype::kI32));
  refused({"[0, 4]"}, Tensor({0, 4}, Dtype::kI32));
  refused({"input_ids[0, 1] is 96", "0 to 95"}, Tensor::from_ids({{5, 96}}));
  refused({"input_ids[1, 0] is -1"}, Tensor::from_ids({{5}, {-1}}));
  ForwardOptions options;
  options.lengths = {1};
  refused({"1 lengths", "batch of 2"}, Tensor::from_ids({{5}, {6}}), options);
  options.lengths = {1, 2};
  refused({"lengths[1] is 2"}, Tensor::from_ids({{5}, {6}}), options);
  options.lengths = {-1, 1};
  refused({"lengths[0] is -1"}, Tensor::from_ids({{5}, {6}}), options);
  options = {};
  options.flash_block_size = 17;
  refused({"flash_block_size is 17"}, Tensor::from_ids({{5}}), options);
}

TEST(ForwardRefuses, ACacheThatDoesNotFit) {
  MiniLLM model = make_model();
  const Tensor ids = Tensor::from_ids({{5, 6}});
  const auto refused = [&](const std::vector<std::string>& words, ModelConfig config, int64_t batch, const char* device) {
    KVCacheOptions cache_options;
    cache_options.batch_size = batch;
    cache_options.device = parse_device(device);
    KVCache cache(config, cache_options);
    ForwardOptions options;
    options.kv_cache = &cache;
    expect_error(ErrorCode::kInvalidArgument, words, [&] { model.forward(ids, options); });
    EXPECT_EQ(cache.get_seq_length(), 0);
  };
  refused({"3 rows", "input_ids 1"}, tiny(), 3, "reference");
  refused({"on cpu", "reference"}, tiny(), 1, "cpu");
  ModelConfig deeper = tiny();
  deeper.n_layers = 3;
  refused({"3 layers", "2 of"}, deeper, 1, "reference");
  ModelConfig wider = tiny();
  wider.head_dim = wider.rope_dim = 16;
  refused({"heads of 16", "of 8"}, wider, 1, "reference");
}

TEST(ForwardRefuses, ACacheWhoseLayersHoldDifferentTokens) {
  MiniLLM model = make_model();
  KVCacheOptions cache_options;
  cache_options.device = parse_device("reference");
  KVCache cache(tiny(), cache_options);
  const Tensor two({1, tiny().n_kv_heads, 2, tiny().head_dim}), ids = Tensor::from_ids({{5, 6}});
  cache.update(two, two, 1);
  ForwardOptions options;
  options.kv_cache = &cache;
  expect_error(ErrorCode::kInvalidArgument, {"layer 1", "holds 2 tokens", "layer 0 holds 0"}, [&] { model.forward(ids, options); });
  EXPECT_EQ(cache.get_seq_length(1), 2);
  cache.update(two, two, 0);
  model.forward(ids, options);
  EXPECT_EQ(cache.get_seq_length(), 4);
}

TEST(ForwardRefuses, TokensPastTheContextOrTheCache) {
  LoadOptions load;
  load.context_length = 20;
  MiniLLM model = make_model(load);
  KVCacheOptions cache_options;
  cache_options.batch_size = 2;
  cache_options.max_length = 10;
  cache_options.device = model.device();
  KVCache cache(model.config(), cache_options);
  ForwardOptions options;
  options.kv_cache = &cache;
  const std::vector<TokenId> eight(8, 1), three(3, 2);
  model.forward(Tensor::from_ids({eight, eight}), options);
  expect_error(ErrorCode::kCapacity, {"row 0", "8 + 3", "max_length of 10"}, [&] {
    model.forward(Tensor::from_ids({three, three}), options);
  });
  EXPECT_EQ(cache.lengths(), (std::vector<int64_t>{8, 8}));
  EXPECT_NO_THROW(model.forward(Tensor::from_ids({{1, 1}, {1, 1}}), options));  // Exactly full.

  EXPECT_NO_THROW(model.forward(Tensor::from_ids({std::vector<TokenId>(20, 1)})));
  expect_error(ErrorCode::kCapacity, {"0 + 21", "context length of 20"},
               [&] { model.forward(Tensor::from_ids({std::vector<TokenId>(21, 1)})); });
}

TEST(Forward, OfRowsWithoutTokensGivesZeros) {
  MiniLLM model = make_model();
  ForwardOptions options;
  options.lengths = {0, 0};
  const std::vector<float> logits = values(model.forward(Tensor::from_ids({{1}, {2}}), options));
  EXPECT_TRUE(std::ranges::all_of(logits, [](float v) { return v == 0.0f; }));
}

}  // namespace
}  // namespace minillm
