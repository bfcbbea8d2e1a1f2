// layer_view.h - what one layer of a cache shows to the outside, as the four layer classes of transformers 5 show it.
//   class                      chosen when                  update() returns, for q new tokens after `seen`
//   DynamicLayer               no max_length                every token
//   DynamicSlidingWindowLayer  the layer slides             the last W - 1 seen and the new ones
//   StaticLayer                max_length M                 M slots, zeros behind the tokens
//   StaticSlidingWindowLayer   both; R = min(M, W) slots    all while they fit R, padded with zeros; all of them in the step that
//                                                           overflows; then the last R for q = 1, the last R - 1 and the new for more
// The storage underneath keeps every token whatever the view, so that crop() can always go back.
// Source: transformers 5.23, src/transformers/cache_utils.py.
#pragma once

#include <cstdint>
#include <utility>

namespace minillm {

/// Tokens [first, first + n) of a layer, in a tensor of `width` tokens.
struct TokenRange {
  int64_t first = 0, n = 0, width = 0;
};

struct LayerView {
  int64_t max_length = 0;  ///< M; 0 grows on demand.
  int64_t window = 0;      ///< W; 0 does not slide.

  /// What update() returns.
  TokenRange shown(int64_t seen, int64_t n_new) const noexcept;
  /// (length, offset) of the keys that a mask for `n_query` new tokens covers.
  std::pair<int64_t, int64_t> mask_sizes(int64_t seen, int64_t n_query) const noexcept;
  /// Tokens that the layer can show; -1 without a bound.
  int64_t get_max_length() const noexcept;

 private:
  int64_t ring() const noexcept;  ///< R
};

}  // namespace minillm
