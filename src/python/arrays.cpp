// arrays.cpp - conversions between Python's arrays and Tensor.
#include "arrays.h"

#include <limits>
#include <memory>
#include <utility>

#include "minillm/error.h"

namespace minillm::python {
namespace {

using Input = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

/// The array behind any object; lists and scalars go through NumPy. Copies only what is not contiguous.
Input to_array(nb::handle object, const char* what) {
  Input array;
  if (nb::try_cast<Input>(object, array)) return array;
  nb::object converted = nb::module_::import_("numpy").attr("ascontiguousarray")(object);  // NumPy's own error for a ragged list.
  if (nb::try_cast<Input>(converted, array)) return array;
  throw Error(ErrorCode::kInvalidArgument, what, ": expected an array of numbers in host memory, got ",
              nb::str(nb::handle(reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())))).c_str());
}

std::vector<int64_t> shape_of(const Input& array) {
  std::vector<int64_t> shape;
  for (size_t i = 0; i < array.ndim(); ++i) shape.push_back(static_cast<int64_t>(array.shape(i)));
  return shape;
}

Tensor wrap(const Input& array, Dtype dtype) {
  // Only read: the library takes inputs as const Tensor&.
  return Tensor::wrap(std::make_shared<Input>(array), const_cast<void*>(array.data()), shape_of(array), dtype);
}

bool is(const Input& array, nb::dlpack::dtype_code code, uint8_t bits) {
  return array.dtype().code == static_cast<uint8_t>(code) && array.dtype().bits == bits && array.dtype().lanes == 1;
}

std::string name_of(const nb::dlpack::dtype& dtype) {
  static const char* const kinds[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  return (dtype.code < 7 ? kinds[dtype.code] : "type ") + std::to_string(dtype.bits);
}

template <typename To, typename From>
void convert(const Input& array, std::span<To> to, const char* what) {
  const From* from = static_cast<const From*>(array.data());
  for (size_t i = 0; i < to.size(); ++i) {
    if constexpr (std::is_integral_v<To>)
      if (!std::in_range<To>(from[i])) throw Error(ErrorCode::kInvalidArgument, what, ": element ", i, " is ", from[i], ": too large");
    to[i] = static_cast<To>(from[i]);
  }
}

template <typename To>
void convert_integers(const Input& array, std::span<To> to, const char* what) {
  using Code = nb::dlpack::dtype_code;
  if (to.empty()) return;  // NumPy calls an empty list float64.
  if (is(array, Code::Int, 64)) return convert<To, int64_t>(array, to, what);
  if (is(array, Code::Int, 32)) return convert<To, int32_t>(array, to, what);
  if (is(array, Code::Int, 16)) return convert<To, int16_t>(array, to, what);
  if (is(array, Code::Int, 8)) return convert<To, int8_t>(array, to, what);
  if (is(array, Code::UInt, 64)) return convert<To, uint64_t>(array, to, what);
  if (is(array, Code::UInt, 32)) return convert<To, uint32_t>(array, to, what);
  if (is(array, Code::UInt, 16)) return convert<To, uint16_t>(array, to, what);
  if (is(array, Code::UInt, 8)) return convert<To, uint8_t>(array, to, what);
  if (is(array, Code::Bool, 8)) return convert<To, uint8_t>(array, to, what);
  throw Error(ErrorCode::kInvalidArgument, what, ": expected integers, got ", name_of(array.dtype()));
}

template <typename To>
std::vector<To> integers(nb::handle object, const char* what) {
  const Input array = to_array(object, what);
  if (array.ndim() != 1) throw Error(ErrorCode::kInvalidArgument, what, ": expected one dimension, got ", array.ndim());
  std::vector<To> values(array.size());
  convert_integers<To>(array, values, what);
  return values;
}

}  // namespace

Tensor to_floats(nb::handle object, const char* what) {
  using Code = nb::dlpack::dtype_code;
  const Input array = to_array(object, what);
  if (is(array, Code::Float, 32)) return wrap(array, Dtype::kF32);
  if (is(array, Code::Float, 16)) return wrap(array, Dtype::kF16);
  if (is(array, Code::Bfloat, 16)) return wrap(array, Dtype::kBF16);
  if (!is(array, Code::Float, 64)) throw Error(ErrorCode::kInvalidArgument, what, ": expected floats, got ", name_of(array.dtype()));
  Tensor tensor(shape_of(array));
  convert<float, double>(array, tensor.values<float>(), what);
  return tensor;
}

Tensor to_ids(nb::handle object, const char* what) {
  const Input array = to_array(object, what);
  if (is(array, nb::dlpack::dtype_code::Int, 32)) return wrap(array, Dtype::kI32);
  Tensor tensor(shape_of(array), Dtype::kI32);
  convert_integers<int32_t>(array, tensor.values<int32_t>(), what);
  return tensor;
}

std::vector<int64_t> to_integers(nb::handle array, const char* what) { return integers<int64_t>(array, what); }
std::vector<TokenId> to_token_ids(nb::handle array, const char* what) { return integers<TokenId>(array, what); }

FloatArray to_numpy(Tensor tensor) {
  auto owner = std::make_unique<Tensor>(std::move(tensor));
  Tensor& held = *owner;
  std::vector<size_t> shape(held.shape().begin(), held.shape().end());
  const nb::capsule capsule(owner.get(), [](void* data) noexcept { delete static_cast<Tensor*>(data); });
  owner.release();
  return FloatArray(held.data(), shape.size(), shape.data(), capsule);
}

Dtype to_dtype(nb::handle dtype) {
  std::string name = nb::hasattr(dtype, "__name__") ? nb::cast<std::string>(dtype.attr("__name__")) : nb::str(dtype).c_str();
  if (name.starts_with("torch.")) name = name.substr(6);
  return parse_dtype(name);
}

}  // namespace minillm::python
