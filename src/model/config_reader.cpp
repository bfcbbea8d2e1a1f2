// config_reader.cpp - reads the hyperparameter table from a file's metadata.
#include "model/config_reader.h"

#include <cmath>
#include <string>

#include "io/printable.h"
#include "model/families.h"
#include "model/hyperparameters.h"
#include "model/tensor_names.h"

namespace minillm {
namespace {

/// Reads keys of one architecture and words the errors.
class Reader {
 public:
  explicit Reader(const TensorSource& source) : source_(source), prefix_(source.string("general.architecture") + ".") {}

  std::string key(std::string_view suffix) const { return prefix_ + std::string(suffix); }
  bool has(std::string_view suffix) const { return source_.has(key(suffix)); }
  int64_t integer(std::string_view suffix) const { return source_.integer(key(suffix)); }

  template <typename Struct, typename Member>
  void read(Struct& owner, std::string_view suffix, const Member& member, double min, double max) const {
    std::visit([&](auto pointer) { read_number(owner.*pointer, suffix, min, max); }, member);
  }

  [[noreturn]] void refuse(ErrorCode code, std::string_view suffix, const auto& met, const auto&... expected) const {
    throw Error(code, source_.path(), ": ", key(suffix), " is ", met, ", expected ", expected...);
  }

 private:
  void read_number(int64_t& out, std::string_view suffix, double min, double max) const {
    const int64_t value = source_.integer(key(suffix));
    if (static_cast<double>(value) < min || static_cast<double>(value) > max)
      refuse(ErrorCode::kCorruptFile, suffix, value, static_cast<int64_t>(min), " to ", static_cast<int64_t>(max));
    out = value;
  }
  void read_number(float& out, std::string_view suffix, double min, double max) const {
    const double value = source_.number(key(suffix));
    // Compared after rounding to float, which is what files hold: 1e-12f is a little below 1e-12.
    if (!(static_cast<float>(value) >= static_cast<float>(min) && static_cast<float>(value) <= static_cast<float>(max)))
      refuse(ErrorCode::kCorruptFile, suffix, value, min, " to ", max);
    out = static_cast<float>(value);
  }

