// thread_pool.cpp - the loop protocol. One word, the gate, holds [generation:32 | open:1 | active workers:31].
//   caller: writes the loop, stores (generation + 1, open, 0), works, clears `open`, waits until active is 0.
//   worker: sees a new open generation, adds itself to active by compare-and-swap, works, takes itself out.
// A worker that comes late finds the gate shut and goes back to waiting: nobody ever waits for a thread that the system has
// not scheduled, only for threads in the middle of an item.
// Cost: about 0.2 us a loop while the workers spin; one system call to wake them afterwards.
#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <exception>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/check.h"

namespace minillm {
namespace {

constexpr uint64_t kOpen = uint64_t{1} << 31, kActive = kOpen - 1;
constexpr auto kSpinTime = std::chrono::microseconds(100);
constexpr int kSpinsPerLook = 64;  // Between two looks at the clock.
constexpr int kMaxThreads = 1024;

uint32_t generation_of(uint64_t gate) { return static_cast<uint32_t>(gate >> 32); }

void relax() noexcept {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

int usable_cores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof cores, &cores) == 0) return std::max(1, CPU_COUNT(&cores));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

/// The next item of a group that nobody has taken.
struct alignas(64) Counter {
  std::atomic<int64_t> next{0};
};

}  // namespace

struct ThreadPool::Shared {
  alignas(64) std::atomic<uint64_t> gate{0};
  alignas(64) std::atomic<int64_t> next{0};       ///< Next item nobody has taken.
  alignas(64) std::atomic<uint32_t> bell{0};      ///< Generation, as a word to sleep on.
  alignas(64) std::atomic<bool> stopping{false};  ///< Set before a last, empty loop.
  std::atomic<bool> running{false}, failed{false};
  std::exception_ptr exception;  ///< Written by the one thread that set `failed`.
  int64_t n_items = 0;
  FunctionRef<void(int64_t, int)> body;
  std::function<void(const LoopTime&)> observer;
  std::atomic<int64_t> busy_ns{0};  ///< Of the loop that is observed.
  std::array<Counter, kMaxGroups> groups;
  std::vector<std::thread> workers;

  /// Also runs when a thread could not be started: those that were must end.
  ~Shared() {
    stopping.store(true, std::memory_order_relaxed);
    next.store(n_items, std::memory_order_relaxed);
    open();
    for (std::thread& worker : workers) worker.join();
  }

  void work(int thread) noexcept {
    if (!observer) return take_items(thread);
    const auto start = std::chrono::steady_clock::now();
    take_items(thread);
    busy_ns.fetch_add(std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count(), std::memory_order_relaxed);
  }

  void take_items(int thread) noexcept {
    for (;;) {
      const int64_t item = next.fetch_add(1, std::memory_order_relaxed);
      if (item >= n_items) return;
      try {
        body(item, thread);
      } catch (...) {
        if (!failed.exchange(true, std::memory_order_relaxed)) exception = std::current_exception();
        next.store(n_items, std::memory_order_relaxed);  // The rest is not wanted any more.
      }
    }
  }

  /// Returns the gate once its generation differs from `seen`.
  uint64_t wait_for_loop(uint32_t seen) noexcept {
    const auto give_up = std::chrono::steady_clock::now() + kSpinTime;
    for (int i = 1;; ++i) {
      const uint64_t now = gate.load(std::memory_order_acquire);
      if (generation_of(now) != seen) return now;
      if (i % kSpinsPerLook == 0 && std::chrono::steady_clock::now() > give_up) bell.wait(seen);
      relax();
    }
  }

