// scheduler.cpp - continuous batching with chunked prefill and recomputation.
// Sources: Yu et al. 2022, Orca (OSDI); Kwon et al. 2023, arXiv:2309.06180; Agrawal et al. 2023, arXiv:2308.16369.
#include "engine/scheduler.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"

namespace minillm {
namespace {

constexpr auto kByAge = [](const Sequence* a, const Sequence* b) { return a->id < b->id; };

}  // namespace

Scheduler::Scheduler(PagedCache& cache, const SchedulerLimits& limits) : cache_(cache), limits_(limits) {
  MINILLM_CHECK(limits.max_batch >= 1 && limits.max_step_rows >= limits.max_batch && cache.n_rows() >= limits.max_batch, "limits: batch ",
                limits.max_batch, ", rows ", limits.max_step_rows, ", cache rows ", cache.n_rows());
  const auto n = static_cast<size_t>(limits.max_batch);
  for (int64_t row = limits.max_batch - 1; row >= 0; --row) free_rows_.push_back(row);  // Taken from the back: row 0 first.
  running_.reserve(n);
  shares_.reserve(n);
  ended_.reserve(n);
}

void Scheduler::submit(Sequence& sequence) {
  sequence.cache_row = -1;
  waiting_.insert(std::ranges::upper_bound(waiting_, &sequence, kByAge), &sequence);
}

void Scheduler::remove(Sequence& sequence) {
  if (sequence.cache_row >= 0) {
    cache_.truncate(sequence.cache_row, 0);
    free_rows_.push_back(sequence.cache_row);
    sequence.cache_row = -1;
  }
  std::erase(running_, &sequence);
  std::erase(waiting_, &sequence);
}

void Scheduler::preempt(Sequence& sequence) {
  remove(sequence);
  submit(sequence);
}

int64_t Scheduler::pages_for(int64_t n_tokens) const noexcept { return ceil_div(n_tokens, cache_.storage().shape().page_tokens); }
int64_t Scheduler::pages_held(const Sequence& sequence) const { return static_cast<int64_t>(cache_.pages(sequence.cache_row).size()); }
int64_t Scheduler::tokens_left(const Sequence& sequence) const { return sequence.n_tokens() - cache_.length(sequence.cache_row); }

/// Pages for `n_tokens` more of a running sequence, taken from the newest where there are none. False if it had to go itself.
bool Scheduler::make_room(const Sequence& sequence, int64_t n_tokens) {
  const int64_t missing = pages_for(cache_.length(sequence.cache_row) + n_tokens) - pages_held(sequence);
  while (cache_.pool().n_free() < missing) {
    Sequence* newest = running_.back();
    if (newest == &sequence) {
      if (running_.size() == 1)
        ended_.push_back({newest, {}});
      else
        preempt(*newest);
      return false;
    }
    preempt(*newest);
  }
  return true;
}

void Scheduler::add(StepBatch& batch, Sequence& sequence, int64_t n_tokens) {
  const int64_t n_cached = cache_.length(sequence.cache_row);
  try {
    cache_.reserve(sequence.cache_row, n_cached + n_tokens);
  } catch (const Error& error) {  // No memory for its pages: it ends, the others go on.
    ended_.push_back({&sequence, error.what()});
    return;
  }
  batch.add(cache_, sequence.cache_row, std::span(sequence.tokens).subspan(static_cast<size_t>(n_cached), static_cast<size_t>(n_tokens)));
  shares_.push_back({.sequence = &sequence,
                     .n_tokens = n_tokens,
                     .last_row = static_cast<int32_t>(batch.n_rows() - 1),
                     .wants_next_token = n_cached + n_tokens == sequence.n_tokens(),
                     .is_prefill = n_tokens > 1 || n_cached + n_tokens <= sequence.n_prompt});
}

/// Oldest first. Whoever loses its pages is newer than the one that takes them, so it has no share yet.
void Scheduler::plan_running(StepBatch& batch, int64_t& prefill_rows) {
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    const int64_t left = tokens_left(sequence), n = left == 1 ? 1 : std::min(left, prefill_rows);
    if (n == 0) continue;
    if (!make_room(sequence, n)) return;  // It was the newest: nobody follows.
    if (left > 1) prefill_rows -= n;
    add(batch, sequence, n);
  }
}

void Scheduler::let_in(StepBatch& batch, int64_t& prefill_rows) {
  int64_t spoken_for = 0;  // Pages that running sequences still need for the tokens they have, and one more.
  for (const Sequence* sequence : running_) spoken_for += std::max<int64_t>(0, pages_for(sequence->n_tokens() + 1) - pages_held(*sequence));
  while (!waiting_.empty() && !free_rows_.empty() && prefill_rows > 0) {
    Sequence& sequence = *waiting_.front();
    const int64_t pages = pages_for(sequence.n_tokens() + 1);
    if (!running_.empty() && cache_.pool().n_free() - spoken_for < pages) return;
    waiting_.pop_front();
    sequence.cache_row = free_rows_.back();
    free_rows_.pop_back();
    running_.insert(std::ranges::upper_bound(running_, &sequence, kByAge), &sequence);
    const int64_t n = std::min(sequence.n_tokens(), prefill_rows);
    if (!make_room(sequence, n)) return;
    prefill_rows -= n;
    add(batch, sequence, n);
    spoken_for += std::max<int64_t>(0, pages - pages_held(sequence));
  }
}

std::span<const Scheduler::Share> Scheduler::plan(StepBatch& batch) {
  batch.clear();
  shares_.clear();
  ended_.clear();
  if (limits_.preempt_every > 0 && ++n_steps_ % limits_.preempt_every == 0 && !running_.empty()) preempt(*running_.back());
  const int64_t n_decode = std::ranges::count_if(running_, [&](const Sequence* sequence) { return tokens_left(*sequence) == 1; });
  int64_t prefill_rows = limits_.max_step_rows - n_decode;
  plan_running(batch, prefill_rows);
  if (ended_.empty()) let_in(batch, prefill_rows);
  return shares_;
}

bool Scheduler::plan_ahead(StepBatch& batch, int64_t capacity) {
  if (!waiting_.empty() || limits_.preempt_every > 0 || shares_.size() != running_.size()) return false;
  int64_t missing = 0;
  for (const Share& share : shares_) {
    const Sequence& sequence = *share.sequence;
    if (!share.wants_next_token || !sequence.may_go_on(capacity)) return false;
    missing += std::max<int64_t>(0, pages_for(cache_.length(sequence.cache_row) + 1) - pages_held(sequence));
  }
  if (missing > cache_.pool().n_free()) return false;
  try {
    for (const Share& share : shares_) cache_.reserve(share.sequence->cache_row, cache_.length(share.sequence->cache_row) + 1);
  } catch (const Error&) {
    return false;  // plan() will meet it again, when it is certain.
  }
  batch.clear();
  for (Share& share : shares_) {
    batch.add_chosen(cache_, share.sequence->cache_row);
    share = {.sequence = share.sequence,
             .n_tokens = 1,
             .last_row = static_cast<int32_t>(batch.n_rows() - 1),
             .wants_next_token = true,
             .is_prefill = false};
  }
  return true;
}

void Scheduler::advance() {
  for (const Share& share : shares_) cache_.advance(share.sequence->cache_row, share.n_tokens);
}

}  // namespace minillm
