// hf_config.cpp - translates config.json; the table of keys is in hf_config.h.
#include "io/hf_config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <string_view>
#include <system_error>

#include "io/json.h"
#include "io/printable.h"
#include "minillm/error.h"

namespace minillm {
namespace {

/// What the families differ in.
struct Family {
  std::string_view model_type, architecture, activation;
  bool tied_by_default;
};
constexpr Family kFamilies[] = {{"llama", "llama", "silu", false},
                                {"mistral", "llama", "silu", false},
                                {"qwen2", "qwen2", "silu", false},
                                {"qwen3", "qwen3", "silu", false},
                                {"gemma3_text", "gemma3", "gelu_pytorch_tanh", true}};

void refuse_quantised(const JsonObject& config) {
  if (config.has("quantization_config")) config.unsupported("quantization_config", "an object", "none: weights in F32, F16 or BF16");
}

class Translator {
 public:
  Translator(const JsonObject& config, const Family& family)
      : config_(config), family_(family), prefix_(std::string(family.architecture) + ".") {}

  std::vector<std::pair<std::string, MetadataValue>> translate() {
    out_.emplace_back("general.architecture", std::string(family_.architecture));
    refuse_variants();
    sizes();
    rope();
    windows();
    if (is_gemma()) gemma();
    return std::move(out_);
  }

 private:
  bool is_gemma() const { return family_.architecture == "gemma3"; }
  void add(const char* name, MetadataValue value) { out_.emplace_back(prefix_ + name, std::move(value)); }
  void refuse_variants() const;
  void sizes();
  void rope();
  void rope_scaling(const JsonObject& parameters);
  void windows();
  int64_t sliding_pattern() const;
  int64_t pattern_of(const nlohmann::json& layer_types) const;
  void gemma();

