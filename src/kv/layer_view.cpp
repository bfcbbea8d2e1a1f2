// layer_view.cpp - see layer_view.h.
#include "kv/layer_view.h"

#include <algorithm>

namespace minillm {

int64_t LayerView::ring() const noexcept { return std::min(max_length, window); }

TokenRange LayerView::shown(int64_t seen, int64_t n_new) const noexcept {
  const int64_t total = seen + n_new;
  const auto newest = [total](int64_t n) { return TokenRange{total - n, n, n}; };
  if (window == 0) return {0, total, std::max(total, max_length)};
  if (max_length == 0) return newest(std::min(seen, window - 1) + n_new);
  if (seen >= ring()) return newest(n_new == 1 ? ring() : ring() - 1 + n_new);
  return {0, total, std::max(total, ring())};
}

std::pair<int64_t, int64_t> LayerView::mask_sizes(int64_t seen, int64_t n_query) const noexcept {
  if (window == 0) return {max_length > 0 ? max_length : seen + n_query, 0};
  if (max_length == 0) return {std::min(seen, window - 1) + n_query, std::max<int64_t>(seen - window + 1, 0)};
  const int64_t offset = std::max<int64_t>(seen - ring() + 1, 0);
  if (seen >= ring()) return {ring() - 1 + n_query, offset};
  return {std::max(seen + n_query, ring()), offset};
}

int64_t LayerView::get_max_length() const noexcept {
  if (window == 0) return max_length > 0 ? max_length : -1;
  return max_length > 0 ? ring() : window;
}

}  // namespace minillm
