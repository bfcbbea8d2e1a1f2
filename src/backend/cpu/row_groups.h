// row_groups.h - which thread computes which rows of a long step. Where every loop cuts the rows alike, a thread finds in its own
// cache what it wrote there in the loop before, instead of fetching it from another core's.
// Cost: each group unpacks the weights for itself, which takes about as long as the products of two rows; so groups are long.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/bytes.h"
#include "base/thread_pool.h"

namespace minillm::cpu {

struct RowGroups {
  static constexpr int64_t kMinRows = 128;
  static constexpr int64_t kAlignment = 16;  ///< Rows: whole tiles of products and of attention.

  RowGroups(int64_t n_rows, int n_threads) : rows(n_rows) {
    const int64_t most = std::min<int64_t>(n_threads, ThreadPool::kMaxGroups);
    size = round_up(ceil_div(n_rows, std::clamp<int64_t>(n_rows / kMinRows, 1, most)), kAlignment);
    count = ceil_div(n_rows, size);
  }
  int64_t begin(int64_t group) const { return group * size; }
  int64_t end(int64_t group) const { return std::min(rows, (group + 1) * size); }

  int64_t rows;
  int64_t size;   ///< Rows a group; the last may have fewer.
  int64_t count;  ///< Groups.
};

/// Calls body(row, thread) for every row, in runs of `run` adjacent ones, each thread in its own group first.
template <typename F>
void for_each_row(ThreadPool& pool, int64_t n_rows, int64_t run, F&& body) {
  const RowGroups groups(n_rows, pool.n_threads());
  pool.for_each_in_groups(groups.count, ceil_div(std::min(n_rows, groups.size), run), [&](int64_t group, int64_t item, int thread) {
    const int64_t first = groups.begin(group) + item * run, end = std::min(groups.end(group), first + run);
    for (int64_t row = first; row < end; ++row) body(row, thread);
  });
}

}  // namespace minillm::cpu
