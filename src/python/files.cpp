// files.cpp - the model folder, fetching into it, and what is in a file.
#include "bindings.h"

namespace minillm::python {
namespace {

std::string pull_model(const std::string& name, nb::handle progress) {
  std::exception_ptr raised;
  const auto on_progress = [&](const std::string& what, uint64_t done, uint64_t total) {
    const nb::gil_scoped_acquire acquire;
    try {
      check_signals();
      if (progress.is_none()) return true;
      return !nb::object(progress(what, done, total)).is(nb::bool_(false));
    } catch (...) {
      raised = std::current_exception();
      return false;
    }
  };
  try {
    const nb::gil_scoped_release release;
    return pull(name, on_progress);
  } catch (const Error&) {
    if (raised) std::rethrow_exception(raised);
    throw;
  }
}

}  // namespace

void bind_files(nb::module_& m) {
  m.attr("DEFAULT_MODEL") = kDefaultModel;
  m.def("model_folder", &model_folder, "Where pulled models live: MINILLM_HOME, else ~/.cache/minillm.");
  m.def("pull", &pull_model, "name"_a = kDefaultModel, "progress"_a = nb::none(),
        nb::sig("def pull(name: str = 'smollm2', progress: collections.abc.Callable[[str, int, int], bool | None] | None = None) -> str"),
        "Fetches a model into the model folder and returns its path; at once if it is there. progress(what, done, total) may return "
        "False to stop.");
  m.def("resolve_model", &resolve_model, "model"_a = "", "Path of a model given as a path or a pulled name. Fetches nothing.");

  nb::class_<TensorInfo>(m, "TensorInfo")
      .def_ro("name", &TensorInfo::name)
      .def_prop_ro("dtype", [](const TensorInfo& self) { return std::string(name_of(self.dtype)); })
      .def_ro("shape", &TensorInfo::shape)
      .def_ro("bytes", &TensorInfo::bytes);
  nb::class_<MemoryPlan>(m, "MemoryPlan", "Bytes that a model needs on the CPU.")
      .def_ro("weights", &MemoryPlan::weights)
      .def_ro("kv_cache", &MemoryPlan::kv_cache)
      .def_ro("workspace", &MemoryPlan::workspace)
      .def_prop_ro("total", &MemoryPlan::total);
  nb::class_<FileInfo>(m, "FileInfo", "What is in a model file.")
      .def_ro("path", &FileInfo::path)
      .def_ro("format", &FileInfo::format)
      .def_ro("config", &FileInfo::config)
      .def_prop_ro(
          "metadata",
          [](const FileInfo& self) {
            nb::dict metadata;
            for (const auto& [key, value] : self.metadata) metadata[key.c_str()] = value;
            return metadata;
          },
          nb::for_getter(nb::sig("def metadata(self) -> dict[str, str]")))
      .def_ro("tensors", &FileInfo::tensors)
      .def_ro("tensor_bytes", &FileInfo::tensor_bytes)
      .def(
          "plan_memory",
          [](const FileInfo& self, int64_t context, int64_t batch, nb::handle kv_dtype, const std::string& device) {
            return plan_memory(self, context, batch, kv_dtype.is_none() ? self.config.kv_dtype : to_dtype(kv_dtype), parse_device(device));
          },
          "context"_a, "batch"_a = 1, "kv_dtype"_a = nb::none(), "device"_a = "cpu",
          nb::sig("def plan_memory(self, context: int, batch: int = 1, kv_dtype: typing.Any = None, device: str = \"cpu\") -> MemoryPlan"));
  m.def(
      "inspect",
      [](const std::string& path) {
        const nb::gil_scoped_release release;
        return inspect(resolve_model(path));
      },
      "path"_a = "", "What is in a model file, without loading it.");
}

}  // namespace minillm::python
