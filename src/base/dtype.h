// dtype.h - sizes of the element types and of the block formats.
//   A block format stores `block_elements` consecutive weights of a row in `block_bytes` bytes (GGUF specification, ggml).
//   f32 1/4  f16 1/2  bf16 1/2  f8 1/1  i32 1/4  q4_0 32/18  q4_1 32/20  q5_0 32/22  q5_1 32/24  q8_0 32/34  q4_k 256/144  q5_k 256/176
//   q6_k 256/210
#pragma once

#include <cstddef>
#include <cstdint>

#include "minillm/types.h"

namespace minillm {

int64_t block_elements(Dtype dtype) noexcept;
size_t block_bytes(Dtype dtype) noexcept;
inline bool is_quantised(Dtype dtype) noexcept { return block_elements(dtype) > 1; }

/// Whether caches of keys and values may be stored so, and the list for messages.
inline bool is_cache_dtype(Dtype dtype) noexcept {
  return dtype == Dtype::kF32 || dtype == Dtype::kF16 || dtype == Dtype::kBF16 || dtype == Dtype::kF8;
}
inline constexpr const char* kCacheDtypes = "f32, f16, bf16 or f8";

/// Bytes of one row of `n` elements. Throws Error{kInvalidArgument} if n is negative or not a multiple of the block.
size_t row_bytes(Dtype dtype, int64_t n);

}  // namespace minillm
