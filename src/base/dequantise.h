// dequantise.h - rows of any weight type to float32, element by element: for conversion, row lookups and the reference backend.
#pragma once

#include <cstdint>

#include "minillm/types.h"

namespace minillm {

/// Writes `n` floats from a row stored as `dtype` (any but kI32): block formats as quant_block.h defines them, in float32.
/// Throws Error{kInvalidArgument} if n is not a multiple of the block, Error{kUnsupported} for kI32.
void dequantise_row(Dtype dtype, const void* row, float* out, int64_t n);

}  // namespace minillm
