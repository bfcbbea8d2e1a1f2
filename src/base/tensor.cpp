// tensor.cpp - dense host tensors.
#include "minillm/tensor.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/bytes.h"
#include "base/check.h"
#include "base/dtype.h"
#include "base/half.h"

namespace minillm {
namespace {

constexpr size_t kAlignment = 64;  // A cache line and a 512-bit vector.

uint64_t checked_bytes(const std::vector<int64_t>& shape, Dtype dtype) {
  if (is_quantised(dtype))
    throw Error(ErrorCode::kInvalidArgument, "tensor: dtype ", name_of(dtype), " is a block format, not an element type");
  if (dtype == Dtype::kF8) throw Error(ErrorCode::kInvalidArgument, "tensor: dtype f8 is for caches of keys and values only");
  uint64_t bytes = block_bytes(dtype);
  for (int64_t n : shape) {
    if (n < 0) throw Error(ErrorCode::kInvalidArgument, "tensor: dimension ", n, " is negative");
    const auto product = checked_mul(bytes, static_cast<uint64_t>(n));
    if (!product || *product > uint64_t{1} << 62) throw Error(ErrorCode::kOutOfMemory, "tensor: the shape's bytes do not fit 62 bits");
    bytes = *product;
  }
  return bytes;
}

template <typename T>
bool holds(Dtype dtype) {
  if constexpr (std::is_same_v<T, float>)
    return dtype == Dtype::kF32;
  else if constexpr (std::is_same_v<T, int32_t>)
    return dtype == Dtype::kI32;
  else
    return dtype == Dtype::kF16 || dtype == Dtype::kBF16;
}

}  // namespace

Tensor::Tensor(std::vector<int64_t> shape, Dtype dtype) : shape_(std::move(shape)), dtype_(dtype) {
  const uint64_t bytes = checked_bytes(shape_, dtype_);
  void* memory =
      std::aligned_alloc(kAlignment, static_cast<size_t>(round_up(static_cast<int64_t>(std::max<uint64_t>(bytes, 1)), kAlignment)));
  if (memory == nullptr) throw Error(ErrorCode::kOutOfMemory, "tensor: no room for ", readable_bytes(bytes));
  std::memset(memory, 0, bytes);
  owner_ = std::shared_ptr<void>(memory, std::free);
  data_ = memory;
}

Tensor Tensor::from_ids(const std::vector<std::vector<TokenId>>& rows) {
  const size_t length = rows.empty() ? 0 : rows[0].size();
  Tensor ids({static_cast<int64_t>(rows.size()), static_cast<int64_t>(length)}, Dtype::kI32);
  auto out = ids.values<int32_t>().begin();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].size() != length)
      throw Error(ErrorCode::kInvalidArgument, "from_ids: row ", i, " has ", rows[i].size(), " ids, row 0 has ", length);
    out = std::copy(rows[i].begin(), rows[i].end(), out);
  }
  return ids;
}

Tensor Tensor::from_values(std::span<const float> values, std::vector<int64_t> shape) {
  Tensor tensor(std::move(shape));
  if (tensor.n_elements() != static_cast<int64_t>(values.size()))
    throw Error(ErrorCode::kInvalidArgument, "from_values: ", values.size(), " values for a shape of ", tensor.n_elements());
  std::copy(values.begin(), values.end(), tensor.values<float>().begin());
  return tensor;
}

Tensor Tensor::wrap(std::shared_ptr<void> owner, void* data, std::vector<int64_t> shape, Dtype dtype) {
  checked_bytes(shape, dtype);
  Tensor tensor;
  tensor.shape_ = std::move(shape);
  tensor.dtype_ = dtype;
  tensor.owner_ = std::move(owner);
  tensor.data_ = data;
  return tensor;
}

int64_t Tensor::dim(int i) const {
  const int rank = static_cast<int>(shape_.size()), index = i < 0 ? i + rank : i;
  if (index < 0 || index >= rank) throw Error(ErrorCode::kInvalidArgument, "tensor: dimension ", i, " of rank ", rank);
  return shape_[static_cast<size_t>(index)];
}

int64_t Tensor::n_elements() const noexcept {
  if (data_ == nullptr) return 0;
  int64_t n = 1;
  for (int64_t size : shape_) n *= size;
  return n;
}

size_t Tensor::bytes() const noexcept { return static_cast<size_t>(n_elements()) * block_bytes(dtype_); }

template <typename T>
std::span<T> Tensor::values() {
  if (!holds<T>(dtype_)) throw Error(ErrorCode::kInvalidArgument, "tensor: values of ", name_of(dtype_), " asked for as another type");
  return {static_cast<T*>(data_), static_cast<size_t>(n_elements())};
}

template <typename T>
std::span<const T> Tensor::values() const {
  if (!holds<T>(dtype_)) throw Error(ErrorCode::kInvalidArgument, "tensor: values of ", name_of(dtype_), " asked for as another type");
  return {static_cast<const T*>(data_), static_cast<size_t>(n_elements())};
}

template std::span<float> Tensor::values<float>();
template std::span<int32_t> Tensor::values<int32_t>();
template std::span<uint16_t> Tensor::values<uint16_t>();
template std::span<const float> Tensor::values<float>() const;
template std::span<const int32_t> Tensor::values<int32_t>() const;
template std::span<const uint16_t> Tensor::values<uint16_t>() const;

Tensor Tensor::clone() const {
  if (data_ == nullptr) return {};
  Tensor copy(shape_, dtype_);
  std::memcpy(copy.data_, data_, bytes());
  return copy;
}

Tensor Tensor::to_float32() const {
  if (dtype_ == Dtype::kF32) return *this;
  Tensor wide(shape_);
  const std::span<float> out = wide.values<float>();
  if (dtype_ == Dtype::kI32) {
    std::ranges::transform(values<int32_t>(), out.begin(), [](int32_t i) { return static_cast<float>(i); });
  } else {
    const auto widen = dtype_ == Dtype::kF16 ? half_to_float : bfloat16_to_float;
    std::ranges::transform(values<uint16_t>(), out.begin(), widen);
  }
  return wide;
}

}  // namespace minillm
