// bindings.h - what the parts of the Python module share. Each bind_X() adds one header of the public API.
// The GIL is released while the library computes. Objects that the library allows one call at a time carry a mutex, so that
// Python threads wait for each other and never meet inside. It is taken after the GIL is released: the other order deadlocks.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <functional>
#include <mutex>
#include <optional>

#include "arrays.h"
#include "minillm/minillm.h"

namespace minillm::python {

using namespace nanobind::literals;

struct PyModel {
  MiniLLM model;
  std::mutex mutex = {};
};

struct PyCache {
  KVCache cache;
  std::mutex mutex = {};
};

/// Runs `work` without the GIL, with `mutex` held.
template <typename F>
auto locked(std::mutex& mutex, F&& work) {
  const nb::gil_scoped_release release;
  const std::lock_guard lock(mutex);
  return work();
}

/// Called between steps of long work, with the GIL: throws what Ctrl-C raised in Python.
inline void check_signals() {
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

inline std::optional<Dtype> optional_dtype(nb::handle dtype) {
  return dtype.is_none() ? std::nullopt : std::optional<Dtype>(to_dtype(dtype));
}

/// GenerationOptions from keyword arguments; TypeError for a name it does not have.
GenerationOptions generation_options(const nb::kwargs& arguments);
/// The same as text, for signatures.
extern const char* const kGenerationArguments;

void bind_errors(nb::module_& m);
void bind_config(nb::module_& m);
void bind_cache(nb::module_& m);
void bind_model(nb::module_& m);
void bind_attention(nb::module_& m);
void bind_text(nb::module_& m);
void bind_generation(nb::module_& m);
void bind_files(nb::module_& m);

}  // namespace minillm::python
