// hf_config_test.cpp - config.json of each family, in the spellings of transformers 4 and 5, and what is refused.
#include "io/hf_config.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "support/expect_error.h"

namespace minillm {
namespace {

using nlohmann::json;
using test::expect_error;
using Keys = std::map<std::string, MetadataValue>;

Keys read(const HfTexts& texts) {
  Keys keys;
  for (auto& [key, value] : read_hf_config(texts, "models/tiny")) EXPECT_TRUE(keys.emplace(key, value).second) << key << " twice";
  return keys;
}
Keys read(const json& config) { return read(HfTexts{.config = config.dump()}); }

void expect_refused(const json& config, ErrorCode code, std::string_view part) {
  SCOPED_TRACE(config.dump());
  expect_error(code, part, [&] { read(config); });
}

template <typename T>
T get(const Keys& keys, const std::string& key) {
  const auto found = keys.find(key);
  if (found == keys.end() || !std::holds_alternative<T>(found->second)) {
    ADD_FAILURE() << key << (found == keys.end() ? " is missing" : " has another type");
    return {};
  }
  return std::get<T>(found->second);
}
int64_t integer(const Keys& keys, const std::string& key) { return get<int64_t>(keys, key); }
double number(const Keys& keys, const std::string& key) { return get<double>(keys, key); }
std::string text(const Keys& keys, const std::string& key) { return get<std::string>(keys, key); }

json config_of(const char* model_type) {
  return {{"model_type", model_type}, {"num_hidden_layers", 12},         {"hidden_size", 64},
          {"intermediate_size", 96},  {"num_attention_heads", 4},        {"num_key_value_heads", 2},
          {"vocab_size", 1000},       {"max_position_embeddings", 2048}, {"rms_norm_eps", 1e-5}};
}
json with(json config, const json& changes) {
  config.update(changes);
  return config;
}
json without(json config, const char* key) {
  config.erase(key);
  return config;
}

TEST(HfConfig, LlamaOfTransformers4) {
  const Keys keys = read(with(config_of("llama"), {{"architectures", {"LlamaForCausalLM"}},
                                                   {"rope_theta", 500000.0},
                                                   {"hidden_act", "silu"},
                                                   {"bos_token_id", 128000},
                                                   {"eos_token_id", {128001, 128008}},
                                                   {"pad_token_id", nullptr},
                                                   {"sliding_window", 7},  // Not a field of this family.
                                                   {"rope_scaling",
                                                    {{"factor", 8.0},
                                                     {"low_freq_factor", 1.0},
                                                     {"high_freq_factor", 4.0},
                                                     {"original_max_position_embeddings", 8192},
                                                     {"rope_type", "llama3"}}}}));
  EXPECT_EQ(text(keys, "general.architecture"), "llama");
  EXPECT_EQ(text(keys, "general.name"), "tiny");
  EXPECT_EQ(integer(keys, "llama.block_count"), 12);
  EXPECT_EQ(integer(keys, "llama.embedding_length"), 64);
  EXPECT_EQ(integer(keys, "llama.feed_forward_length"), 96);
  EXPECT_EQ(integer(keys, "llama.vocab_size"), 1000);
  EXPECT_EQ(integer(keys, "llama.context_length"), 2048);
  EXPECT_EQ(integer(keys, "llama.attention.head_count"), 4);
  EXPECT_EQ(integer(keys, "llama.attention.head_count_kv"), 2);
  EXPECT_EQ(integer(keys, "llama.attention.key_length"), 16);
  EXPECT_EQ(integer(keys, "llama.attention.value_length"), 16);
  EXPECT_EQ(number(keys, "llama.attention.layer_norm_rms_epsilon"), 1e-5);
  EXPECT_FALSE(get<bool>(keys, "llama.attention.bias"));
  EXPECT_FALSE(get<bool>(keys, "llama.tie_word_embeddings"));
  EXPECT_EQ(integer(keys, "llama.rope.dimension_count"), 16);
  EXPECT_EQ(number(keys, "llama.rope.freq_base"), 5e5);
  EXPECT_EQ(text(keys, "llama.rope.scaling.type"), "llama3");
  EXPECT_EQ(number(keys, "llama.rope.scaling.factor"), 8);
  EXPECT_EQ(number(keys, "llama.rope.scaling.low_freq_factor"), 1);
  EXPECT_EQ(number(keys, "llama.rope.scaling.high_freq_factor"), 4);
  EXPECT_EQ(integer(keys, "llama.rope.scaling.original_context_length"), 8192);
  EXPECT_EQ(integer(keys, "tokenizer.ggml.bos_token_id"), 128000);
  EXPECT_EQ(integer(keys, "tokenizer.ggml.eos_token_id"), 128001);
  EXPECT_EQ(get<std::vector<int64_t>>(keys, "tokenizer.ggml.eos_token_ids"), (std::vector<int64_t>{128001, 128008}));
  EXPECT_FALSE(keys.contains("tokenizer.ggml.padding_token_id"));
  EXPECT_FALSE(keys.contains("llama.attention.sliding_window"));
  EXPECT_FALSE(keys.contains("llama.rope.freq_base_swa"));
}

TEST(HfConfig, LlamaOfTransformers5SaysTheSame) {
  const json scaling = {{"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192},
                        {"rope_type", "llama3"}};
  EXPECT_EQ(read(with(config_of("llama"), {{"rope_theta", 500000.0}, {"rope_scaling", scaling}})),
            read(with(config_of("llama"), {{"rope_parameters", with(scaling, {{"rope_theta", 500000.0}})}})));
}

TEST(HfConfig, RopeScalingKinds) {
  EXPECT_EQ(text(read(config_of("llama")), "llama.rope.scaling.type"), "none");
  EXPECT_EQ(number(read(config_of("llama")), "llama.rope.freq_base"), 1e4);
  EXPECT_EQ(text(read(with(config_of("llama"), {{"rope_scaling", nullptr}})), "llama.rope.scaling.type"), "none");
  EXPECT_EQ(text(read(with(config_of("llama"), {{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 10000}}}})),
                 "llama.rope.scaling.type"),
            "none");
  const Keys linear = read(with(config_of("llama"), {{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}}));
  EXPECT_EQ(text(linear, "llama.rope.scaling.type"), "linear");
  EXPECT_EQ(number(linear, "llama.rope.scaling.factor"), 2);
  for (const char* kind : {"yarn", "dynamic", "longrope", "su", "\x1B["})
    expect_refused(with(config_of("llama"), {{"rope_scaling", {{"rope_type", kind}, {"factor", 2}}}}), ErrorCode::kUnsupported,
                   "rope_type: met '");
  expect_refused(with(config_of("llama"), {{"rope_scaling", {{"rope_type", "linear"}}}}), ErrorCode::kCorruptFile, "factor is missing");
  expect_refused(with(config_of("llama"), {{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 2}}}}), ErrorCode::kCorruptFile,
                 "low_freq_factor is missing");
}

