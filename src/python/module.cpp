// module.cpp - the extension module minillm._core; python/minillm/__init__.py gives its names to the world.
#include "bindings.h"

namespace minillm::python {
namespace {

/// The class of minillm.errors that fits `code`.
const char* class_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "InvalidArgumentError";
    case ErrorCode::kNotFound:
      return "NotFoundError";
    case ErrorCode::kCorruptFile:
      return "CorruptFileError";
    case ErrorCode::kUnsupported:
      return "UnsupportedError";
    case ErrorCode::kOutOfMemory:
      return "OutOfMemoryError";
    case ErrorCode::kCapacity:
      return "CapacityError";
    case ErrorCode::kDevice:
      return "DeviceError";
    case ErrorCode::kCancelled:
      return "CancelledError";
    case ErrorCode::kInternal:
      break;
  }
  return "InternalError";
}

}  // namespace

void bind_errors(nb::module_& /*m*/) {
  nb::register_exception_translator([](const std::exception_ptr& pointer, void* /*payload*/) {
    try {
      std::rethrow_exception(pointer);
    } catch (const Error& error) {
      const nb::object type = nb::module_::import_("minillm.errors").attr(class_of(error.code()));
      PyErr_SetString(type.ptr(), error.what());
    }
  });
}

}  // namespace minillm::python

NB_MODULE(_core, m) {
  using namespace minillm::python;
  m.doc() = "The extension module behind the package minillm.";
  bind_errors(m);
  bind_config(m);
  bind_cache(m);
  bind_model(m);
  bind_attention(m);
  bind_text(m);
  bind_generation(m);
  bind_files(m);
}
