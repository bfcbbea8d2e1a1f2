// thread_pool.h - a fixed set of workers that run one parallel loop at a time, started and joined by spinning.
// Why our own: a small model needs about 200 synchronisations a token; std::barrier costs 0.5 to 5 us each, this one
// under 0.3 us. Workers spin for about 100 us after a loop, then sleep until the next one.
// Threads: one caller at a time. Workers run with subnormals flushed to zero (FTZ and DAZ): one subnormal costs 40 ns.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/function_ref.h"

namespace minillm {

/// One parallel loop, as an observer sees it.
struct LoopTime {
  double seconds = 0;       ///< From its start to its end.
  double busy_seconds = 0;  ///< Of all threads together, from a thread's first item to its last.
};

class ThreadPool {
 public:
  /// `n_threads` counts the caller, who works too; 0 means the number of cores this process may use.
  explicit ThreadPool(int n_threads);
  /// What 0 stands for.
  static int default_threads();
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const noexcept { return n_threads_; }

  /// Calls `observer` after each loop, on the caller's thread; an empty one ends that. Costs two looks at the clock a thread and loop.
  void observe(std::function<void(const LoopTime&)> observer);

  /// Calls body(item, thread) for every item in [0, n_items), each once; thread t begins with items t, t + n_threads, ... and then
  /// takes what others have not begun. Returns when all are done. Never allocates. The first exception thrown by a body is rethrown here.
  void for_each(int64_t n_items, FunctionRef<void(int64_t item, int thread)> body);

  /// The same for n_groups (1 to kMaxGroups) groups of n_items each. A thread begins in the group of its share of the groups, and helps
  /// in the others when that one has no items left: what it left in its cache after one such loop, it finds there in the next one of
  /// as many groups.
  static constexpr int64_t kMaxGroups = 64;
  void for_each_in_groups(int64_t n_groups, int64_t n_items, FunctionRef<void(int64_t group, int64_t item, int thread)> body);

 private:
  struct Shared;
  int n_threads_;
  std::unique_ptr<Shared> shared_;
};

/// Flushes subnormals to zero on this thread while it lives; restores the caller's mode afterwards.
class FlushSubnormals {
 public:
  FlushSubnormals() noexcept;
  ~FlushSubnormals();
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  uint32_t saved_;
};

}  // namespace minillm
