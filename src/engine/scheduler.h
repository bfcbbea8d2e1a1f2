// scheduler.h - which sequences take part in the next step, with how many tokens; who waits, and who gives way.
// Order:    first come, first served. Each running sequence that only needs its next token gets one row; what is left of the step's
//           rows goes to prompts, oldest first, in chunks. Then waiting sequences are let in while rows and pages last.
// Pages:    a sequence is let in when its tokens so far, and one more, fit beside those of the others. When the pool runs out
//           later, the newest running sequence gives its pages back, waits at its place in the queue, and is recomputed: the
//           oldest always moves. One that is alone and still too long has reached the cache's capacity and ends.
// Threads:  one caller. Sequences are borrowed: they must stay until finish() or remove().
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "engine/sequence.h"
#include "kv/paged_cache.h"
#include "model/step_batch.h"

namespace minillm {

struct SchedulerLimits {
  int64_t max_batch = 16;
  int64_t max_step_rows = 512;
  /// Above 0: every n-th step first evicts the newest sequence, for tests of recomputation.
  int64_t preempt_every = 0;
};

class Scheduler {
 public:
  /// A sequence's part in the planned step.
  struct Share {
    Sequence* sequence = nullptr;
    int64_t n_tokens = 0;
    int32_t last_row = 0;           ///< Its last row in the batch.
    bool wants_next_token = false;  ///< The last of its known tokens is in this step.
    bool is_prefill = false;
  };

  /// A sequence that has reached the cache's capacity, or for whose pages there was no memory (`error` says so).
  struct Ended {
    Sequence* sequence = nullptr;
    std::string error;
  };

  /// `cache` needs limits.max_batch rows.
  Scheduler(PagedCache& cache, const SchedulerLimits& limits);

  void submit(Sequence& sequence);
  /// Takes a sequence out, running or waiting; its pages go back.
  void remove(Sequence& sequence);
  /// Fills `batch` and reserves its slots. Valid until the next plan(); shares of sequences that are removed in between are theirs
  /// to ignore. A sequence that cannot go on is in ended() instead.
  std::span<const Share> plan(StepBatch& batch);
  std::span<const Share> shares() const noexcept { return shares_; }
  /// After advance(), while the step's tokens are not known yet: the same for the step behind it, if that is sure to be the next token of
  /// the same sequences. False, and nothing is planned, where it is not: somebody waits, or pages or a sequence's `capacity` end.
  bool plan_ahead(StepBatch& batch, int64_t capacity);
  /// Sequences that the last plan() could not go on with; the caller removes them.
  std::span<const Ended> ended() const noexcept { return ended_; }
  /// The planned step has been computed.
  void advance();

  bool idle() const noexcept { return running_.empty() && waiting_.empty(); }
  int64_t n_running() const noexcept { return static_cast<int64_t>(running_.size()); }
  int64_t n_waiting() const noexcept { return static_cast<int64_t>(waiting_.size()); }

 private:
  int64_t pages_for(int64_t n_tokens) const noexcept;
  int64_t pages_held(const Sequence& sequence) const;
  int64_t tokens_left(const Sequence& sequence) const;
  bool make_room(const Sequence& sequence, int64_t n_tokens);
  void preempt(Sequence& sequence);
  void plan_running(StepBatch& batch, int64_t& prefill_rows);
  void let_in(StepBatch& batch, int64_t& prefill_rows);
  void add(StepBatch& batch, Sequence& sequence, int64_t n_tokens);

  PagedCache& cache_;
  SchedulerLimits limits_;
  std::vector<Sequence*> running_;  ///< By id, which is the order of arrival.
  std::deque<Sequence*> waiting_;   ///< The same.
  std::vector<int64_t> free_rows_;
  std::vector<Share> shares_;
  std::vector<Ended> ended_;
  int64_t n_steps_ = 0;
};

}  // namespace minillm