TEST(HfConfig, PartOfAHeadMayBeRotated) {
  EXPECT_EQ(integer(read(with(config_of("llama"), {{"partial_rotary_factor", 0.5}})), "llama.rope.dimension_count"), 8);
  for (const double factor : {0.0, -1.0, 1.5})
    expect_refused(with(config_of("llama"), {{"partial_rotary_factor", factor}}), ErrorCode::kCorruptFile, "expected above 0 to 1");
}

TEST(HfConfig, AHeadTooWideToScaleIsRefused) {
  for (const int64_t head_dim : {INT64_MAX, int64_t{1} << 31, int64_t{-1}})
    expect_refused(with(config_of("llama"), {{"head_dim", head_dim}, {"partial_rotary_factor", 1.0}}), ErrorCode::kCorruptFile,
                   "head_dim: met " + std::to_string(head_dim));
}

TEST(HfConfig, MistralSlidesInEveryLayer) {
  const Keys slides = read(with(config_of("mistral"), {{"sliding_window", 4096}}));
  EXPECT_EQ(text(slides, "general.architecture"), "llama");
  EXPECT_EQ(integer(slides, "llama.attention.sliding_window"), 4096);
  EXPECT_FALSE(slides.contains("llama.attention.sliding_window_pattern"));
  EXPECT_FALSE(read(with(config_of("mistral"), {{"sliding_window", nullptr}})).contains("llama.attention.sliding_window"));
}