  const TensorSource& source_;
  std::string prefix_;
};

RopeScaling read_rope_scaling(const TensorSource& source, const Reader& reader) {
  RopeScaling scaling;
  const std::string type =
      source.string(reader.key("rope.scaling.type"), std::string(reader.has("rope.scaling.factor") ? "linear" : "none"));
  if (type == "none" || type == "default") return scaling;
  if (type == "linear")
    scaling.kind = RopeScaling::Kind::kLinear;
  else if (type == "llama3")
    scaling.kind = RopeScaling::Kind::kLlama3;
  else
    reader.refuse(ErrorCode::kUnsupported, "rope.scaling.type", printable(type), "none, linear or llama3");
  for (const RopeHyperparameter& row : kRopeHyperparameters) {
    const bool used = scaling.kind == RopeScaling::Kind::kLlama3 || row.key == "rope.scaling.factor";
    if (used) reader.read(scaling, row.key, row.member, row.min, row.max);
  }
  return scaling;
}

/// The vocabulary is stated up to three times: by a key, by the list of tokens, and by the embedding's rows (checked with
/// the other shapes).
void read_vocab_size(ModelConfig& config, const TensorSource& source, const Reader& reader) {
  constexpr const char* kTokens = "tokenizer.ggml.tokens";
  const bool has_tokens = source.has(kTokens);
  const int64_t n_tokens = has_tokens ? static_cast<int64_t>(source.strings(kTokens).size()) : 0;
  if (config.vocab_size != 0) {
    if (has_tokens && n_tokens != config.vocab_size)
      reader.refuse(ErrorCode::kCorruptFile, "vocab_size", config.vocab_size, n_tokens, ", the number of ", kTokens);
    return;
  }
  const SourceTensor* embedding = source.find(TensorNames(source.names_are_gguf()).embedding());
  if (has_tokens)
    config.vocab_size = n_tokens;
  else if (embedding != nullptr && embedding->view.rank == 2)
    config.vocab_size = embedding->view.dim(0);
  else
    throw Error(ErrorCode::kNotFound, source.path(), ": no ", reader.key("vocab_size"), " and no ", kTokens);
}

/// A pattern is a period or, in newer files, one flag a layer (1 slides).
void read_sliding_pattern(ModelConfig& config, const TensorSource& source, const Reader& reader, const Hyperparameter& row) {
  const auto found = source.metadata().find(reader.key(row.key));
  const auto* flags = found == source.metadata().end() ? nullptr : std::get_if<std::vector<int64_t>>(&found->second);
  if (flags == nullptr) {
    reader.read(config, row.key, row.member, row.min, row.max);
    return;
  }
  if (static_cast<int64_t>(flags->size()) != config.n_layers)
    reader.refuse(ErrorCode::kCorruptFile, row.key, flags->size(), config.n_layers, " flags, one a layer");
  int64_t period = 0;  // No global layer at all: every layer slides.
  for (size_t i = 0; i < flags->size() && period == 0; ++i)
    if ((*flags)[i] == 0) period = static_cast<int64_t>(i) + 1;
  for (size_t i = 0; i < flags->size(); ++i) {
    const bool slides = period == 0 || (static_cast<int64_t>(i) + 1) % period != 0;
    if (slides != ((*flags)[i] != 0)) reader.refuse(ErrorCode::kUnsupported, row.key, "irregular", "every n-th layer to be global");
  }
  config.sliding_pattern = period;
}

void read_table(ModelConfig& config, const TensorSource& source, const Reader& reader) {
  for (const Hyperparameter& row : kHyperparameters) {
    if (row.key.empty() || (!row.required && !reader.has(row.key))) continue;
    if (row.field == "sliding_pattern")
      read_sliding_pattern(config, source, reader, row);
    else
      reader.read(config, row.key, row.member, row.min, row.max);
  }
}

/// Fields that follow from others where the file does not state them.
void derive(ModelConfig& config, const Family& family, const TensorSource& source, const Reader& reader) {
  if (config.n_kv_heads == 0) config.n_kv_heads = config.n_heads;
  if (config.head_dim == 0) {
    if (config.hidden_size % config.n_heads != 0)
      reader.refuse(ErrorCode::kCorruptFile, "embedding_length", config.hidden_size, "a multiple of ", config.n_heads, " heads, or ",
                    reader.key("attention.key_length"));
    config.head_dim = config.hidden_size / config.n_heads;
  }
  if (reader.has("attention.value_length") && reader.integer("attention.value_length") != config.head_dim)
    reader.refuse(ErrorCode::kUnsupported, "attention.value_length", reader.integer("attention.value_length"), config.head_dim,
                  ", the width of a key");
  if (config.sliding_window > 0) {
    if (!reader.has("attention.sliding_window_pattern")) config.sliding_pattern = family.sliding_pattern;
    if (config.local_rope_base == 0.0f) config.local_rope_base = family.local_rope_base;
  } else {
    config.sliding_pattern = 0;
    config.local_rope_base = 0.0f;
  }
  if (family.scaled_embeddings) config.embedding_scale = std::sqrt(static_cast<float>(config.hidden_size));
  // Gemma 3 27B alone divides by sqrt(E / H) = sqrt(168) instead of sqrt(D); its GGUF does not say so.
  if (config.architecture == "gemma3" && config.n_layers == 62 && config.attention_scale == 0.0f)
    config.attention_scale = 1.0f / std::sqrt(static_cast<float>(config.hidden_size) / static_cast<float>(config.n_heads));

  const TensorNames names(source.names_are_gguf());
  config.tied_embeddings = source.boolean(reader.key("tie_word_embeddings"), source.find(names.output()) == nullptr);
  config.qkv_bias =
      family.qkv_bias || source.boolean(reader.key("attention.bias"), false) || source.find(names.layer(0, LayerTensor::kQBias)) != nullptr;
}

}  // namespace

ModelConfig read_config(const TensorSource& source) {
  ModelConfig config;
  config.architecture = source.string("general.architecture");
  const Family& family = family_of(config.architecture);
  config.name = source.string("general.name", std::string());
  config.activation = family.activation;
  config.qk_norm = family.qk_norm;
  config.post_norms = family.post_norms;
  config.rope_layout = source.names_are_gguf() ? family.gguf_rope_layout : RopeLayout::kHalves;

  const Reader reader(source);
  if (reader.has("expert_count") && reader.integer("expert_count") != 0)
    reader.refuse(ErrorCode::kUnsupported, "expert_count", reader.integer("expert_count"), "0 (mixture of experts is not implemented)");
  read_table(config, source, reader);
  config.rope_scaling = read_rope_scaling(source, reader);
  read_vocab_size(config, source, reader);
  derive(config, family, source, reader);
  try {
    config.validate();
  } catch (const Error& error) {  // Each number is in range: what is left is how they fit together.
    throw Error(ErrorCode::kCorruptFile, source.path(), ": ", error.what());
  }
  return config;
}

}  // namespace minillm
