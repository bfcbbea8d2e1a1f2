// config_reader_test.cpp - every key of the hyperparameter table, hostile and missing, in generated files; and what each family
// must be read as.
#include "model/config_reader.h"

#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "minillm/error.h"
#include "model/hyperparameters.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

namespace minillm {
namespace {

using test::Keys;
using test::TinyModel;

ModelConfig read(const TinyModel& model) {
  const test::TempFolder folder;
  return read_config(*open_tensor_source(folder.write("model.gguf", model.writer().image().bytes)));
}

/// Expects reading to fail with `code` and a message that holds each of `words`.
void expect_refused(const TinyModel& model, ErrorCode code, const std::vector<std::string>& words) {
  try {
    read(model);
    ADD_FAILURE() << "was read; expected an error about " << words[0];
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& word : words)
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << word << ": " << error.what();
  }
}

class ReadsFamily : public testing::TestWithParam<std::string> {};

TEST_P(ReadsFamily, AsItsConfig) {
  const TinyModel model = test::tiny_model(GetParam());
  const ModelConfig got = read(model), &want = model.config;
  EXPECT_EQ(got.architecture, want.architecture);
  EXPECT_EQ(got.name, want.name);
  for (const Hyperparameter& row : kHyperparameters)
    std::visit([&](auto member) { EXPECT_EQ(got.*member, want.*member) << row.field; }, row.member);
  EXPECT_EQ(got.activation, want.activation);
  EXPECT_EQ(got.tied_embeddings, want.tied_embeddings);
  EXPECT_EQ(got.qkv_bias, want.qkv_bias);
  EXPECT_EQ(got.qk_norm, want.qk_norm);
  EXPECT_EQ(got.post_norms, want.post_norms);
  EXPECT_EQ(got.rope_layout, want.rope_layout);
  EXPECT_EQ(got.rope_scaling, want.rope_scaling);
}
INSTANTIATE_TEST_SUITE_P(Families, ReadsFamily, testing::ValuesIn(test::tiny_families()), [](const auto& test) { return test.param; });

/// Values that a key must refuse, and a key that states something else than the table's range may allow.
struct HostileKey {
  std::string key;
  std::vector<int64_t> integers;
  std::vector<float> numbers;
};

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

const std::vector<HostileKey>& hostile_keys() {
  static const std::vector<HostileKey> keys = {
      {"block_count", {0, -1, 1'000'000'000, int64_t{1} << 40}, {}},
      {"embedding_length", {0, -32, int64_t{1} << 32}, {}},
      {"attention.head_count", {0, -4, 100'000}, {}},
      {"attention.head_count_kv", {0, -2, 3, 8, 100'000}, {}},  // 3 does not divide 4 heads, 8 is more than 4.
      {"attention.key_length", {0, 1, -8, 100'000}, {}},
      {"feed_forward_length", {0, -1, int64_t{1} << 32}, {}},
      {"vocab_size", {0, -1, int64_t{1} << 32}, {}},
      {"context_length", {0, -1, int64_t{1} << 32}, {}},
      {"attention.layer_norm_rms_epsilon", {}, {0.0f, -1e-5f, 1.0f, kNan, kInf}},
      {"attention.scale", {}, {0.0f, -1.0f, kNan, kInf}},
      {"attn_logit_softcapping", {}, {0.0f, -50.0f, kNan, kInf}},
      {"final_logit_softcapping", {}, {0.0f, -30.0f, kNan, kInf}},
      {"rope.dimension_count", {0, -2, 3, 10}, {}},  // 3 is odd, 10 is more than the head's 8.
      {"rope.freq_base", {}, {0.0f, -1e4f, kNan, kInf}},
      {"rope.freq_base_swa", {}, {0.0f, -1e4f, kNan, kInf}},
      {"attention.sliding_window", {0, -1, int64_t{1} << 32}, {}},
      {"attention.sliding_window_pattern", {0, -6, 100'000}, {}},
  };
  return keys;
}

const std::vector<HostileKey>& hostile_rope_keys() {
  static const std::vector<HostileKey> keys = {
      {"rope.scaling.factor", {}, {0.0f, -8.0f, kNan, kInf}},
      {"rope.scaling.low_freq_factor", {}, {0.0f, -1.0f, kNan, kInf}},
      {"rope.scaling.high_freq_factor", {}, {0.0f, 1.0f, kNan, kInf}},  // 1 is not more than the low factor.
      {"rope.scaling.original_context_length", {0, -1, int64_t{1} << 32}, {}},
  };
  return keys;
}

TinyModel llama3_by_keys() {
  TinyModel model = test::tiny_model("llama");
  model.keys.set("llama.rope.scaling.type", std::string("llama3"));
  model.keys.set("llama.rope.scaling.factor", 8.0f);
  model.keys.set("llama.rope.scaling.low_freq_factor", 1.0f);
  model.keys.set("llama.rope.scaling.high_freq_factor", 4.0f);
  model.keys.set("llama.rope.scaling.original_context_length", uint32_t{128});
  return model;
}

void expect_each_refused(const TinyModel& base, const HostileKey& hostile) {
  const std::string key = "llama." + hostile.key;
  for (int64_t value : hostile.integers) {
    TinyModel model = base;
    model.keys.set(key, value);
    SCOPED_TRACE(key + " = " + std::to_string(value));
    expect_refused(model, ErrorCode::kCorruptFile, {"model.gguf"});
  }
  for (float value : hostile.numbers) {
    TinyModel model = base;
    model.keys.set(key, value);
    SCOPED_TRACE(key + " = " + std::to_string(value));
    expect_refused(model, ErrorCode::kCorruptFile, {"model.gguf"});
  }
  if (!hostile.integers.empty()) {
    TinyModel model = base;
    model.keys.set(key, 4.0f);
    expect_refused(model, ErrorCode::kCorruptFile, {key, "integer"});
  }
  TinyModel model = base;
  model.keys.set(key, std::string("many"));
  expect_refused(model, ErrorCode::kCorruptFile, {key});
}

TEST(HyperparameterTable, HasAHostileCaseForEveryKey) {
  std::set<std::string> in_table, in_cases;
  for (const Hyperparameter& row : kHyperparameters)
    if (!row.key.empty()) in_table.emplace(row.key);
  for (const RopeHyperparameter& row : kRopeHyperparameters) in_table.emplace(row.key);
  for (const auto* cases : {&hostile_keys(), &hostile_rope_keys()})
    for (const HostileKey& hostile : *cases) in_cases.insert(hostile.key);
  EXPECT_EQ(in_table, in_cases);
}

TEST(HyperparameterTable, RefusesEveryHostileValue) {
  for (const HostileKey& hostile : hostile_keys()) expect_each_refused(test::tiny_model("llama"), hostile);
}

TEST(HyperparameterTable, RefusesEveryHostileValueOfRopeScaling) {
  for (const HostileKey& hostile : hostile_rope_keys()) expect_each_refused(llama3_by_keys(), hostile);
}

TEST(HyperparameterTable, RefusesAFileWithoutARequiredKey) {
  for (const Hyperparameter& row : kHyperparameters) {
    if (!row.required) continue;
    TinyModel model = test::tiny_model("llama");
    model.keys.erase("llama." + std::string(row.key));
    expect_refused(model, ErrorCode::kNotFound, {"model.gguf", "llama." + std::string(row.key)});
  }
}

TEST(ReadConfig, FillsInWhatAFileMayLeaveOut) {
  TinyModel model = test::tiny_model("llama");
  for (const char* key :
       {"attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count", "vocab_size"})
    model.keys.erase(std::string("llama.") + key);
  const ModelConfig config = read(model);
  EXPECT_EQ(config.n_kv_heads, config.n_heads);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.rope_dim, 0);
  EXPECT_EQ(config.vocab_size, 96);  // Of the embedding's rows.
}

TEST(ReadConfig, TakesTheVocabularyFromTheTokens) {
  TinyModel model = test::tiny_model("llama");
  model.keys.erase("llama.vocab_size");
  model.keys.set("tokenizer.ggml.tokens", std::vector<std::string>(90, "x"));
  EXPECT_EQ(read(model).vocab_size, 90);
  model.keys.set("llama.vocab_size", uint32_t{96});
  expect_refused(model, ErrorCode::kCorruptFile, {"llama.vocab_size is 96", "90"});
  model.keys.erase("tokenizer.ggml.tokens");
  model.keys.erase("llama.vocab_size");
  model.tensors.erase("token_embd.weight");
  expect_refused(model, ErrorCode::kNotFound, {"llama.vocab_size", "tokenizer.ggml.tokens"});
}

TEST(ReadConfig, RefusesAnEmbeddingThatTheHeadsDoNotDivide) {
  TinyModel model = test::tiny_model("llama");
  model.keys.erase("llama.attention.key_length");
  model.keys.set("llama.embedding_length", uint32_t{33});
  expect_refused(model, ErrorCode::kCorruptFile, {"llama.embedding_length is 33", "4 heads"});
}

TEST(ReadConfig, RefusesAHeadOfOddWidth) {
  TinyModel model = test::tiny_model("llama");
  model.keys.set("llama.attention.key_length", uint32_t{7});
  model.keys.set("llama.attention.value_length", uint32_t{7});
  model.keys.erase("llama.rope.dimension_count");
  expect_refused(model, ErrorCode::kCorruptFile, {"model.gguf", "head_dim is 7"});
}

TEST(ReadConfig, RefusesWhatIsNotImplemented) {
  TinyModel experts = test::tiny_model("llama");
  experts.keys.set("llama.expert_count", uint32_t{8});
  expect_refused(experts, ErrorCode::kUnsupported, {"llama.expert_count is 8"});

  TinyModel values = test::tiny_model("llama");
  values.keys.set("llama.attention.value_length", uint32_t{16});
  expect_refused(values, ErrorCode::kUnsupported, {"llama.attention.value_length is 16", "8"});

  TinyModel yarn = test::tiny_model("llama");
  yarn.keys.set("llama.rope.scaling.type", std::string("yarn"));
  expect_refused(yarn, ErrorCode::kUnsupported, {"llama.rope.scaling.type is 'yarn'"});

  TinyModel mamba = test::tiny_model("llama");
  mamba.keys.set("general.architecture", std::string("mamba"));
  expect_refused(mamba, ErrorCode::kUnsupported, {"'mamba'", "qwen3"});

  TinyModel nameless = test::tiny_model("llama");
  nameless.keys.erase("general.architecture");
  expect_refused(nameless, ErrorCode::kNotFound, {"general.architecture"});
}

TEST(ReadConfig, ReadsRopeScaling) {
  TinyModel linear = test::tiny_model("llama");
  linear.keys.set("llama.rope.scaling.factor", 4.0f);  // Old files leave the type out.
  EXPECT_EQ(read(linear).rope_scaling.kind, RopeScaling::Kind::kLinear);
  EXPECT_EQ(read(linear).rope_scaling.factor, 4.0f);
  linear.keys.set("llama.rope.scaling.type", std::string("none"));
  EXPECT_EQ(read(linear).rope_scaling.kind, RopeScaling::Kind::kNone);

  const RopeScaling want{RopeScaling::Kind::kLlama3, 8.0f, 1.0f, 4.0f, 128};
  EXPECT_EQ(read(llama3_by_keys()).rope_scaling, want);
}

TEST(ReadConfig, ReadsASlidingPatternAsPeriodOrAsFlags) {
  TinyModel model = test::tiny_model("gemma3");
  model.keys.set("gemma3.attention.sliding_window_pattern", uint32_t{3});
  EXPECT_EQ(read(model).sliding_pattern, 3);
  model.keys.set("gemma3.attention.sliding_window_pattern", std::vector<int32_t>{1, 0, 1, 0, 1, 0, 1});
  EXPECT_EQ(read(model).sliding_pattern, 2);
  model.keys.set("gemma3.attention.sliding_window_pattern", std::vector<int32_t>{1, 1, 1, 1, 1, 1, 1});
  EXPECT_EQ(read(model).sliding_pattern, 0);
  model.keys.set("gemma3.attention.sliding_window_pattern", std::vector<int32_t>{1, 0, 0, 0, 1, 0, 1});
  expect_refused(model, ErrorCode::kUnsupported, {"sliding_window_pattern"});
  model.keys.set("gemma3.attention.sliding_window_pattern", std::vector<int32_t>{1, 0, 1});
  expect_refused(model, ErrorCode::kCorruptFile, {"sliding_window_pattern", "7 flags"});
}

TEST(ReadConfig, KnowsThatGemma27bScalesByItsOwnNumber) {
  TinyModel model = test::tiny_model("gemma3");
  model.keys.set("gemma3.block_count", uint32_t{62});
  EXPECT_EQ(read(model).attention_scale, 0.25f);  // 1 / sqrt(32 / 2)
  model.keys.set("gemma3.attention.scale", 0.5f);
  EXPECT_EQ(read(model).attention_scale, 0.5f);
}

}  // namespace
}  // namespace minillm