  const JsonObject& config_;
  const Family& family_;
  std::string prefix_;
  int64_t n_layers_ = 0, head_dim_ = 0;
  std::vector<std::pair<std::string, MetadataValue>> out_;
};

void Translator::refuse_variants() const {
  for (const char* name : {"hidden_act", "hidden_activation"})
    if (const auto activation = config_.text(name); activation && *activation != family_.activation) {
      // Gemma's first configurations say "gelu" in hidden_act and mean hidden_activation.
      if (is_gemma() && std::string_view(name) == "hidden_act" && config_.has("hidden_activation")) continue;
      config_.unsupported(name, printable(*activation), family_.activation);
    }
  for (const char* name : {"mlp_bias", "use_bidirectional_attention"})
    if (config_.boolean(name).value_or(false)) config_.unsupported(name, "true", "false");
}

void Translator::sizes() {
  // The published Gemma 3 files leave out what equals the defaults of its class; the other families' files are complete.
  const auto size = [&](const char* name, int64_t gemma) {
    return is_gemma() ? config_.integer(name).value_or(gemma) : config_.need_integer(name);
  };
  n_layers_ = size("num_hidden_layers", 26);
  const int64_t hidden = size("hidden_size", 2304), n_heads = size("num_attention_heads", 8);
  auto head_dim = config_.integer("head_dim");
  if (!head_dim && is_gemma()) head_dim = 256;
  if (!head_dim && (n_heads <= 0 || hidden % n_heads != 0))
    config_.corrupt("hidden_size ", hidden, " is not a multiple of num_attention_heads ", n_heads, ", and there is no head_dim");
  head_dim_ = head_dim ? *head_dim : hidden / n_heads;
  add("block_count", n_layers_);
  add("embedding_length", hidden);
  add("feed_forward_length", size("intermediate_size", 9216));
  add("vocab_size", size("vocab_size", 262208));
  add("context_length", size("max_position_embeddings", 131072));
  add("attention.head_count", n_heads);
  add("attention.head_count_kv", config_.integer("num_key_value_heads").value_or(is_gemma() ? 4 : n_heads));
  add("attention.key_length", head_dim_);
  add("attention.value_length", head_dim_);
  add("attention.layer_norm_rms_epsilon", is_gemma() ? config_.number("rms_norm_eps").value_or(1e-6) : config_.need_number("rms_norm_eps"));
  add("attention.bias", family_.model_type == "qwen2" || config_.boolean("attention_bias").value_or(false));
  add("tie_word_embeddings", config_.boolean("tie_word_embeddings").value_or(family_.tied_by_default));
}

void Translator::rope() {
  // Version 5 has rope_parameters, for Gemma 3 one object a layer type; version 4 has rope_theta beside rope_scaling.
  auto parameters = config_.object("rope_parameters");
  std::optional<double> local;
  if (parameters && parameters->has("full_attention")) {
    if (const auto sliding = parameters->object("sliding_attention")) local = sliding->number("rope_theta");
    parameters = parameters->object("full_attention");
  }
  auto base = parameters ? parameters->number("rope_theta") : std::nullopt;
  if (!base) base = config_.number("rope_theta");
  if (!local) local = config_.number("rope_local_base_freq");
  add("rope.freq_base", base.value_or(is_gemma() ? 1e6 : 1e4));
  if (is_gemma()) add("rope.freq_base_swa", local.value_or(1e4));

  auto rotated = parameters ? parameters->number("partial_rotary_factor") : std::nullopt;
  if (!rotated) rotated = config_.number("partial_rotary_factor");
  if (rotated && !(*rotated > 0.0 && *rotated <= 1.0)) config_.corrupt("partial_rotary_factor: met ", *rotated, ", expected above 0 to 1");
  if (rotated && (head_dim_ < 0 || head_dim_ > INT32_MAX))  // Beyond, the product may not fit an integer.
    config_.corrupt("head_dim: met ", head_dim_, ", expected 0 to 2^31 - 1");
  add("rope.dimension_count", rotated ? static_cast<int64_t>(static_cast<double>(head_dim_) * *rotated) : head_dim_);

  const auto scaling = config_.object("rope_scaling");
  if (scaling)
    rope_scaling(*scaling);
  else if (parameters)
    rope_scaling(*parameters);
  else
    add("rope.scaling.type", "none");
}

void Translator::rope_scaling(const JsonObject& parameters) {
  auto type = parameters.text("rope_type");
  if (!type) type = parameters.text("type");  // Before transformers 4.43.
  if (!type || *type == "default") return add("rope.scaling.type", "none");
  if (*type != "linear" && *type != "llama3") parameters.unsupported("rope_type", printable(*type), "default, linear or llama3");
  add("rope.scaling.type", *type);
  add("rope.scaling.factor", parameters.need_number("factor"));
  if (*type == "llama3") {
    add("rope.scaling.low_freq_factor", parameters.need_number("low_freq_factor"));
    add("rope.scaling.high_freq_factor", parameters.need_number("high_freq_factor"));
    add("rope.scaling.original_context_length", parameters.need_integer("original_max_position_embeddings"));
  }
}

/// Which layers slide, as the number n of sliding_window_pattern: every n-th is global. 0: all slide; 1: none does.
int64_t Translator::sliding_pattern() const {
  if (const nlohmann::json* types = config_.find("layer_types")) return pattern_of(*types);
  if (is_gemma()) {
    const int64_t pattern = config_.integer("sliding_window_pattern").value_or(6);
    if (pattern < 1) config_.corrupt("sliding_window_pattern: met ", pattern, ", expected at least 1");
    return pattern;
  }
  if (family_.model_type == "mistral") return config_.has("sliding_window") ? 0 : 1;
  if (family_.model_type == "llama" || !config_.boolean("use_sliding_window").value_or(false)) return 1;
  const int64_t first = config_.integer("max_window_layers").value_or(n_layers_);  // Qwen: from this layer on all slide.
  if (first > 0 && first < n_layers_) config_.unsupported("max_window_layers", first, "0 or at least num_hidden_layers");
  return first <= 0 ? 0 : 1;
}

int64_t Translator::pattern_of(const nlohmann::json& layer_types) const {
  if (!layer_types.is_array()) config_.wrong("layer_types", layer_types, "an array");
  if (static_cast<int64_t>(layer_types.size()) != n_layers_)
    config_.corrupt("layer_types: ", layer_types.size(), " entries for ", n_layers_, " layers");
  std::vector<bool> slides;
  for (const nlohmann::json& type : layer_types) {
    if (!type.is_string()) config_.wrong("layer_types", type, "strings");
    const auto& name = type.get_ref<const std::string&>();
    if (name != "sliding_attention" && name != "full_attention")
      config_.unsupported("layer_types", printable(name), "sliding_attention or full_attention");
    slides.push_back(name == "sliding_attention");
  }
  const auto first_global = std::ranges::find(slides, false);
  // Gemma's period is 6 where none is given, so that "all slide" has to be said: by a period that no layer reaches.
  if (first_global == slides.end()) return is_gemma() ? n_layers_ + 1 : 0;
  const size_t pattern = static_cast<size_t>(first_global - slides.begin()) + 1;
  for (size_t i = 0; i < slides.size(); ++i)
    if (slides[i] == ((i + 1) % pattern == 0))
      config_.unsupported("layer_types", "layer " + std::to_string(i) + " out of step", "every n-th layer global, the others sliding");
  return static_cast<int64_t>(pattern);
}

void Translator::windows() {
  const int64_t pattern = sliding_pattern();
  if (pattern == 1) return;
  auto window = config_.integer("sliding_window");
  if (!window && is_gemma()) window = 4096;
  if (!window) config_.corrupt("sliding_window is missing, but layers slide");
  add("attention.sliding_window", *window);
  if (pattern > 1) add("attention.sliding_window_pattern", pattern);
}

void Translator::gemma() {
  const double scalar = config_.number("query_pre_attn_scalar").value_or(256.0);
  if (!(scalar > 0.0)) config_.corrupt("query_pre_attn_scalar: met ", scalar, ", expected above 0");
  add("attention.scale", 1.0 / std::sqrt(scalar));
  if (const auto cap = config_.number("attn_logit_softcapping")) add("attn_logit_softcapping", *cap);
  if (const auto cap = config_.number("final_logit_softcapping")) add("final_logit_softcapping", *cap);
}

const Family& family_of(const JsonObject& config) {
  const auto model_type = config.text("model_type");
  if (!model_type) config.corrupt("model_type is missing");
  for (const Family& family : kFamilies)
    if (family.model_type == *model_type) return family;
  config.unsupported("model_type", printable(*model_type), "llama, mistral, qwen2, qwen3, gemma3_text or gemma3");
}

/// A head for something else than text (a classifier) would load as a model without an output head.
void check_architecture(const JsonObject& config) {
  const nlohmann::json* names = config.find("architectures");
  if (names == nullptr) return;
  if (!names->is_array()) config.wrong("architectures", *names, "an array of strings");
  for (const nlohmann::json& name : *names) {
    if (!name.is_string()) config.wrong("architectures", name, "strings");
    const auto& text = name.get_ref<const std::string&>();
    if (!text.ends_with("ForCausalLM") && !text.ends_with("ForConditionalGeneration"))
      config.unsupported("architectures", printable(text), "a model that generates text (...ForCausalLM)");
  }
}

using Pairs = std::vector<std::pair<std::string, MetadataValue>>;

/// Ids of the special tokens. generation_config.json is the later word on them.
void special_tokens(const JsonObject& config, const std::optional<JsonObject>& generation, Pairs& out) {
  const auto ids = [&](const char* name) {
    auto values = generation ? generation->integers(name) : std::vector<int64_t>{};
    return values.empty() ? config.integers(name) : values;
  };
  if (const auto bos = ids("bos_token_id"); !bos.empty()) out.emplace_back("tokenizer.ggml.bos_token_id", bos[0]);
  if (const auto pad = ids("pad_token_id"); !pad.empty()) out.emplace_back("tokenizer.ggml.padding_token_id", pad[0]);
  if (auto eos = ids("eos_token_id"); !eos.empty()) {
    out.emplace_back("tokenizer.ggml.eos_token_id", eos[0]);
    out.emplace_back("tokenizer.ggml.eos_token_ids", std::move(eos));
  }
}

/// tokenizer_config.json: a template is a text, or a list of {name, template}.
std::string template_of(const JsonObject& tokenizer) {
  const nlohmann::json* value = tokenizer.find("chat_template");
  if (value == nullptr) return "";
  if (!value->is_array()) return *tokenizer.text("chat_template");
  for (const nlohmann::json& element : *value) {
    const JsonObject entry(element, tokenizer.where() + ": chat_template");
    if (entry.text("name") == "default") return entry.text("template").value_or("");
  }
  return "";
}

/// The last component of a folder's path, also of "." and "a/".
std::string folder_name(const std::string& folder) {
  std::error_code ignored;
  const std::filesystem::path path = std::filesystem::absolute(folder, ignored).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

}  // namespace

Pairs read_hf_config(const HfTexts& texts, const std::string& where) {
  const auto parse = [&](const std::string& text, const char* name) -> nlohmann::json {
    return text.empty() ? nlohmann::json() : parse_json(text, where + "/" + name);
  };
  const nlohmann::json config_json = parse(texts.config, "config.json");
  const nlohmann::json generation_json = parse(texts.generation_config, "generation_config.json");
  const nlohmann::json tokenizer_json = parse(texts.tokenizer_config, "tokenizer_config.json");
  const auto optional = [&](const nlohmann::json& value, const char* name) -> std::optional<JsonObject> {
    if (value.is_null()) return std::nullopt;
    return JsonObject(value, where + "/" + name);
  };
  const JsonObject config(config_json, where + "/config.json");
  const auto generation = optional(generation_json, "generation_config.json");
  const auto tokenizer = optional(tokenizer_json, "tokenizer_config.json");

  check_architecture(config);
  // Gemma 3 with images: the language model's part lies in text_config, the token ids and quantisation outside.
  const auto text_part = config.text("model_type") == "gemma3" ? config.object("text_config") : std::nullopt;
  refuse_quantised(config);
  Pairs out = Translator(text_part ? *text_part : config, family_of(text_part ? *text_part : config)).translate();
  out.emplace_back("general.name", folder_name(where));
  special_tokens(config, generation, out);
  if (tokenizer) {
    for (const char* name : {"add_bos_token", "add_eos_token"})
      if (const auto flag = tokenizer->boolean(name)) out.emplace_back(std::string("tokenizer.ggml.") + name, *flag);
  }
  std::string chat_template = texts.chat_template;
  if (chat_template.empty() && tokenizer) chat_template = template_of(*tokenizer);
  if (!chat_template.empty()) out.emplace_back("tokenizer.chat_template", std::move(chat_template));
  return out;
}

}  // namespace minillm
