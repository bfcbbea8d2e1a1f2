// dtype.cpp - the table of dtype.h.
#include "base/dtype.h"

#include "minillm/error.h"

namespace minillm {

int64_t block_elements(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::kF32:
    case Dtype::kF16:
    case Dtype::kBF16:
    case Dtype::kI32:
    case Dtype::kF8:
      return 1;
    case Dtype::kQ4_0:
    case Dtype::kQ4_1:
    case Dtype::kQ5_0:
    case Dtype::kQ5_1:
    case Dtype::kQ8_0:
      return 32;
    case Dtype::kQ4_K:
    case Dtype::kQ5_K:
    case Dtype::kQ6_K:
      return 256;
  }
  return 1;
}

size_t block_bytes(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::kF32:
    case Dtype::kI32:
      return 4;
    case Dtype::kF16:
    case Dtype::kBF16:
      return 2;
    case Dtype::kF8:
      return 1;
    case Dtype::kQ4_0:
      return 18;
    case Dtype::kQ4_1:
      return 20;
    case Dtype::kQ5_0:
      return 22;
    case Dtype::kQ5_1:
      return 24;
    case Dtype::kQ8_0:
      return 34;
    case Dtype::kQ4_K:
      return 144;
    case Dtype::kQ5_K:
      return 176;
    case Dtype::kQ6_K:
      return 210;
  }
  return 1;
}

size_t row_bytes(Dtype dtype, int64_t n) {
  const int64_t block = block_elements(dtype);
  if (n < 0 || n % block != 0)
    throw Error(ErrorCode::kInvalidArgument, "a row of ", n, " elements in ", name_of(dtype), ": expected a multiple of ", block);
  return static_cast<size_t>(n / block) * block_bytes(dtype);
}

}  // namespace minillm
