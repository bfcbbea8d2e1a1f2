// tensor.h - a dense tensor in host memory: what goes into and comes out of the public API.
// Layout:  row-major, the last dimension is contiguous. Copying a Tensor shares its memory; clone() copies it.
// Threads: reading at once is safe; writing is the caller's to order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "minillm/error.h"
#include "minillm/types.h"

namespace minillm {

class Tensor {
 public:
  Tensor() = default;

  /// Zeros of `shape` (each dimension >= 0) in `dtype`: kF32, kF16, kBF16 or kI32.
  /// Throws Error{kInvalidArgument} on a negative dimension or a block dtype, Error{kOutOfMemory} if it does not fit.
  explicit Tensor(std::vector<int64_t> shape, Dtype dtype = Dtype::kF32);

  /// [rows, row length] ids; every row must have the same length (throws Error{kInvalidArgument} otherwise).
  static Tensor from_ids(const std::vector<std::vector<TokenId>>& rows);
  /// A copy of `values` (as many as `shape` holds; throws Error{kInvalidArgument} otherwise), as kF32.
  static Tensor from_values(std::span<const float> values, std::vector<int64_t> shape);
  /// Wraps memory owned by `owner` without copying; `data` holds `shape` elements of `dtype`.
  static Tensor wrap(std::shared_ptr<void> owner, void* data, std::vector<int64_t> shape, Dtype dtype);

  Dtype dtype() const noexcept { return dtype_; }
  const std::vector<int64_t>& shape() const noexcept { return shape_; }
  /// Size of dimension `i`; negative counts from the end. Throws Error{kInvalidArgument} outside the rank.
  int64_t dim(int i) const;
  int64_t n_elements() const noexcept;
  size_t bytes() const noexcept;
  bool empty() const noexcept { return n_elements() == 0; }

  void* data() noexcept { return data_; }
  const void* data() const noexcept { return data_; }
  /// Elements as T (float for kF32, int32_t for kI32, uint16_t for the 16-bit types).
  /// Throws Error{kInvalidArgument} if T is not the dtype's.
  template <typename T>
  std::span<T> values();
  template <typename T>
  std::span<const T> values() const;

  /// A copy with its own memory.
  Tensor clone() const;
  /// The same values as kF32 (a copy unless it is kF32 already).
  Tensor to_float32() const;

 private:
  std::vector<int64_t> shape_;
  Dtype dtype_ = Dtype::kF32;
  std::shared_ptr<void> owner_;
  void* data_ = nullptr;
};

}  // namespace minillm
