// beside.h - what is done beside a product, by the thread that has the data in its cache.
#pragma once

#include <cstdint>

#include "backend/cpu/kernels.h"
#include "base/function_ref.h"

namespace minillm::cpu {

/// Rows [row, row + n_rows) and columns [column, column + n_columns) of a product, and where they lie.
struct OutputBlock {
  int64_t row, n_rows, column, n_columns;
  float* values;  ///< Of the first row and column.
  float* second;  ///< In pairs, the same columns of the second tensor.
  int64_t stride;
};

/// Each may be empty.
struct Beside {
  /// Writes row `row` of x, or, where nobody else reads x, to `to` instead (if not null). Called once a row, before it is read.
  FunctionRef<void(int64_t row, float* to)> before = {};
  FunctionRef<void(const OutputBlock& block)> after = {};  ///< This block is final.
  /// Nothing but `after` reads the product: `out` may stay as it is, and the blocks lie in a thread's own memory.
  bool only_after = false;
  /// A matrix [T, N] that `after` reads and writes where its block is: fetched from other cores while the product computes. Or null.
  float* updated = nullptr;
  /// Where `after` rounds what it makes of pairs, a column for each. Or none.
  RoundedRows rounded = {};
  /// What `after` does, where it is one of these: adds to `updated`, or gates to `rounded`. A product may do that itself, to the same bits.
  Finish does = Finish::kCall;
  /// The weight is two tensors of as many rows: a column of the second is computed with the same of the first, and `after` is called
  /// once for both, with columns of the first.
  bool pairs = false;
};

}  // namespace minillm::cpu
