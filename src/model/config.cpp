// config.cpp - the rules a configuration must keep, and the shapes known by name.
#include "minillm/config.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/dtype.h"
#include "minillm/error.h"
#include "model/families.h"
#include "model/hyperparameters.h"

namespace minillm {
namespace {

template <typename Value>
void check_range(std::string_view field, Value value, double min, double max) {
  if (std::isfinite(static_cast<double>(value)) && static_cast<double>(value) >= min && static_cast<double>(value) <= max) return;
  throw Error(ErrorCode::kInvalidArgument, "config: ", field, " is ", value, ", expected ", min, " to ", max);
}

template <typename Struct, typename Member>
void check_field(const Struct& owner, std::string_view field, const Member& member, double min, double max, bool zero_is_unset) {
  std::visit(
      [&](auto pointer) {
        const auto value = owner.*pointer;
        if (!(zero_is_unset && value == 0)) check_range(field, value, min, max);
      },
      member);
}

/// E times the widest stack of rows: far above any model, and low enough that byte counts fit 62 bits.
constexpr double kMaxMatrixElements = 0x1p40;

ModelConfig llama_type(std::string name, int64_t n_layers, int64_t hidden, int64_t n_heads, int64_t n_kv_heads, int64_t ffn,
                       int64_t context) {
  ModelConfig config;
  config.name = std::move(name);
  config.n_layers = n_layers;
  config.hidden_size = hidden;
  config.n_heads = n_heads;
  config.n_kv_heads = n_kv_heads;
  config.head_dim = hidden / n_heads;
  config.ffn_size = ffn;
  config.vocab_size = 32000;
  config.context_length = context;
  return config;
}

ModelConfig smollm2_135m() {
  ModelConfig config = llama_type("smollm2-135m", 30, 576, 9, 3, 1536, 8192);
  config.vocab_size = 49152;
  config.rope_base = 100000.0f;
  return config;
}

ModelConfig llama_3(std::string name, int64_t n_layers, int64_t hidden, int64_t ffn, float rope_factor, bool tied) {
  ModelConfig config = llama_type(std::move(name), n_layers, hidden, 32, 8, ffn, 131072);
  config.vocab_size = 128256;
  config.rope_base = 500000.0f;
  config.tied_embeddings = tied;
  config.rope_scaling = {RopeScaling::Kind::kLlama3, rope_factor, 1.0f, 4.0f, 8192};
  return config;
}

struct NamedShape {
  std::string_view name;
  ModelConfig (*make)();
};
constexpr std::array<NamedShape, 6> kShapes{{
    {"small", Configs::small},
    {"medium", Configs::medium},
    {"large", Configs::large},
    {"smollm2-135m", smollm2_135m},
    {"llama-3.2-1b", [] { return llama_3("llama-3.2-1b", 16, 2048, 8192, 32.0f, true); }},
    {"llama-3.1-8b", [] { return llama_3("llama-3.1-8b", 32, 4096, 14336, 8.0f, false); }},
}};

}  // namespace

void ModelConfig::validate() const {
  family_of(architecture);
  for (const Hyperparameter& row : kHyperparameters) check_field(*this, row.field, row.member, row.min, row.max, row.zero_is_unset);
  if (rope_scaling.kind != RopeScaling::Kind::kNone)
    for (const RopeHyperparameter& row : kRopeHyperparameters) check_field(rope_scaling, row.field, row.member, row.min, row.max, false);

  if (n_heads % n_kv_heads != 0)
    throw Error(ErrorCode::kInvalidArgument, "config: n_heads is ", n_heads, ", expected a multiple of n_kv_heads, ", n_kv_heads);
  if (head_dim % 2 != 0) throw Error(ErrorCode::kInvalidArgument, "config: head_dim is ", head_dim, ", expected an even number");
  if (rope_dim % 2 != 0 || rope_dim > head_dim)
    throw Error(ErrorCode::kInvalidArgument, "config: rope_dim is ", rope_dim, ", expected an even number up to head_dim, ", head_dim);
  if (rope_scaling.kind == RopeScaling::Kind::kLlama3 && rope_scaling.high_freq_factor <= rope_scaling.low_freq_factor)
    throw Error(ErrorCode::kInvalidArgument, "config: rope_scaling.high_freq_factor is ", rope_scaling.high_freq_factor,
                ", expected more than low_freq_factor, ", rope_scaling.low_freq_factor);
  if (!is_cache_dtype(kv_dtype))
    throw Error(ErrorCode::kInvalidArgument, "config: kv_dtype is ", name_of(kv_dtype), ", expected ", kCacheDtypes);
  const double widest = static_cast<double>(std::max({q_size() + 2 * kv_size(), 2 * ffn_size, vocab_size}));
  if (static_cast<double>(hidden_size) * widest > kMaxMatrixElements)
    throw Error(ErrorCode::kInvalidArgument, "config: a matrix of ", hidden_size, " x ", widest, " elements, expected at most ",
                kMaxMatrixElements);
}

int64_t ModelConfig::n_parameters() const noexcept {
  const int64_t qkv_rows = q_size() + 2 * kv_size();
  const int64_t norms = (post_norms ? 4 : 2) * hidden_size + (qk_norm ? 2 * head_dim : 0);
  const int64_t attention = hidden_size * (qkv_rows + q_size()) + (qkv_bias ? qkv_rows : 0);
  const int64_t layer = norms + attention + 3 * hidden_size * ffn_size;
  return n_layers * layer + hidden_size + (tied_embeddings ? 1 : 2) * vocab_size * hidden_size;
}

ModelConfig Configs::small() { return llama_type("small", 8, 512, 8, 8, 1536, 2048); }
ModelConfig Configs::medium() { return llama_type("medium", 12, 768, 12, 4, 2048, 4096); }
ModelConfig Configs::large() { return llama_type("large", 24, 1024, 16, 4, 2816, 8192); }

ModelConfig Configs::by_name(const std::string& name) {
  std::string known;
  for (const NamedShape& shape : kShapes) {
    if (shape.name == name) return shape.make();
    (known += known.empty() ? "" : ", ") += shape.name;
  }
  throw Error(ErrorCode::kNotFound, "shape '", name, "': expected one of ", known);
}

}  // namespace minillm
