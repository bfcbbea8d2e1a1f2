// step_batch.cpp - building a flat, ragged batch.
#include "model/step_batch.h"

namespace minillm {

void StepBatch::reserve(int64_t n_rows, int64_t n_sequences) {
  tokens_.reserve(static_cast<size_t>(n_rows));
  positions_.reserve(static_cast<size_t>(n_rows));
  sequences_.reserve(static_cast<size_t>(n_sequences));
}

void StepBatch::clear() noexcept {
  tokens_.clear();
  positions_.clear();
  sequences_.clear();
  follows_choice_ = false;
}

void StepBatch::add(const PagedCache& cache, int64_t cache_row, std::span<const TokenId> tokens) {
  const int64_t n_cached = cache.length(cache_row);
  page_tokens_ = cache.storage().shape().page_tokens;
  sequences_.push_back(
      {.first_row = n_rows(), .n_rows = static_cast<int64_t>(tokens.size()), .n_cached = n_cached, .pages = cache.pages(cache_row).data()});
  for (size_t i = 0; i < tokens.size(); ++i) positions_.push_back(static_cast<int32_t>(n_cached + static_cast<int64_t>(i)));
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

void StepBatch::add_chosen(const PagedCache& cache, int64_t cache_row) {
  constexpr TokenId kUnknown = 0;
  add(cache, cache_row, {&kUnknown, 1});
  follows_choice_ = true;
}

}  // namespace minillm