TEST(HfConfig, Qwen2HasBiasesAndSlidesOnlyIfAsked) {
  const json config =
      with(config_of("qwen2"),
           {{"sliding_window", 128}, {"use_sliding_window", false}, {"max_window_layers", 6}, {"tie_word_embeddings", true}});
  const Keys keys = read(config);
  EXPECT_EQ(text(keys, "general.architecture"), "qwen2");
  EXPECT_TRUE(get<bool>(keys, "qwen2.attention.bias"));
  EXPECT_TRUE(get<bool>(keys, "qwen2.tie_word_embeddings"));
  EXPECT_FALSE(keys.contains("qwen2.attention.sliding_window"));
  EXPECT_EQ(integer(read(with(config, {{"use_sliding_window", true}, {"max_window_layers", 0}})), "qwen2.attention.sliding_window"), 128);
  EXPECT_FALSE(read(with(config, {{"use_sliding_window", true}, {"max_window_layers", 12}})).contains("qwen2.attention.sliding_window"));
  expect_refused(with(config, {{"use_sliding_window", true}}), ErrorCode::kUnsupported, "max_window_layers: met 6");
}

TEST(HfConfig, Qwen3HasItsOwnHeadWidth) {
  const Keys keys = read(with(config_of("qwen3"), {{"head_dim", 128}, {"layer_types", json(12, "full_attention")}}));
  EXPECT_EQ(text(keys, "general.architecture"), "qwen3");
  EXPECT_EQ(integer(keys, "qwen3.attention.key_length"), 128);
  EXPECT_FALSE(get<bool>(keys, "qwen3.attention.bias"));
  EXPECT_FALSE(keys.contains("qwen3.attention.sliding_window"));
}

json gemma_layers(int n, int pattern) {
  json layers = json::array();
  for (int i = 1; i <= n; ++i) layers.push_back(i % pattern == 0 ? "full_attention" : "sliding_attention");
  return layers;
}

TEST(HfConfig, Gemma3InBothSpellings) {
  const json common =
      with(config_of("gemma3_text"),
           {{"head_dim", 32}, {"sliding_window", 512}, {"query_pre_attn_scalar", 64}, {"hidden_activation", "gelu_pytorch_tanh"}});
  const Keys old_style = read(with(common, {{"rope_theta", 2e6},
                                            {"rope_local_base_freq", 2e4},
                                            {"sliding_window_pattern", 6},
                                            {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}}));
  const Keys new_style = read(with(common, {{"layer_types", gemma_layers(12, 6)},
                                            {"rope_parameters",
                                             {{"full_attention", {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 2e6}}},
                                              {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 2e4}}}}}}));
  EXPECT_EQ(old_style, new_style);
  EXPECT_EQ(text(new_style, "general.architecture"), "gemma3");
  EXPECT_EQ(number(new_style, "gemma3.rope.freq_base"), 2e6);
  EXPECT_EQ(number(new_style, "gemma3.rope.freq_base_swa"), 2e4);
  EXPECT_EQ(text(new_style, "gemma3.rope.scaling.type"), "linear");
  EXPECT_EQ(number(new_style, "gemma3.rope.scaling.factor"), 8);
  EXPECT_EQ(integer(new_style, "gemma3.attention.sliding_window"), 512);
  EXPECT_EQ(integer(new_style, "gemma3.attention.sliding_window_pattern"), 6);
  EXPECT_EQ(number(new_style, "gemma3.attention.scale"), 0.125);
  EXPECT_EQ(integer(new_style, "gemma3.attention.key_length"), 32);
  EXPECT_TRUE(get<bool>(new_style, "gemma3.tie_word_embeddings"));
  EXPECT_FALSE(new_style.contains("gemma3.final_logit_softcapping"));
}

