// safetensors_forward_test.cpp - one model in two formats gives the same logits: Hugging Face's halves and w - 1 norms against GGUF's
// interleaved pairs and whole norms.
#include <gtest/gtest.h>

#include <algorithm>

#include "minillm/error.h"
#include "minillm/model.h"
#include "support/safetensors_writer.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

namespace minillm {
namespace {

using test::TinyModel;
using test::TinyTensor;

std::string hugging_face_name(std::string name, bool post_norms) {
  if (name == "token_embd.weight") return "model.embed_tokens.weight";
  if (name == "output_norm.weight") return "model.norm.weight";
  if (name == "output.weight") return "lm_head.weight";
  const std::pair<const char*, const char*> parts[] = {{"blk.", "model.layers."},
                                                       {"attn_norm", "input_layernorm"},
                                                       {"attn_q_norm", "self_attn.q_norm"},
                                                       {"attn_k_norm", "self_attn.k_norm"},
                                                       {"attn_q.", "self_attn.q_proj."},
                                                       {"attn_k.", "self_attn.k_proj."},
                                                       {"attn_v.", "self_attn.v_proj."},
                                                       {"attn_output", "self_attn.o_proj"},
                                                       {"ffn_norm", post_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm"},
                                                       {"post_attention_norm", "post_attention_layernorm"},
                                                       {"post_ffw_norm", "post_feedforward_layernorm"},
                                                       {"ffn_gate", "mlp.gate_proj"},
                                                       {"ffn_up", "mlp.up_proj"},
                                                       {"ffn_down", "mlp.down_proj"}};
  for (const auto& [gguf, other] : parts)
    if (const size_t at = name.find(gguf); at != std::string::npos) name.replace(at, std::string(gguf).size(), other);
  return name;
}

/// Row 2i + j of a head becomes row i + j D / 2.
void unpermute(TinyTensor& tensor, size_t head_dim) {
  const size_t width = tensor.shape.size() == 2 ? static_cast<size_t>(tensor.shape[1]) : 1;
  const std::vector<float> old = tensor.values;
  for (size_t row = 0; row < static_cast<size_t>(tensor.shape[0]); ++row) {
    const size_t in_head = row % head_dim, to = row - in_head + in_head / 2 + in_head % 2 * head_dim / 2;
    std::copy_n(old.begin() + static_cast<ptrdiff_t>(row * width), width, tensor.values.begin() + static_cast<ptrdiff_t>(to * width));
  }
}

std::string config_json(const ModelConfig& c) {
  const bool gemma = c.architecture == "gemma3";
  const auto field = [](const char* name, auto value) { return std::string("\"") + name + "\": " + std::to_string(value) + ", "; };
  std::string json = "{\"model_type\": \"" + (gemma ? "gemma3_text" : c.architecture) + "\", ";
  json += field("num_hidden_layers", c.n_layers) + field("hidden_size", c.hidden_size) + field("num_attention_heads", c.n_heads) +
          field("num_key_value_heads", c.n_kv_heads) + field("head_dim", c.head_dim) + field("intermediate_size", c.ffn_size) +
          field("vocab_size", c.vocab_size) + field("max_position_embeddings", c.context_length) + field("rope_theta", c.rope_base);
  json += gemma ? "\"rms_norm_eps\": 1e-06, " : "\"rms_norm_eps\": 1e-05, ";
  if (gemma)
    json += field("sliding_window", c.sliding_window) + field("query_pre_attn_scalar", c.head_dim) + field("rope_local_base_freq", 10000.0);
  return json + "\"tie_word_embeddings\": " + (c.tied_embeddings ? "true" : "false") + "}";
}

class SameModel : public testing::TestWithParam<std::string> {};

TEST_P(SameModel, GivesTheSameLogitsFromBothFormats) {
  const TinyModel tiny = test::tiny_model(GetParam());
  const test::TempFolder folder;
  const std::string gguf = folder.write("model.gguf", tiny.writer().image().bytes);

  std::vector<test::SafetensorsEntry> entries;
  for (auto [name, tensor] : tiny.tensors) {
    const bool rotated = name.find("attn_q.") != std::string::npos || name.find("attn_k.") != std::string::npos;
    if (rotated && tiny.config.architecture == "llama") unpermute(tensor, static_cast<size_t>(tiny.config.head_dim));
    if (tiny.config.architecture == "gemma3" && name.find("norm") != std::string::npos)
      for (float& w : tensor.values) w -= 1.0f;
    entries.push_back({hugging_face_name(name, tiny.config.post_norms), "F32", tensor.shape,
                       std::string(reinterpret_cast<const char*>(tensor.values.data()), tensor.values.size() * sizeof(float))});
  }
  const test::TempFolder model_folder;
  model_folder.write("model.safetensors", test::safetensors_file(entries));
  model_folder.write("config.json", config_json(tiny.config));

  LoadOptions options;
  options.device = parse_device("reference");
  options.kv_dtype = Dtype::kF32;
  MiniLLM from_gguf = MiniLLM::load(gguf, options), from_folder = MiniLLM::load(model_folder.path(), options);
  std::vector<TokenId> ids;
  for (int i = 0; i < 30; ++i) ids.push_back(i * 37 % 96);
  const Tensor want = from_gguf.forward(Tensor::from_ids({ids})), got = from_folder.forward(Tensor::from_ids({ids}));
  for (size_t i = 0; i < static_cast<size_t>(want.n_elements()); ++i)
    ASSERT_NEAR(got.values<float>()[i], want.values<float>()[i], 2e-4f) << i;  // Rows summed in another order; w - 1 + 1 rounds.
}

INSTANTIATE_TEST_SUITE_P(Families, SameModel, testing::Values("llama", "qwen2", "qwen3", "gemma3"),
                         [](const auto& test) { return test.param; });

TEST(HuggingFaceFolder, MayStoreATiedTableTwice) {
  const TinyModel tiny = test::tiny_model("qwen2");
  std::vector<test::SafetensorsEntry> entries;
  for (const auto& [name, tensor] : tiny.tensors)
    entries.push_back({hugging_face_name(name, false), "F32", tensor.shape,
                       std::string(reinterpret_cast<const char*>(tensor.values.data()), tensor.values.size() * sizeof(float))});
  entries.push_back({"lm_head.weight", "F32", {96, 32}, std::string(96 * 32 * 4, '\0')});
  entries.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {4}, std::string(16, '\0')});
  const test::TempFolder folder;
  folder.write("model.safetensors", test::safetensors_file(entries));
  folder.write("config.json", config_json(tiny.config));
  LoadOptions options;
  options.device = parse_device("reference");
  MiniLLM model = MiniLLM::load(folder.path(), options);
  EXPECT_TRUE(model.config().tied_embeddings);
  const Tensor logits = model.forward(Tensor::from_ids({{1, 2}}));
  EXPECT_TRUE(std::ranges::any_of(logits.values<float>(), [](float v) { return v != 0.0f; }));  // Not those of the zeros.
}

}  // namespace
}  // namespace minillm
