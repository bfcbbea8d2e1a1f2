// config.cpp - ModelConfig and Configs.
#include "bindings.h"

namespace minillm::python {
namespace {

/// ModelConfig(n_layers=8, ...): every field by name, checked.
void init_config(ModelConfig* self, const nb::kwargs& fields) {
  nb::object object = nb::cast(ModelConfig());
  for (const auto& [name, value] : fields) {
    if (!nb::hasattr(object, name)) throw nb::type_error(("ModelConfig: no field '" + nb::cast<std::string>(name) + "'").c_str());
    nb::setattr(object, name, value);
  }
  const auto& config = nb::cast<const ModelConfig&>(object);
  config.validate();
  new (self) ModelConfig(config);
}

std::string repr(const ModelConfig& c) {
  std::ostringstream out;
  out << "ModelConfig(architecture='" << c.architecture << "', n_layers=" << c.n_layers << ", hidden_size=" << c.hidden_size
      << ", n_heads=" << c.n_heads << ", n_kv_heads=" << c.n_kv_heads << ", head_dim=" << c.head_dim << ", ffn_size=" << c.ffn_size
      << ", vocab_size=" << c.vocab_size << ", context_length=" << c.context_length << ", kv_dtype='" << name_of(c.kv_dtype) << "')";
  return out.str();
}

void bind_scaling(nb::module_& m) {
  nb::enum_<Activation>(m, "Activation").value("SILU", Activation::kSilu).value("GELU_TANH", Activation::kGeluTanh);
  nb::enum_<RopeLayout>(m, "RopeLayout").value("INTERLEAVED", RopeLayout::kInterleaved).value("HALVES", RopeLayout::kHalves);
  nb::enum_<RopeScaling::Kind>(m, "RopeScalingKind")
      .value("NONE", RopeScaling::Kind::kNone)
      .value("LINEAR", RopeScaling::Kind::kLinear)
      .value("LLAMA3", RopeScaling::Kind::kLlama3);
  nb::class_<RopeScaling>(m, "RopeScaling", "Changes of the rotary frequencies for contexts longer than those trained on.")
      .def(nb::init<>())
      .def_rw("kind", &RopeScaling::kind)
      .def_rw("factor", &RopeScaling::factor)
      .def_rw("low_freq_factor", &RopeScaling::low_freq_factor)
      .def_rw("high_freq_factor", &RopeScaling::high_freq_factor)
      .def_rw("original_context", &RopeScaling::original_context);
}

}  // namespace

void bind_config(nb::module_& m) {
  bind_scaling(m);
  nb::class_<ModelConfig> config(m, "ModelConfig", "A decoder-only transformer: its sizes and the switches in which families differ.");
  config.def("__init__", &init_config, "fields"_a, nb::sig("def __init__(self, **fields: typing.Any) -> None"),
             "Every field by name; raises ValueError naming the first one out of range.");
  config.def("validate", &ModelConfig::validate, "Raises ValueError naming the first field out of range.")
      .def("layer_slides", &ModelConfig::layer_slides, "layer"_a, "Whether `layer` attends to a sliding window only.")
      .def_prop_ro("n_parameters", &ModelConfig::n_parameters, "Weights of the model, embeddings once if tied.")
      .def("__repr__", &repr);
  const auto field = [&config](const char* name, auto member, const char* doc) { config.def_rw(name, member, doc); };
  field("architecture", &ModelConfig::architecture, "'llama', 'qwen2', 'qwen3' or 'gemma3'.");
  field("name", &ModelConfig::name, "");
  field("n_layers", &ModelConfig::n_layers, "");
  field("hidden_size", &ModelConfig::hidden_size, "");
  field("n_heads", &ModelConfig::n_heads, "Query heads.");
  field("n_kv_heads", &ModelConfig::n_kv_heads, "Key/value heads; divides n_heads.");
  field("head_dim", &ModelConfig::head_dim, "");
  field("ffn_size", &ModelConfig::ffn_size, "");
  field("vocab_size", &ModelConfig::vocab_size, "");
  field("context_length", &ModelConfig::context_length, "Longest sequence in tokens.");
  field("norm_eps", &ModelConfig::norm_eps, "");
  field("activation", &ModelConfig::activation, "");
  field("tied_embeddings", &ModelConfig::tied_embeddings, "The output head is the embedding table.");
  field("qkv_bias", &ModelConfig::qkv_bias, "");
  field("qk_norm", &ModelConfig::qk_norm, "");
  field("post_norms", &ModelConfig::post_norms, "");
  field("embedding_scale", &ModelConfig::embedding_scale, "");
  field("attention_scale", &ModelConfig::attention_scale, "Multiplies q.k; 0 means 1/sqrt(head_dim).");
  field("attention_softcap", &ModelConfig::attention_softcap, "");
  field("logit_softcap", &ModelConfig::logit_softcap, "");
  field("rope_layout", &ModelConfig::rope_layout, "");
  field("rope_dim", &ModelConfig::rope_dim, "");
  field("rope_base", &ModelConfig::rope_base, "");
  field("rope_scaling", &ModelConfig::rope_scaling, "");
  field("local_rope_base", &ModelConfig::local_rope_base, "");
  field("sliding_window", &ModelConfig::sliding_window, "Tokens a sliding layer sees, its own included; 0 is off.");
  field("sliding_pattern", &ModelConfig::sliding_pattern, "Every n-th layer is global; 0: every layer slides.");
  config.def_prop_rw(
      "kv_dtype", [](const ModelConfig& self) { return std::string(name_of(self.kv_dtype)); },
      [](ModelConfig& self, nb::handle dtype) { self.kv_dtype = to_dtype(dtype); }, nb::for_getter(nb::sig("def kv_dtype(self) -> str")),
      nb::for_setter(nb::sig("def kv_dtype(self, value: typing.Any) -> None")), "Storage type of caches made for this model.");

  nb::class_<Configs>(m, "Configs", "Sizes to try things with.")
      .def_static("small", &Configs::small, "8 layers, hidden 512, 8 heads of 64, feed-forward 1536, context 2048.")
      .def_static("medium", &Configs::medium, "12 layers, hidden 768, 12 heads, 4 KV heads, feed-forward 2048, context 4096.")
      .def_static("large", &Configs::large, "24 layers, hidden 1024, 16 heads, 4 KV heads, feed-forward 2816, context 8192.")
      .def_static("by_name", &Configs::by_name, "name"_a, "A shape by name; raises NotFoundError listing the names.");
}

}  // namespace minillm::python