TEST(HfConfig, Gemma3FallsBackToItsClassDefaults) {
  // What the published 4B file states; the rest are the defaults of transformers' Gemma3TextConfig.
  const Keys keys = read(json{{"model_type", "gemma3"},
                              {"architectures", {"Gemma3ForConditionalGeneration"}},
                              {"eos_token_id", {1, 106}},
                              {"text_config",
                               {{"hidden_size", 2560},
                                {"intermediate_size", 10240},
                                {"model_type", "gemma3_text"},
                                {"num_hidden_layers", 34},
                                {"rope_scaling", {{"factor", 8.0}, {"rope_type", "linear"}}},
                                {"sliding_window", 1024}}}});
  EXPECT_EQ(integer(keys, "gemma3.embedding_length"), 2560);
  EXPECT_EQ(integer(keys, "gemma3.block_count"), 34);
  EXPECT_EQ(integer(keys, "gemma3.attention.head_count"), 8);
  EXPECT_EQ(integer(keys, "gemma3.attention.head_count_kv"), 4);
  EXPECT_EQ(integer(keys, "gemma3.attention.key_length"), 256);
  EXPECT_EQ(integer(keys, "gemma3.vocab_size"), 262208);
  EXPECT_EQ(integer(keys, "gemma3.context_length"), 131072);
  EXPECT_EQ(number(keys, "gemma3.attention.layer_norm_rms_epsilon"), 1e-6);
  EXPECT_EQ(number(keys, "gemma3.attention.scale"), 0.0625);
  EXPECT_EQ(number(keys, "gemma3.rope.freq_base"), 1e6);
  EXPECT_EQ(number(keys, "gemma3.rope.freq_base_swa"), 1e4);
  EXPECT_EQ(integer(keys, "gemma3.attention.sliding_window_pattern"), 6);
  EXPECT_EQ(integer(keys, "tokenizer.ggml.eos_token_id"), 1);
}

TEST(HfConfig, LayerTypesNeedAPeriod) {
  const json config =
      with(config_of("gemma3_text"), {{"sliding_window", 8}, {"attn_logit_softcapping", 50.0}, {"final_logit_softcapping", 30}});
  const auto pattern = [&](const json& types) {
    return integer(read(with(config, {{"layer_types", types}})), "gemma3.attention.sliding_window_pattern");
  };
  EXPECT_EQ(pattern(gemma_layers(12, 4)), 4);
  EXPECT_EQ(pattern(gemma_layers(12, 12)), 12);
  EXPECT_EQ(pattern(json(12, "sliding_attention")), 13);
  const Keys full = read(with(config, {{"layer_types", json(12, "full_attention")}}));
  EXPECT_FALSE(full.contains("gemma3.attention.sliding_window"));
  EXPECT_EQ(number(full, "gemma3.attn_logit_softcapping"), 50);
  EXPECT_EQ(number(full, "gemma3.final_logit_softcapping"), 30);
  json irregular = gemma_layers(12, 6);
  irregular[7] = "full_attention";
  expect_refused(with(config, {{"layer_types", irregular}}), ErrorCode::kUnsupported, "layer 7 out of step");
  expect_refused(with(config, {{"layer_types", gemma_layers(11, 6)}}), ErrorCode::kCorruptFile, "11 entries for 12 layers");
  expect_refused(with(config, {{"layer_types", json(12, "linear_attention")}}), ErrorCode::kUnsupported, "'linear_attention'");
  expect_refused(with(config, {{"layer_types", json(12, 1)}}), ErrorCode::kCorruptFile, "expected strings");
  expect_refused(with(config, {{"layer_types", "full_attention"}}), ErrorCode::kCorruptFile, "expected an array");
  expect_refused(with(config, {{"sliding_window_pattern", 0}}), ErrorCode::kCorruptFile, "expected at least 1");
  expect_refused(with(config_of("qwen3"), {{"layer_types", json(12, "sliding_attention")}}), ErrorCode::kCorruptFile,
                 "sliding_window is missing");
}

