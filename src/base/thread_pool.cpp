// thread_pool.cpp - the loop protocol. No word is written by more than two threads in the usual course: sixteen that write one take
// microseconds to do so.
//   gate    [generation:32 | open:1], written by the caller alone, read by all.
//   places  one a thread: whether it works, and which items it has begun. Thread t's items are t, t + T, t + 2T, ... of T threads; one
//           that has done its own takes those of the others, from those who come late or are slow.
//   caller: writes the loop, opens the gate, works, shuts it, waits until no place says that its thread works.
//   worker: sees a new open generation, says that it works, looks at the gate again: still open, then it works; says that it does not.
//           Since each of the two writes before it reads, either the worker sees the gate shut or the caller sees the worker.
// A worker that comes late finds the gate shut and goes back to waiting: nobody ever waits for a thread that the system has
// not scheduled, only for threads in the middle of an item.
// Cost: about 0.2 us a loop of two threads while the workers spin; one system call to wake them afterwards.
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

constexpr uint64_t kOpen = 1;
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

/// A thread's word that it works, and its share of a loop: [generation of the loop:32 | items begun:32]; of an earlier loop: none begun.
struct alignas(64) Place {
  std::atomic<bool> works{false};
  alignas(64) std::atomic<uint64_t> begun{0};
};

}  // namespace

struct ThreadPool::Shared {
  alignas(64) std::atomic<uint64_t> gate{0};
  alignas(64) std::atomic<uint32_t> bell{0};      ///< Generation, as a word to sleep on.
  alignas(64) std::atomic<bool> stopping{false};  ///< Set before a last, empty loop.
  std::atomic<bool> running{false}, failed{false};
  std::exception_ptr exception;  ///< Written by the one thread that set `failed`.
  int64_t n_items = 0;
  FunctionRef<void(int64_t, int)> body;
  std::function<void(const LoopTime&)> observer;
  std::atomic<int64_t> busy_ns{0};  ///< Of the loop that is observed.
  std::array<Counter, kMaxGroups> groups;
  std::vector<Place> places;
  std::vector<std::thread> workers;

  /// Also runs when a thread could not be started: those that were must end.
  ~Shared() {
    stopping.store(true, std::memory_order_relaxed);
    n_items = 0;
    open();
    for (std::thread& worker : workers) worker.join();
  }

  void work(int thread, uint32_t generation) noexcept {
    if (!observer) return take_items(thread, generation);
    const auto start = std::chrono::steady_clock::now();
    take_items(thread, generation);
    busy_ns.fetch_add(std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count(), std::memory_order_relaxed);
  }

  void take_items(int thread, uint32_t generation) noexcept {
    const int n_threads = static_cast<int>(places.size());
    for (int i = 0, owner = thread; i < n_threads; ++i, owner = owner + 1 < n_threads ? owner + 1 : 0)
      for (int64_t item = begin_item(owner, generation); item < n_items; item = begin_item(owner, generation)) run_item(item, thread);
  }

  /// The next item of `owner`'s that nobody has begun, now begun; n_items or more if there is none.
  int64_t begin_item(int owner, uint32_t generation) noexcept {
    std::atomic<uint64_t>& begun = places[static_cast<size_t>(owner)].begun;
    for (uint64_t seen = begun.load(std::memory_order_relaxed);;) {
      const uint32_t n_begun = static_cast<uint32_t>(seen >> 32) == generation ? static_cast<uint32_t>(seen) : 0;
      const int64_t item = owner + static_cast<int64_t>(n_begun) * static_cast<int64_t>(places.size());
      if (item >= n_items || failed.load(std::memory_order_relaxed)) return n_items;
      const uint64_t now = (uint64_t{generation} << 32) | (n_begun + 1);
      if (begun.compare_exchange_weak(seen, now, std::memory_order_relaxed, std::memory_order_relaxed)) return item;
    }
  }

  void run_item(int64_t item, int thread) noexcept {
    try {
      body(item, thread);
    } catch (...) {
      if (!failed.exchange(true, std::memory_order_relaxed)) exception = std::current_exception();  // The rest is not wanted any more.
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
      const uint64_t now = wait_for_loop(seen);
      if ((now & kOpen) != 0) {
        std::atomic<bool>& works = places[static_cast<size_t>(thread)].works;
        works.store(true, std::memory_order_seq_cst);
        if (gate.load(std::memory_order_seq_cst) == now) work(thread, generation_of(now));
        works.store(false, std::memory_order_release);
      }
      seen = generation_of(now);
    }
  }

  /// Returns the loop's generation.
  uint32_t open() noexcept {
    const uint32_t generation = generation_of(gate.load(std::memory_order_relaxed)) + 1;
    gate.store((uint64_t{generation} << 32) | kOpen, std::memory_order_release);
    bell.store(generation, std::memory_order_seq_cst);
    bell.notify_all();  // A system call only if somebody sleeps.
    return generation;
  }
  void shut() noexcept {
    gate.store(gate.load(std::memory_order_relaxed) & ~kOpen, std::memory_order_seq_cst);
    for (const Place& place : places)
      while (place.works.load(std::memory_order_seq_cst)) relax();
  }
};

int ThreadPool::default_threads() { return std::min(usable_cores(), kMaxThreads); }

ThreadPool::ThreadPool(int n_threads) : n_threads_(n_threads == 0 ? default_threads() : n_threads), shared_(std::make_unique<Shared>()) {
  if (n_threads < 0 || n_threads > kMaxThreads)
    throw Error(ErrorCode::kInvalidArgument, n_threads, " threads: expected 0 (every core) to ", kMaxThreads);
  shared_->places = std::vector<Place>(static_cast<size_t>(n_threads_));
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
  const bool alone = n_threads_ == 1 || n_items == 1;
  const auto start = shared.observer ? std::chrono::steady_clock::now() : std::chrono::steady_clock::time_point();
  shared.busy_ns.store(0, std::memory_order_relaxed);
  if (alone) {
    for (int64_t item = 0; item < n_items && !shared.failed.load(std::memory_order_relaxed); ++item) shared.run_item(item, 0);
  } else {
    shared.work(0, shared.open());
    shared.shut();
  }
  if (shared.observer) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    shared.observer(
        {.seconds = seconds, .busy_seconds = alone ? seconds : 1e-9 * static_cast<double>(shared.busy_ns.load(std::memory_order_relaxed))});
  }
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
