// tensor_view.h - a borrowed, contiguous, row-major tensor of up to four dimensions, in host or device memory.
// A view never outlives the call it is passed to unless the callee says so.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>

#include "base/check.h"
#include "base/dtype.h"

namespace minillm {

/// `Pointer` is `void*` or `const void*`.
template <typename Pointer>
struct BasicTensorView {
  Pointer data = nullptr;
  Dtype dtype = Dtype::kF32;
  int rank = 0;
  std::array<int64_t, 4> shape{};  ///< Only the first `rank` are meaningful.

  BasicTensorView() = default;
  BasicTensorView(Pointer data_in, Dtype dtype_in, std::initializer_list<int64_t> shape_in)
      : data(data_in), dtype(dtype_in), rank(static_cast<int>(shape_in.size())) {
    MINILLM_CHECK(shape_in.size() <= 4, "rank ", shape_in.size());
    int i = 0;
    for (int64_t n : shape_in) shape[static_cast<size_t>(i++)] = n;
  }
  /// A mutable view reads as a constant one.
  template <typename Other>
  requires std::is_convertible_v<Other, Pointer> BasicTensorView(
      const BasicTensorView<Other>& other)  // NOLINT(google-explicit-constructor)
      : data(other.data), dtype(other.dtype), rank(other.rank), shape(other.shape) {}

  int64_t dim(int i) const {
    MINILLM_CHECK(i >= 0 && i < rank, "dimension ", i, " of rank ", rank);
    return shape[static_cast<size_t>(i)];
  }
  int64_t n_elements() const noexcept {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[static_cast<size_t>(i)];
    return rank == 0 ? 0 : n;
  }
  explicit operator bool() const noexcept { return data != nullptr; }

  /// The elements as float; the dtype must be kF32.
  auto f32() const {
    MINILLM_CHECK(dtype == Dtype::kF32, "view of ", name_of(dtype));
    if constexpr (std::is_const_v<std::remove_pointer_t<Pointer>>)
      return static_cast<const float*>(data);
    else
      return static_cast<float*>(data);
  }
};

using TensorView = BasicTensorView<void*>;
using ConstTensorView = BasicTensorView<const void*>;

}  // namespace minillm