TEST(HfConfig, WhatIsNotImplementedIsNamed) {
  expect_refused(with(config_of("llama"), {{"model_type", "mamba\n"}}), ErrorCode::kUnsupported, "model_type: met 'mamba\\x0a'");
  expect_refused(without(config_of("llama"), "model_type"), ErrorCode::kCorruptFile, "model_type is missing");
  expect_refused(with(config_of("llama"), {{"architectures", {"LlamaForSequenceClassification"}}}), ErrorCode::kUnsupported,
                 "'LlamaForSequenceClassification'");
  expect_refused(with(config_of("llama"), {{"architectures", "LlamaForCausalLM"}}), ErrorCode::kCorruptFile,
                 "expected an array of strings");
  expect_refused(with(config_of("llama"), {{"architectures", {1}}}), ErrorCode::kCorruptFile, "expected strings");
  expect_refused(with(config_of("llama"), {{"hidden_act", "gelu"}}), ErrorCode::kUnsupported, "hidden_act: met 'gelu', expected silu");
  expect_refused(with(config_of("gemma3_text"), {{"hidden_activation", "silu"}}), ErrorCode::kUnsupported, "expected gelu_pytorch_tanh");
  expect_refused(with(config_of("llama"), {{"mlp_bias", true}}), ErrorCode::kUnsupported, "mlp_bias: met true");
  expect_refused(with(config_of("gemma3_text"), {{"use_bidirectional_attention", true}}), ErrorCode::kUnsupported,
                 "use_bidirectional_attention");
  expect_refused(with(config_of("llama"), {{"quantization_config", {{"bits", 4}}}}), ErrorCode::kUnsupported, "quantization_config");
}

TEST(HfConfig, EveryFieldIsNeededAndTyped) {
  for (const char* field : {"num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size",
                            "max_position_embeddings", "rms_norm_eps"}) {
    expect_refused(without(config_of("llama"), field), ErrorCode::kCorruptFile, std::string(field) + " is missing");
    expect_refused(with(config_of("llama"), {{field, nullptr}}), ErrorCode::kCorruptFile, std::string(field) + " is missing");
    expect_refused(with(config_of("llama"), {{field, "12"}}), ErrorCode::kCorruptFile, std::string(field) + ": met string");
    if (std::string_view(field) == "rms_norm_eps") continue;
    expect_refused(with(config_of("llama"), {{field, 12.0}}), ErrorCode::kCorruptFile, "expected an integer");
    expect_refused(with(config_of("llama"), {{field, UINT64_MAX}}), ErrorCode::kCorruptFile, "below 2^63");
  }
  expect_refused(with(config_of("llama"), {{"num_attention_heads", 0}}), ErrorCode::kCorruptFile,
                 "not a multiple of num_attention_heads 0");
  expect_refused(with(config_of("llama"), {{"num_attention_heads", 5}}), ErrorCode::kCorruptFile,
                 "not a multiple of num_attention_heads 5");
  expect_refused(with(config_of("llama"), {{"tie_word_embeddings", 1}}), ErrorCode::kCorruptFile, "expected a boolean");
  expect_refused(with(config_of("llama"), {{"hidden_act", 1}}), ErrorCode::kCorruptFile, "expected a string");
  expect_refused(with(config_of("llama"), {{"rope_scaling", 1}}), ErrorCode::kCorruptFile, "expected an object");
  expect_refused(with(config_of("llama"), {{"eos_token_id", {1, "2"}}}), ErrorCode::kCorruptFile, "expected an integer");
  expect_refused(with(config_of("gemma3_text"), {{"query_pre_attn_scalar", 0}}), ErrorCode::kCorruptFile, "expected above 0");
  expect_refused(json::array(), ErrorCode::kCorruptFile, "expected an object");
}