  void run_worker(int thread) noexcept {
    const FlushSubnormals flush;
    uint32_t seen = 0;
    while (!stopping.load(std::memory_order_relaxed)) {
      uint64_t now = wait_for_loop(seen);
      while ((now & kOpen) != 0) {
        if (!gate.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
        work(thread);
        gate.fetch_sub(1, std::memory_order_release);
        break;
      }
      seen = generation_of(now);
    }
  }

  void open() noexcept {
    const uint32_t generation = generation_of(gate.load(std::memory_order_relaxed)) + 1;
    gate.store((uint64_t{generation} << 32) | kOpen, std::memory_order_release);
    bell.store(generation, std::memory_order_seq_cst);
    bell.notify_all();  // A system call only if somebody sleeps.
  }
  void shut() noexcept {
    gate.fetch_and(~kOpen, std::memory_order_acq_rel);
    while ((gate.load(std::memory_order_acquire) & kActive) != 0) relax();
  }
};

ThreadPool::ThreadPool(int n_threads)
    : n_threads_(n_threads == 0 ? std::min(usable_cores(), kMaxThreads) : n_threads), shared_(std::make_unique<Shared>()) {
  if (n_threads < 0 || n_threads > kMaxThreads)
    throw Error(ErrorCode::kInvalidArgument, n_threads, " threads: expected 0 (every core) to ", kMaxThreads);
  shared_->workers.reserve(static_cast<size_t>(n_threads_ - 1));
  for (int thread = 1; thread < n_threads_; ++thread)
    shared_->workers.emplace_back([shared = shared_.get(), thread] { shared->run_worker(thread); });
}

ThreadPool::~ThreadPool() = default;

void ThreadPool::for_each(int64_t n_items, FunctionRef<void(int64_t item, int thread)> body) {
  if (n_items <= 0) return;
  Shared& shared = *shared_;
  MINILLM_CHECK(!shared.running.exchange(true, std::memory_order_acquire), "the pool runs one loop at a time");
  const FlushSubnormals flush;
  shared.n_items = n_items;
  shared.body = body;
  shared.next.store(0, std::memory_order_relaxed);
  const bool alone = n_threads_ == 1 || n_items == 1;
  const auto start = shared.observer ? std::chrono::steady_clock::now() : std::chrono::steady_clock::time_point();
  shared.busy_ns.store(0, std::memory_order_relaxed);
  if (!alone) shared.open();
  shared.work(0);
  if (!alone) shared.shut();
  if (shared.observer)
    shared.observer({.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
                     .busy_seconds = 1e-9 * static_cast<double>(shared.busy_ns.load(std::memory_order_relaxed))});
  std::exception_ptr exception;
  if (shared.failed.load(std::memory_order_relaxed)) {
    shared.failed.store(false, std::memory_order_relaxed);
    std::swap(exception, shared.exception);
  }
  shared.running.store(false, std::memory_order_release);
  if (exception) std::rethrow_exception(exception);
}

void ThreadPool::observe(std::function<void(const LoopTime&)> observer) {
  MINILLM_CHECK(!shared_->running.load(std::memory_order_acquire), "an observer set inside a loop");
  shared_->observer = std::move(observer);
}

void ThreadPool::for_each_in_groups(int64_t n_groups, int64_t n_items, FunctionRef<void(int64_t group, int64_t item, int thread)> body) {
  MINILLM_CHECK(n_groups >= 1 && n_groups <= kMaxGroups, n_groups, " groups");
  std::array<Counter, kMaxGroups>& groups = shared_->groups;
  for (int64_t group = 0; group < n_groups; ++group) groups[static_cast<size_t>(group)].next.store(0, std::memory_order_relaxed);
  for_each(n_groups * n_items, [&](int64_t, int thread) {  // One call an item: whoever is called finds one in some group.
    for (int64_t group = thread * n_groups / n_threads_;; group = (group + 1) % n_groups) {
      const int64_t item = groups[static_cast<size_t>(group)].next.fetch_add(1, std::memory_order_relaxed);
      if (item < n_items) return body(group, item, thread);
    }
  });
}

#if defined(__x86_64__)
FlushSubnormals::FlushSubnormals() noexcept : saved_(_mm_getcsr()) {
  constexpr uint32_t kFlushResults = 0x8000, kInputsAreZero = 0x0040;
  _mm_setcsr(saved_ | kFlushResults | kInputsAreZero);
}
FlushSubnormals::~FlushSubnormals() { _mm_setcsr(saved_); }
#else
FlushSubnormals::FlushSubnormals() noexcept : saved_(0) {}
FlushSubnormals::~FlushSubnormals() = default;
#endif

}  // namespace minillm
