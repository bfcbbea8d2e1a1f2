// arrays.h - between Python's arrays and Tensor: anything with __dlpack__ or the buffer protocol (NumPy, PyTorch, JAX), and nested lists.
// Inputs are wrapped where dtype and layout fit, and copied otherwise; outputs are NumPy arrays that own the tensor's memory.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>  // Everywhere or nowhere: without it nb::cast<std::string> is another function of the same name.

#include <cstdint>
#include <string>
#include <vector>

#include "minillm/tensor.h"

namespace minillm::python {

namespace nb = nanobind;

/// Any object, shown as numpy.typing.ArrayLike in signatures.
inline bool any_object(PyObject* /*object*/) { return true; }
class ArrayLike : public nb::object {
  NB_OBJECT_DEFAULT(ArrayLike, nb::object, "numpy.typing.ArrayLike", any_object)
};

/// float32, float16 or bfloat16, without copying; float64 and lists become float32. `what` names the argument in errors.
Tensor to_floats(nb::handle array, const char* what);
/// int32 without copying; other integers and lists are converted. Throws Error{kInvalidArgument} for what does not fit int32.
Tensor to_ids(nb::handle array, const char* what);
/// A one-dimensional list or array of integers.
std::vector<int64_t> to_integers(nb::handle array, const char* what);
/// The same for token ids.
std::vector<TokenId> to_token_ids(nb::handle array, const char* what);

/// A float32 NumPy array that shares `tensor`'s memory.
using FloatArray = nb::ndarray<nb::numpy, float, nb::c_contig>;
FloatArray to_numpy(Tensor tensor);

/// "float16", numpy.float16 or torch.float16.
Dtype to_dtype(nb::handle dtype);

}  // namespace minillm::python
