// dequantise.h - rows of any type to float32, element by element, and of float32 to what caches store: for conversion, row lookups,
// saved caches and the reference backend.
#pragma once

#include <cstdint>

#include "minillm/types.h"

namespace minillm {

/// Writes `n` floats from a row stored as `dtype` (any but kI32): block formats as quant_block.h defines them, in float32.
/// Throws Error{kInvalidArgument} if n is not a multiple of the block, Error{kUnsupported} for kI32.
void dequantise_row(Dtype dtype, const void* row, float* out, int64_t n);
/// The inverse for the types of is_cache_dtype(), rounded to nearest. Throws Error{kUnsupported} for others.
void narrow_row(Dtype dtype, void* row, const float* from, int64_t n);

}  // namespace minillm
