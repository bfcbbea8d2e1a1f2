// model.cpp - MiniLLM: load or make a model, and call it.
#include "bindings.h"
#include "padding.h"

namespace minillm::python {
namespace {

LoadOptions load_options(const std::string& device, int n_threads, nb::handle dtype, nb::handle kv_dtype, int64_t context_length,
                         int64_t flash_block_size, uint64_t seed) {
  return {.device = parse_device(device),
          .n_threads = n_threads,
          .dtype = optional_dtype(dtype),
          .kv_dtype = optional_dtype(kv_dtype),
          .context_length = context_length,
          .flash_block_size = flash_block_size,
          .seed = seed};
}

void init_model(PyModel* self, const ModelConfig& config, const std::string& device, int n_threads, nb::handle dtype, nb::handle kv_dtype,
                int64_t context_length, int64_t flash_block_size, uint64_t seed) {
  const LoadOptions options = load_options(device, n_threads, dtype, kv_dtype, context_length, flash_block_size, seed);
  // Python may change the config once the GIL is free.
  const ModelConfig copy = config;  // NOLINT(performance-unnecessary-copy-initialization)
  const nb::gil_scoped_release release;
  new (self) PyModel{MiniLLM(copy, options)};
}

PyModel* load_model(const std::string& path, const std::string& device, int n_threads, nb::handle dtype, nb::handle kv_dtype,
                    int64_t context_length, int64_t flash_block_size) {
  const LoadOptions options = load_options(device, n_threads, dtype, kv_dtype, context_length, flash_block_size, 0);
  const nb::gil_scoped_release release;
  return new PyModel{MiniLLM::load(resolve_model(path), options)};
}

FloatArray forward(PyModel& self, const ArrayLike& input_ids, PyCache* kv_cache, bool use_flash_attention, int64_t flash_block_size,
                   const std::optional<ArrayLike>& lengths, const std::optional<ArrayLike>& attention_mask, bool last_logits_only) {
  const Tensor ids = to_ids(input_ids, "input_ids");
  std::optional<Tensor> mask;
  if (attention_mask && lengths) throw Error(ErrorCode::kInvalidArgument, "give lengths or attention_mask, not both");
  if (attention_mask) mask = to_ids(*attention_mask, "attention_mask");
  ForwardOptions options{
      .use_flash_attention = use_flash_attention, .flash_block_size = flash_block_size, .last_logits_only = last_logits_only};
  if (lengths) options.lengths = to_integers(*lengths, "lengths");

  const auto run = [&] {
    if (!mask) return self.model.forward(ids, options);
    const Padding padding = padding_of(*mask, ids, kv_cache != nullptr ? kv_cache->cache.lengths() : std::vector<int64_t>());
    options.lengths = padding.lengths;
    Tensor logits = self.model.forward(padding.to_front(ids), options);
    if (!last_logits_only) padding.to_back(logits);
    return logits;
  };
  return to_numpy(locked(self.mutex, [&] {
    if (kv_cache == nullptr) return run();
    const std::lock_guard lock(kv_cache->mutex);  // Always after the model's.
    options.kv_cache = &kv_cache->cache;
    return run();
  }));
}

constexpr const char* kForwardDoc =
    "Logits [B, S, V], float32, of input_ids [B, S]; of padding they are zero. kv_cache: rows continue where it stands, and it grows. "
    "use_flash_attention=False stores the whole score matrix. flash_block_size: key tile, a power of two from 16 to 1024; 0 is the "
    "model's choice. lengths: valid tokens of each row, right padding; or attention_mask: 0/1, [B, S] or [B, cached + S], padding on "
    "either side. last_logits_only: [B, 1, V].";

template <typename F>
void bind_call(nb::class_<PyModel>& model, const char* name, F&& function) {
  model.def(name, function, "input_ids"_a, nb::kw_only(), "kv_cache"_a = nb::none(), "use_flash_attention"_a = true,
            "flash_block_size"_a = 0, "lengths"_a = nb::none(), "attention_mask"_a = nb::none(), "last_logits_only"_a = false, kForwardDoc);
}

void bind_metrics(nb::module_& m) {
  nb::class_<MemoryReport>(m, "MemoryReport", "Device memory in bytes.")
      .def_ro("weights", &MemoryReport::weights)
      .def_ro("workspace", &MemoryReport::workspace)
      .def_ro("peak", &MemoryReport::peak);
  nb::class_<MachinePeaks>(m, "MachinePeaks", "What this machine reaches, measured.")
      .def_ro("read_gb_s", &MachinePeaks::read_gb_s)
      .def_ro("float_gflop_s", &MachinePeaks::float_gflop_s)
      .def_ro("quantised_gflop_s", &MachinePeaks::quantised_gflop_s)
      .def_ro("bf16_gflop_s", &MachinePeaks::bf16_gflop_s);
}

}  // namespace

void bind_model(nb::module_& m) {
  bind_metrics(m);
  nb::class_<PyModel> model(m, "MiniLLM", "A transformer: weights on a device, and the forward pass.");
  model.def("__init__", &init_model, "config"_a, nb::kw_only(), "device"_a = "cpu", "n_threads"_a = 0, "dtype"_a = nb::none(),
            "kv_dtype"_a = nb::none(), "context_length"_a = 0, "flash_block_size"_a = 0, "seed"_a = 0,
            nb::sig("def __init__(self, config: ModelConfig, *, device: str = 'cpu', n_threads: int = 0, dtype: typing.Any = None, "
                    "kv_dtype: typing.Any = None, context_length: int = 0, flash_block_size: int = 0, seed: int = 0) -> None"),
            "Random weights, the same for the same seed.");
  model.def_static("load", &load_model, "path"_a = "", nb::kw_only(), "device"_a = "cpu", "n_threads"_a = 0, "dtype"_a = nb::none(),
                   "kv_dtype"_a = nb::none(), "context_length"_a = 0, "flash_block_size"_a = 0,
                   nb::sig("def load(path: str = '', *, device: str = 'cpu', n_threads: int = 0, dtype: typing.Any = None, "
                           "kv_dtype: typing.Any = None, context_length: int = 0, flash_block_size: int = 0) -> MiniLLM"),
                   "A GGUF or safetensors file or folder, or a pulled name; the default model if empty.");
  bind_call(model, "forward", &forward);
  bind_call(model, "__call__", &forward);
  model.def_prop_ro("config", [](const PyModel& self) { return self.model.config(); })
      .def_prop_ro("device", [](const PyModel& self) { return name_of(self.model.device()); })
      .def_prop_ro("device_description", [](const PyModel& self) { return self.model.device_description(); })
      .def_prop_ro("step_rows", [](const PyModel& self) { return self.model.step_rows(); })
      .def_prop_ro(
          "flash_block_size", [](const PyModel& self) { return self.model.flash_block_size(); }, "What 0 was resolved to.")
      .def_prop_ro(
          "weight_bytes", [](const PyModel& self) { return self.model.weight_bytes(); }, "Device memory of the weights.")
      .def_prop_ro(
          "fingerprint", [](const PyModel& self) { return self.model.fingerprint(); },
          "Names the weights and the graph: a saved cache belongs to the model of the same fingerprint.")
      .def_prop_ro("memory", [](PyModel& self) { return locked(self.mutex, [&] { return self.model.memory(); }); })
      .def(
          "measure_peaks", [](PyModel& self) { return locked(self.mutex, [&] { return self.model.measure_peaks(); }); },
          "What this machine reaches; takes about half a second.");
}

}  // namespace minillm::python
