#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

#include "minillm/error.h"

namespace minillm {
namespace {

class Threads : public ::testing::TestWithParam<int> {};

TEST_P(Threads, RunEachItemOnceWithAThreadIndexInRange) {
  ThreadPool pool(GetParam());
  for (int64_t n_items : {0, 1, 2, 3, 7, 64, 1000}) {
    std::vector<int> times(static_cast<size_t>(n_items), 0);
    std::atomic<bool> in_range{true};
    pool.for_each(n_items, [&](int64_t item, int thread) {
      ++times[static_cast<size_t>(item)];
      if (thread < 0 || thread >= pool.n_threads()) in_range = false;
    });
    EXPECT_EQ(times, std::vector<int>(static_cast<size_t>(n_items), 1));
    EXPECT_TRUE(in_range);
  }
}

TEST_P(Threads, RunEachItemOfEachGroupOnce) {
  ThreadPool pool(GetParam());
  for (int64_t n_groups : {1, 2, 3, 64})
    for (int64_t n_items : {0, 1, 5, 100}) {
      std::vector<int> times(static_cast<size_t>(n_groups * n_items), 0);
      pool.for_each_in_groups(n_groups, n_items,
                              [&](int64_t group, int64_t item, int) { ++times[static_cast<size_t>(group * n_items + item)]; });
      EXPECT_EQ(times, std::vector<int>(static_cast<size_t>(n_groups * n_items), 1)) << n_groups << " groups of " << n_items;
    }
  EXPECT_THROW(pool.for_each_in_groups(0, 1, [](int64_t, int64_t, int) {}), Error);
  EXPECT_THROW(pool.for_each_in_groups(ThreadPool::kMaxGroups + 1, 1, [](int64_t, int64_t, int) {}), Error);
}

TEST_P(Threads, BeginInTheirOwnGroup) {
  ThreadPool pool(GetParam());
  const int64_t n_groups = pool.n_threads();
  std::vector<int64_t> first(static_cast<size_t>(n_groups), -1);  // The group that each thread took its first item from.
  pool.for_each_in_groups(n_groups, 50, [&](int64_t group, int64_t, int thread) {
    if (first[static_cast<size_t>(thread)] < 0) first[static_cast<size_t>(thread)] = group;
    std::this_thread::sleep_for(std::chrono::microseconds(50));  // Long enough for every thread to come.
  });
  EXPECT_EQ(first[0], 0) << "the caller never comes late";
}

TEST_P(Threads, SeeWhatEarlierLoopsWrote) {
  ThreadPool pool(GetParam());
  constexpr int64_t kItems = 5, kLoops = 2000;
  std::vector<int64_t> values(kItems, 0);
  for (int64_t loop = 0; loop < kLoops; ++loop) {
    std::vector<int64_t> next(kItems);
    pool.for_each(kItems, [&](int64_t i, int) { next[static_cast<size_t>(i)] = values[static_cast<size_t>((i + 1) % kItems)] + 1; });
    values = next;
  }
  EXPECT_EQ(values, std::vector<int64_t>(kItems, kLoops));
}

TEST_P(Threads, WakeAfterSleeping) {
  ThreadPool pool(GetParam());
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));  // Well past the time they spin.
    std::atomic<int> n{0};
    pool.for_each(50, [&](int64_t, int) { ++n; });
    EXPECT_EQ(n, 50);
  }
}

TEST_P(Threads, RethrowAndStayUsable) {
  ThreadPool pool(GetParam());
  for (int i = 0; i < 20; ++i) {
    EXPECT_THROW(pool.for_each(100,
                               [](int64_t item, int) {
                                 if (item % 10 == 3) throw std::out_of_range("item");
                               }),
                 std::out_of_range);
    std::atomic<int> n{0};
    pool.for_each(10, [&](int64_t, int) { ++n; });
    EXPECT_EQ(n, 10);
  }
}

TEST_P(Threads, FlushSubnormalsInBodiesAndLeaveTheCallersModeAlone) {
  ThreadPool pool(GetParam());
  const volatile float subnormal = std::numeric_limits<float>::denorm_min() * 64.0f;
  std::atomic<int> kept{0};
  pool.for_each(200, [&](int64_t, int) {
    if (subnormal * 1.0f != 0.0f) ++kept;
  });
#if defined(__x86_64__)
  EXPECT_EQ(kept, 0);
#endif
  EXPECT_NE(subnormal * 1.0f, 0.0f);
}

INSTANTIATE_TEST_SUITE_P(Counts, Threads, ::testing::Values(1, 2, 3, 8), ::testing::PrintToStringParamName());

TEST(ThreadPool, UsesEveryCoreByDefault) { EXPECT_GE(ThreadPool(0).n_threads(), 1); }

TEST(ThreadPool, RefusesACountThatMakesNoSense) {
  for (int n : {-1, 1025}) {
    try {
      ThreadPool pool(n);
      FAIL() << n;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find(std::to_string(n)), std::string::npos) << error.what();
    }
  }
}

TEST(ThreadPool, RefusesALoopInsideALoop) {
  ThreadPool pool(2);
  EXPECT_THROW(pool.for_each(4, [&](int64_t, int) { pool.for_each(2, [](int64_t, int) {}); }), Error);
}

}  // namespace
}  // namespace minillm
