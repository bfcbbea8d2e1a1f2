// step_batch.h - the host side of one step: tokens, positions and sequence slices, reused from step to step.
#pragma once

#include <span>
#include <vector>

#include "kv/paged_cache.h"

namespace minillm {

class StepBatch {
 public:
  /// No allocation happens in steps within these sizes.
  void reserve(int64_t n_rows, int64_t n_sequences);
  void clear() noexcept;
  /// Appends `tokens` as the next ones of `cache_row`, whose slots must have been reserved. Position = slot.
  void add(const PagedCache& cache, int64_t cache_row, std::span<const TokenId> tokens);

  /// Appends a token of `cache_row` that the device has chosen, or will have when the step runs: then every row's must be such a one.
  void add_chosen(const PagedCache& cache, int64_t cache_row);

  int64_t n_rows() const noexcept { return static_cast<int64_t>(tokens_.size()); }
  /// Valid until the batch changes.
  Batch view() const noexcept { return {tokens_, positions_, sequences_, page_tokens_, follows_choice_}; }

 private:
  std::vector<TokenId> tokens_;
  std::vector<int32_t> positions_;
  std::vector<SequenceSlice> sequences_;
  int64_t page_tokens_ = 0;
  bool follows_choice_ = false;
};

}  // namespace minillm
