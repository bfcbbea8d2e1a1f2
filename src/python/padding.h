// padding.h - attention_mask of [B, S] or [B, cached + S] zeros and ones, with padding on either side, as the library's lengths.
#pragma once

#include <vector>

#include "minillm/tensor.h"

namespace minillm::python {

struct Padding {
  std::vector<int64_t> first;    ///< [B] column of each row's first valid token.
  std::vector<int64_t> lengths;  ///< [B] valid tokens.

  /// `ids` with every row moved to column 0 (the same tensor where nothing moves).
  Tensor to_front(const Tensor& ids) const;
  /// The inverse, for logits [B, S, V]: zeros in front.
  void to_back(Tensor& logits) const;
};

/// The last S columns of `mask` say which of the ids [B, S] count; columns before them must add up to the `cached` lengths.
/// Throws Error{kInvalidArgument} for another shape, values other than 0 and 1, and rows with a hole.
Padding padding_of(const Tensor& mask, const Tensor& ids, const std::vector<int64_t>& cached);

}  // namespace minillm::python
