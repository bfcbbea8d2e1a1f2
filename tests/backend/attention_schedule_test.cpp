// attention_schedule_test.cpp - tasks cover every row and run exactly once, whatever the batch; splits stay within their room.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "backend/cpu/attention_schedule.h"
#include "support/random.h"

namespace minillm::cpu {
namespace {

using Place = std::tuple<int64_t, int64_t, int64_t, int64_t>;  ///< Sequence, key/value head, packed row, run.

void check_cover(const AttentionSchedule& schedule, std::span<const AttentionSequence> sequences, const Visibility& visibility,
                 const ScheduleLimits& limits) {
  std::map<Place, int> seen;
  std::vector<int> slots(static_cast<size_t>(schedule.n_partial_rows));
  for (const AttentionTask& task : schedule.tasks) {
    EXPECT_GE(task.n_rows, 1);
    EXPECT_LE(task.n_rows, limits.max_tile_rows);
    for (int64_t run = task.run_begin; run < task.run_end; ++run)
      for (int64_t r = 0; r < task.n_rows; ++r) {
        ++seen[{task.sequence, task.kv_head, task.row + r, run}];
        if (task.partial < 0) continue;
        const int64_t slot = task.partial + (run - task.first_run) * task.n_rows + r;
        ASSERT_LT(slot, schedule.n_partial_rows);
        ++slots[static_cast<size_t>(slot)];
      }
    if (task.partial < 0) {
      EXPECT_EQ(task.run_end - task.run_begin, task.tile_runs);
    }
  }
  EXPECT_LE(schedule.n_partial_rows, limits.max_partial_rows);
  EXPECT_TRUE(std::all_of(slots.begin(), slots.end(), [](int n) { return n == 1; }));
  for (size_t i = 0; i < sequences.size(); ++i) {
    const AttentionSequence& s = sequences[i];
    const int64_t n_keys = std::max<int64_t>(0, s.offset + s.n_rows);
    for (int64_t head = 0; head < limits.n_kv_heads; ++head)
      for (int64_t row = 0; row < s.n_rows * limits.group; ++row) {
        const int64_t position = s.offset + row / limits.group;
        for (int64_t key = visibility.begin(position); key < visibility.end(position, n_keys); ++key) {
          const int n = seen[{static_cast<int64_t>(i), head, row, key / limits.run_tokens}];
          ASSERT_EQ(n, 1) << "sequence " << i << " head " << head << " row " << row << " key " << key;
        }
      }
  }
}

TEST(AttentionSchedule, CoversEveryVisibleKeyOnce) {
  test::Random random(1);
  for (int i = 0; i < 300; ++i) {
    ScheduleLimits limits;
    limits.group = 1 + random.below(8);
    limits.n_kv_heads = 1 + random.below(3);
    limits.run_tokens = random.below(2) == 0 ? 512 : 64;
    limits.max_tile_rows = 6 * (1 + random.below(16));
    limits.n_threads = static_cast<int>(1 + random.below(8));
    limits.max_partial_rows = random.below(3) * random.below(500);
    const Visibility visibility{random.below(3) != 0, random.below(2) == 0 ? 0 : 1 + random.below(300)};
    std::vector<AttentionSequence> sequences;
    int64_t first_row = 0, longest = 0;
    for (int64_t n = 1 + random.below(5); n > 0; --n) {
      const int64_t rows = random.below(3) == 0 ? random.below(70) : random.below(3);
      sequences.push_back({first_row, rows, random.below(1500) - (random.below(5) == 0 ? 700 : 0), nullptr});
      first_row += rows;
      longest = std::max(longest, sequences.back().offset + rows);
    }
    AttentionSchedule schedule;
    make_schedule(schedule, sequences, visibility, limits);
    check_cover(schedule, sequences, visibility, limits);
    const int64_t most = tasks_needed(limits, first_row, static_cast<int64_t>(sequences.size()));
    EXPECT_LE(static_cast<int64_t>(schedule.tasks.size()), most);
    EXPECT_LE(static_cast<int64_t>(schedule.merges.size()), most);
  }
}

TEST(AttentionSchedule, OneLongDecodeUsesEveryThread) {
  ScheduleLimits limits{.group = 4, .n_kv_heads = 1, .n_threads = 8};
  limits.max_partial_rows = partial_rows_needed(limits, 1, 32768);
  AttentionSchedule schedule;
  const AttentionSequence sequence{0, 1, 32767, nullptr};
  make_schedule(schedule, {&sequence, 1}, {}, limits);
  EXPECT_GE(schedule.tasks.size(), 16u);
  EXPECT_EQ(schedule.merges.size(), 1u);
  const auto size = [](const AttentionTask& t) { return t.run_end - t.run_begin; };
  for (const AttentionTask& task : schedule.tasks) EXPECT_LE(size(task), 4);
}

TEST(AttentionSchedule, ManyEqualSequencesAreNotSplit) {
  ScheduleLimits limits{.group = 4, .n_kv_heads = 8, .n_threads = 2};
  limits.max_partial_rows = partial_rows_needed(limits, 16, 8192);
  std::vector<AttentionSequence> sequences;
  for (int64_t i = 0; i < 16; ++i) sequences.push_back({i, 1, 8000, nullptr});
  AttentionSchedule schedule;
  make_schedule(schedule, sequences, {}, limits);
  EXPECT_EQ(schedule.tasks.size(), 16u * 8u);
  EXPECT_TRUE(schedule.merges.empty());
}

TEST(AttentionSchedule, PrefillStartsWithTheLongestTiles) {
  ScheduleLimits limits{.group = 1, .n_kv_heads = 1, .n_threads = 2};
  AttentionSchedule schedule;
  const AttentionSequence sequence{0, 2048, 0, nullptr};
  make_schedule(schedule, {&sequence, 1}, {}, limits);
  EXPECT_TRUE(std::is_sorted(schedule.tasks.begin(), schedule.tasks.end(),
                             [](const AttentionTask& a, const AttentionTask& b) { return a.row > b.row; }));
}

}  // namespace
}  // namespace minillm::cpu
