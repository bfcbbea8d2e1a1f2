// attention.cpp - flash_attention and standard_attention on arrays.
#include "bindings.h"

namespace minillm::python {
namespace {

/// What one attention call returns.
struct Result {
  nb::object output;
  nb::object lse;
  int64_t peak_bytes;
};

using Function = AttentionResult (*)(const Tensor&, const Tensor&, const Tensor&, const AttentionOptions&);

constexpr const char* kDoc =
    "softmax(scale q k^T) v. q is [B, Sq, H, D], k and v [B, Sk, G, D], H a multiple of G; float32, float16 or bfloat16. scale 0 means "
    "1/sqrt(D); causal is aligned at the bottom right; window counts the keys a query sees, its own included; block_size is the key "
    "tile, a power of two from 16 to 1024, 0 for the device's choice. The result has output [B, Sq, H, D], lse [B, Sq, H] if asked "
    "for, and peak_bytes, the memory allocated beyond inputs and outputs.";

template <Function function>
void bind(nb::module_& m, const char* name) {
  m.def(
      name,
      [](const ArrayLike& q, const ArrayLike& k, const ArrayLike& v, float scale, bool causal, int64_t window, float softcap,
         std::vector<float> alibi_slopes, std::vector<float> sinks, int64_t block_size, bool return_lse, const std::string& device,
         int n_threads) {
        const Tensor queries = to_floats(q, "q"), keys = to_floats(k, "k"), values = to_floats(v, "v");
        const AttentionOptions options{.scale = scale,
                                       .causal = causal,
                                       .window = window,
                                       .softcap = softcap,
                                       .alibi_slopes = std::move(alibi_slopes),
                                       .sinks = std::move(sinks),
                                       .block_size = block_size,
                                       .return_lse = return_lse,
                                       .device = parse_device(device),
                                       .n_threads = n_threads};
        AttentionResult result;
        {
          const nb::gil_scoped_release release;
          result = function(queries, keys, values, options);
        }
        nb::object lse = result.lse ? nb::cast(to_numpy(std::move(*result.lse))) : nb::none();
        return Result{nb::cast(to_numpy(std::move(result.output))), std::move(lse), result.peak_bytes};
      },
      "q"_a, "k"_a, "v"_a, nb::kw_only(), "scale"_a = 0.0f, "causal"_a = true, "window"_a = 0, "softcap"_a = 0.0f,
      "alibi_slopes"_a = std::vector<float>(), "sinks"_a = std::vector<float>(), "block_size"_a = 0, "return_lse"_a = false,
      "device"_a = "cpu", "n_threads"_a = 0, kDoc);
}

}  // namespace

void bind_attention(nb::module_& m) {
  nb::class_<Result>(m, "AttentionResult")
      .def_prop_ro(
          "output", [](const Result& self) { return self.output; },
          nb::for_getter(nb::sig("def output(self) -> numpy.typing.NDArray[numpy.float32]")), "[B, Sq, H, D]")
      .def_prop_ro(
          "lse", [](const Result& self) { return self.lse; },
          nb::for_getter(nb::sig("def lse(self) -> numpy.typing.NDArray[numpy.float32] | None")), "[B, Sq, H], natural logarithm.")
      .def_ro("peak_bytes", &Result::peak_bytes, "Memory allocated beyond inputs and outputs, at its highest.");
  bind<flash_attention>(m, "flash_attention");
  bind<standard_attention>(m, "standard_attention");
}

}  // namespace minillm::python