TEST(HfConfig, TextsThatAreNoStrictJson) {
  const auto refused = [](const std::string& config, std::string_view part) {
    expect_error(ErrorCode::kCorruptFile, part, [&] { read(HfTexts{.config = config}); });
  };
  refused("", "met null, expected an object");
  refused("{", "not JSON");
  refused("{} x", "not JSON");
  refused("{\"a\":NaN}", "not JSON");
  refused("{\"a\":1e400}", "not JSON");
  refused("{\"a\":\"\xFF\"}", "not JSON");
  refused(std::string("{}\0{}", 5), "a zero byte at offset 2");
  refused(R"({"a":1,"b":{"a":1},"a":2})", "key 'a' occurs twice");
  refused(R"({"b":{"a":1,"\u0061":1}})", "key 'a' occurs twice");
  refused(std::string(100'000, '['), "nested deeper than 64");
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "{\"a\":";
  refused(deep, "nested deeper than 64");
}

TEST(HfConfig, GenerationConfigHasTheLastWordOnTokens) {
  const HfTexts texts{.config = with(config_of("llama"), {{"eos_token_id", 2}, {"bos_token_id", 1}}).dump(),
                      .generation_config = R"({"eos_token_id":[7,8],"pad_token_id":0})"};
  const Keys keys = read(texts);
  EXPECT_EQ(integer(keys, "tokenizer.ggml.eos_token_id"), 7);
  EXPECT_EQ(get<std::vector<int64_t>>(keys, "tokenizer.ggml.eos_token_ids"), (std::vector<int64_t>{7, 8}));
  EXPECT_EQ(integer(keys, "tokenizer.ggml.bos_token_id"), 1);
  EXPECT_EQ(integer(keys, "tokenizer.ggml.padding_token_id"), 0);
}

TEST(HfConfig, ChatTemplates) {
  HfTexts texts{.config = config_of("llama").dump()};
  const auto found = [&] { return text(read(texts), "tokenizer.chat_template"); };
  EXPECT_FALSE(read(texts).contains("tokenizer.chat_template"));
  texts.tokenizer_config = R"({"add_bos_token":true,"add_eos_token":false,"chat_template":null})";
  const Keys flags = read(texts);
  EXPECT_TRUE(get<bool>(flags, "tokenizer.ggml.add_bos_token"));
  EXPECT_FALSE(get<bool>(flags, "tokenizer.ggml.add_eos_token"));
  EXPECT_FALSE(flags.contains("tokenizer.chat_template"));
  texts.tokenizer_config = R"({"chat_template":"one"})";
  EXPECT_EQ(found(), "one");
  texts.tokenizer_config = R"({"chat_template":[{"name":"tool_use","template":"x"},{"name":"default","template":"two"}]})";
  EXPECT_EQ(found(), "two");
  texts.chat_template = "file";
  EXPECT_EQ(found(), "file");
  texts.chat_template.clear();
  texts.tokenizer_config = R"({"chat_template":[{"name":"tool_use","template":"x"}]})";
  EXPECT_FALSE(read(texts).contains("tokenizer.chat_template"));
  texts.tokenizer_config = R"({"chat_template":7})";
  expect_error(ErrorCode::kCorruptFile, "tokenizer_config.json: chat_template: met number, expected a string", [&] { read(texts); });
}

}  // namespace
}  // namespace minillm
