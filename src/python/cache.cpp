// cache.cpp - KVCache with the methods of the transformers Cache (5.x).
#include <nanobind/stl/tuple.h>

#include "bindings.h"

namespace minillm::python {
namespace {

void init_cache(PyCache* self, const ModelConfig& config, int64_t batch_size, int64_t max_length, const std::string& device,
                nb::handle dtype, int64_t page_tokens) {
  const KVCacheOptions options{.batch_size = batch_size,
                               .max_length = max_length,
                               .device = parse_device(device),
                               .dtype = optional_dtype(dtype),
                               .page_tokens = page_tokens};
  const nb::gil_scoped_release release;
  new (self) PyCache{KVCache(config, options)};
}

std::pair<FloatArray, FloatArray> to_numpy_pair(std::pair<Tensor, Tensor> tensors) {
  return {to_numpy(std::move(tensors.first)), to_numpy(std::move(tensors.second))};
}

std::pair<FloatArray, FloatArray> update(PyCache& self, const ArrayLike& k, const ArrayLike& v, int64_t layer) {
  const Tensor keys = to_floats(k, "key_states"), values = to_floats(v, "value_states");
  return to_numpy_pair(locked(self.mutex, [&] { return self.cache.update(keys, values, layer); }));
}

void bind_lengths(nb::class_<PyCache>& cache) {
  cache
      .def(
          "get_seq_length",
          [](PyCache& self, int64_t layer) { return locked(self.mutex, [&] { return self.cache.get_seq_length(layer); }); },
          "layer_idx"_a = 0, "Tokens that the layer has seen, of the longest row.")
      .def(
          "get_query_offset",
          [](PyCache& self, int64_t layer) { return locked(self.mutex, [&] { return self.cache.get_seq_length(layer); }); },
          "layer_idx"_a = 0, "Position of the next token: the same as get_seq_length.")
      .def(
          "get_mask_sizes",
          [](PyCache& self, int64_t n, int64_t layer) { return locked(self.mutex, [&] { return self.cache.get_mask_sizes(n, layer); }); },
          "query_length"_a, "layer_idx"_a = 0, "(length, offset) of the keys that update() will return for so many new tokens.")
      .def_prop_ro(
          "lengths", [](PyCache& self) { return locked(self.mutex, [&] { return self.cache.lengths(); }); }, "Tokens in each row.");
}

void bind_changes(nb::class_<PyCache>& cache) {
  cache
      .def(
          "crop",
          [](PyCache& self, int64_t n) {
            if (n != 0) locked(self.mutex, [&] { self.cache.crop(n); });  // transformers removes nothing; C++ would keep nothing.
          },
          "n"_a, "n < 0: every row loses its -n newest tokens. 0: nothing changes. n > 0: every row keeps its first n.")
      .def(
          "reorder_cache",
          [](PyCache& self, const ArrayLike& rows) {
            const std::vector<int64_t> indices = to_integers(rows, "beam_idx");
            locked(self.mutex, [&] { self.cache.reorder_cache(indices); });
          },
          "beam_idx"_a, "Row i becomes the old row beam_idx[i]; memory is shared until one side writes.")
      .def(
          "batch_repeat_interleave", [](PyCache& self, int64_t n) { locked(self.mutex, [&] { self.cache.batch_repeat_interleave(n); }); },
          "repeats"_a, "Rows a, b become a, a, b, b.")
      .def(
          "batch_select_indices",
          [](PyCache& self, const ArrayLike& rows) {
            const std::vector<int64_t> indices = to_integers(rows, "indices");
            locked(self.mutex, [&] { self.cache.batch_select_indices(indices); });
          },
          "indices"_a, "Keeps the named rows, in that order.")
      .def(
          "reset", [](PyCache& self) { locked(self.mutex, [&] { self.cache.reset(); }); },
          "Empties every row; memory is returned unless it was preallocated.");
}

/// `layer` or, if None, all of them.
int64_t max_length(PyCache& self, std::optional<int64_t> layer) {
  return layer ? self.cache.get_max_length(*layer) : self.cache.get_max_length();
}

void check_layer(PyCache& self, int64_t layer) { (void)self.cache.is_sliding(layer); }

void bind_capacity(nb::class_<PyCache>& cache) {
  cache
      .def("get_max_length", &max_length, "layer_idx"_a = nb::none(),
           "Tokens that a layer can show: max_length, its sliding window, or the smaller of both; -1 without a bound. None: the largest.")
      .def("get_max_cache_shape", &max_length, "layer_idx"_a = nb::none(), "The old name of get_max_length.")
      .def(
          "__len__", [](PyCache& self) { return self.cache.n_layers(); }, "Layers.")
      .def_prop_ro(
          "is_sliding",
          [](PyCache& self) {
            std::vector<bool> sliding;
            for (int64_t layer = 0; layer < self.cache.n_layers(); ++layer) sliding.push_back(self.cache.is_sliding(layer));
            return sliding;
          },
          "For each layer, whether it has a sliding window.")
      .def_prop_ro(
          "is_linear", [](PyCache& self) { return std::vector<bool>(static_cast<size_t>(self.cache.n_layers()), false); },
          "No layer is linear attention.")
      .def_prop_ro(
          "is_compileable", [](PyCache& self) { return self.cache.is_preallocated(); }, "Whether its shapes never change: with max_length.")
      .def_prop_ro(
          "is_croppable", [](PyCache& /*self*/) { return true; }, "crop() always puts the cache back as it was.")
      .def_prop_ro(
          "is_initialized",
          [](PyCache& self) {
            return locked(self.mutex, [&] {
              for (int64_t layer = 0; layer < self.cache.n_layers(); ++layer)
                if (!self.cache.is_preallocated() && self.cache.get_seq_length(layer) == 0) return false;
              return true;
            });
          },
          "Whether every layer has memory: always with max_length, otherwise where it holds tokens.");
}

void save(PyCache& self, const std::string& path, const std::string& fingerprint, const nb::bytes& attachment) {
  const std::string bytes(attachment.c_str(), attachment.size());
  locked(self.mutex, [&] { self.cache.save(path, fingerprint, bytes); });
}

nb::object load(const std::string& path, const ModelConfig& config, const std::string& fingerprint, int64_t max_length,
                const std::string& device, int64_t page_tokens) {
  const KVCacheOptions options{.max_length = max_length, .device = parse_device(device), .page_tokens = page_tokens};
  SavedCache saved = KVCache::load(path, config, fingerprint, options);
  std::unique_ptr<PyCache> cache(new PyCache{std::move(saved.cache)});
  nb::object object = nb::cast(cache.get(), nb::rv_policy::take_ownership);
  cache.release();
  return nb::make_tuple(object, nb::bytes(saved.attachment.data(), saved.attachment.size()));
}

void bind_files_of(nb::class_<PyCache>& cache) {
  cache.def("save", &save, "path"_a, "fingerprint"_a, "attachment"_a = nb::bytes("", 0),
            nb::sig("def save(self, path: str, fingerprint: str, attachment: bytes = b'') -> None"),
            "Writes rows, lengths and `attachment` (bytes of your own), versioned and checksummed. fingerprint: the model's.");
  cache.def_static("load", &load, "path"_a, "config"_a, "fingerprint"_a, nb::kw_only(), "max_length"_a = 0, "device"_a = "cpu",
                   "page_tokens"_a = 64,
                   nb::sig("def load(path: str, config: ModelConfig, fingerprint: str, *, max_length: int = 0, device: str = 'cpu', "
                           "page_tokens: int = 64) -> tuple[KVCache, bytes]"),
                   "What save() wrote, and the attachment: generation goes on with the same bits. A damaged file, and another model's, "
                   "are refused.");
}

/// Methods of the transformers Cache that have nothing to do here, since memory is laid out by the constructor and every token is kept.
void bind_formalities(nb::class_<PyCache>& cache) {
  cache
      .def(
          "activate_past_recording", [](PyCache& /*self*/) {}, "Nothing to do: every token is kept, so crop() can always go back.")
      .def(
          "is_recording_past", [](PyCache& self, int64_t layer) { return check_layer(self, layer), true; }, "layer_idx"_a)
      .def(
          "offload", [](PyCache& self, int64_t layer, bool) { check_layer(self, layer); }, "layer_idx"_a, "only_non_sliding"_a = true,
          "Nothing to do: a cache stays on its device.")
      .def(
          "prefetch", [](PyCache& self, int64_t layer, bool) { check_layer(self, layer); }, "layer_idx"_a, "only_non_sliding"_a = true,
          "Nothing to do: a cache stays on its device.")
      .def(
          "early_initialization",
          [](PyCache& self, int64_t batch_size, nb::object num_heads, nb::object head_dim, nb::object dtype, nb::object device) {
            (void)num_heads, (void)head_dim, (void)device;
            if (batch_size != self.cache.batch_size() || (!dtype.is_none() && to_dtype(dtype) != self.cache.dtype()))
              throw Error(ErrorCode::kInvalidArgument, "KVCache: early_initialization for ", batch_size,
                          " rows: expected the batch size and dtype that the cache was made with, ", self.cache.batch_size(), " and ",
                          name_of(self.cache.dtype()));
          },
          "batch_size"_a, "num_heads"_a = nb::none(), "head_dim"_a = nb::none(), "dtype"_a = nb::none(), "device"_a = nb::none(),
          "Checks that the cache was made for this; its memory is laid out since then.");
}

}  // namespace

void bind_cache(nb::module_& m) {
  nb::class_<PyCache> cache(m, "KVCache",
                            "Keys and values of the tokens already seen, for a batch of rows of independent length. The interface is the "
                            "transformers Cache's: K and V are [batch, kv_heads, tokens, head_dim].");
  cache.def("__init__", &init_cache, "config"_a, "batch_size"_a = 1, "max_length"_a = 0, "device"_a = "cpu", "dtype"_a = nb::none(),
            "page_tokens"_a = 64,
            nb::sig("def __init__(self, config: ModelConfig, batch_size: int = 1, max_length: int = 0, device: str = 'cpu', "
                    "dtype: typing.Any = None, page_tokens: int = 64) -> None"),
            "max_length: tokens a row, allocated now and never exceeded; 0 grows on demand. dtype: float32, float16, bfloat16 or \"f8\".");
  cache.def("update", &update, "key_states"_a, "value_states"_a, "layer_idx"_a,
            "Appends K and V to a layer and returns what attention reads in this step, as float32.");
  cache.def(
      "read",
      [](PyCache& self, int64_t layer, int64_t row) {
        return to_numpy_pair(locked(self.mutex, [&] { return self.cache.read(layer, row); }));
      },
      "layer_idx"_a, "row"_a, "K and V of one layer and row, [kv_heads, tokens, head_dim], float32.");
  bind_lengths(cache);
  bind_changes(cache);
  bind_capacity(cache);
  bind_formalities(cache);
  bind_files_of(cache);
  cache.def_prop_ro("batch_size", [](PyCache& self) { return locked(self.mutex, [&] { return self.cache.batch_size(); }); })
      .def_prop_ro("dtype", [](PyCache& self) { return std::string(name_of(self.cache.dtype())); })
      .def_prop_ro("device", [](PyCache& self) { return name_of(self.cache.device()); })
      .def_prop_ro(
          "bytes", [](PyCache& self) { return locked(self.mutex, [&] { return self.cache.bytes(); }); }, "Memory held now.");
}

}  // namespace minillm::python
