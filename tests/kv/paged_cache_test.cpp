// paged_cache_test.cpp - rows in shared pages behave as rows of their own; an exception leaves everything unchanged.
#include "kv/paged_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "support/random.h"

namespace minillm {
namespace {

constexpr int64_t kPage = 16;
constexpr KvShape kShape{.n_layers = 2, .n_kv_heads = 2, .head_dim = 3, .page_tokens = kPage, .max_pages = 24, .dtype = Dtype::kF32};

PagedCache make_cache(int64_t n_rows, bool preallocate = false, int64_t max_row_tokens = 0) {
  return PagedCache(make_reference_backend(), kShape, n_rows, preallocate, max_row_tokens);
}

/// What token `id` holds in `layer`: every element tells where it belongs.
std::vector<float> content(float id, int64_t layer, bool values) {
  std::vector<float> x;
  for (int64_t i = 0; i < kShape.n_kv_heads * kShape.head_dim; ++i)
    x.push_back(id * 32 + static_cast<float>(layer * 16 + (values ? 8 : 0) + i));
  return x;
}

void append(PagedCache& cache, int64_t row, const std::vector<float>& ids) {
  const int64_t length = cache.length(row), n = static_cast<int64_t>(ids.size());
  cache.reserve(row, length + n);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t layer = 0; layer < kShape.n_layers; ++layer) {
      std::vector<float> k = content(ids[static_cast<size_t>(i)], layer, false), v = content(ids[static_cast<size_t>(i)], layer, true);
      const int64_t slot = length + i;
      cache.storage().write(layer, cache.pages(row)[static_cast<size_t>(slot / kPage)], slot % kPage,
                            TensorView(k.data(), Dtype::kF32, {1, kShape.n_kv_heads, kShape.head_dim}),
                            TensorView(v.data(), Dtype::kF32, {1, kShape.n_kv_heads, kShape.head_dim}));
    }
  cache.advance(row, n);
}

void expect_row(const PagedCache& cache, int64_t row, const std::vector<float>& ids) {
  ASSERT_EQ(cache.length(row), static_cast<int64_t>(ids.size())) << "row " << row;
  std::vector<float> k(static_cast<size_t>(kShape.n_kv_heads * kShape.head_dim)), v(k.size());
  for (int64_t s = 0; s < cache.length(row); ++s)
    for (int64_t layer = 0; layer < kShape.n_layers; ++layer) {
      cache.storage().read(layer, cache.pages(row)[static_cast<size_t>(s / kPage)], s % kPage,
                           {k.data(), Dtype::kF32, {1, kShape.n_kv_heads, kShape.head_dim}},
                           {v.data(), Dtype::kF32, {1, kShape.n_kv_heads, kShape.head_dim}});
      ASSERT_EQ(k, content(ids[static_cast<size_t>(s)], layer, false)) << "row " << row << ", slot " << s << ", layer " << layer;
      ASSERT_EQ(v, content(ids[static_cast<size_t>(s)], layer, true)) << "row " << row << ", slot " << s << ", layer " << layer;
    }
}

/// Owners add up to the entries of the block tables; no row holds a page twice; memory is what the pages in use need.
void expect_consistent(const PagedCache& cache, bool preallocated = false) {
  std::map<int32_t, int64_t> owners;
  for (int64_t row = 0; row < cache.n_rows(); ++row) {
    std::vector<int32_t> pages(cache.pages(row).begin(), cache.pages(row).end());
    for (int32_t page : pages) ++owners[page];
    std::ranges::sort(pages);
    ASSERT_TRUE(std::ranges::adjacent_find(pages) == pages.end()) << "row " << row << " holds a page twice";
  }
  for (const auto& [page, n] : owners) ASSERT_EQ(cache.pool().owners(page), n) << "page " << page;
  ASSERT_EQ(cache.pool().n_used(), static_cast<int64_t>(owners.size()));
  const int64_t n_committed = preallocated ? cache.pool().max_pages() : cache.pool().high_water();
  ASSERT_EQ(cache.storage().bytes(), n_committed * cache.storage().shape().page_bytes());
}

std::vector<float> ids_from(float first, int64_t n) {
  std::vector<float> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(first + static_cast<float>(i));
  return ids;
}

TEST(PagedCache, ForkSharesPagesUntilEitherWrites) {
  PagedCache cache = make_cache(2);
  std::vector<float> a = ids_from(1, 20), b = a;
  append(cache, 0, a);
  cache.fork(0, 1);
  EXPECT_EQ(cache.pool().n_used(), 2);
  append(cache, 1, {500});  // Copies the shared half-full page.
  b.push_back(500);
  EXPECT_EQ(cache.pool().n_used(), 3);
  append(cache, 0, {600});  // It is row 0's own again: no copy.
  a.push_back(600);
  EXPECT_EQ(cache.pool().n_used(), 3);
  expect_row(cache, 0, a);
  expect_row(cache, 1, b);
  cache.fork(1, 1);
  expect_row(cache, 1, b);
  expect_consistent(cache);
}

TEST(PagedCache, ForkOntoAFullPageNeedsNoCopy) {
  PagedCache cache = make_cache(2);
  append(cache, 0, ids_from(1, 2 * kPage));
  cache.fork(0, 1);
  append(cache, 1, {9});
  EXPECT_EQ(cache.pool().n_used(), 3);
  expect_consistent(cache);
}

TEST(PagedCache, ForkDoesNotShareWhatIsOnlyReserved) {
  PagedCache cache = make_cache(2);
  append(cache, 0, ids_from(1, 3));
  cache.reserve(0, 5 * kPage);
  cache.fork(0, 1);
  EXPECT_EQ(cache.pages(1).size(), 1u);
  expect_consistent(cache);
}

TEST(PagedCache, TruncatedRowsGiveBackPagesAndMemory) {
  PagedCache cache = make_cache(1);
  const std::vector<float> ids = ids_from(1, 50);
  append(cache, 0, ids);
  EXPECT_EQ(cache.storage().bytes(), 4 * kShape.page_bytes());
  cache.truncate(0, 17);
  EXPECT_EQ(cache.storage().bytes(), 2 * kShape.page_bytes());
  expect_row(cache, 0, {ids.begin(), ids.begin() + 17});
  cache.reserve(0, 100);
  cache.truncate(0, 40);  // No tokens to lose; the reserved pages go.
  EXPECT_EQ(cache.length(0), 17);
  EXPECT_EQ(cache.storage().bytes(), 2 * kShape.page_bytes());
  cache.reset();
  EXPECT_EQ(cache.storage().bytes(), 0);
  EXPECT_THROW(cache.truncate(0, -1), Error);
}

TEST(PagedCache, PreallocatedMemoryIsThereAtOnceAndStays) {
  PagedCache cache = make_cache(2, true);
  EXPECT_EQ(cache.storage().bytes(), kShape.max_pages * kShape.page_bytes());
  append(cache, 0, ids_from(1, 40));
  cache.truncate(0, 1);
  cache.reset();
  EXPECT_EQ(cache.storage().bytes(), kShape.max_pages * kShape.page_bytes());
}

TEST(PagedCache, RefusedReservationChangesNothing) {
  PagedCache cache = make_cache(3, false, 23 * kPage);
  const std::vector<float> a = ids_from(1, 10 * kPage), b = ids_from(1000, 10 * kPage + 1);
  append(cache, 0, a);
  append(cache, 1, b);
  const auto expect_unchanged = [&] {
    expect_row(cache, 0, a);
    expect_row(cache, 1, b);
    EXPECT_EQ(cache.pool().n_used(), 21);
    expect_consistent(cache);
  };
  const auto expect_capacity_error = [&](int64_t row, int64_t n_tokens) {
    try {
      cache.reserve(row, n_tokens);
      ADD_FAILURE() << "row " << row << " to " << n_tokens << ": no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCapacity) << error.what();
    }
    expect_unchanged();
  };
  expect_capacity_error(2, 4 * kPage);       // Three pages are free.
  expect_capacity_error(0, 23 * kPage);      // Within the row's limit, not the pool's.
  expect_capacity_error(0, 23 * kPage + 1);  // Past the row's limit.
  expect_capacity_error(0, INT64_MAX);       // No overflow on the way.
  EXPECT_THROW(cache.advance(0, 1), Error);  // Not reserved.
  EXPECT_THROW(cache.advance(0, -1), Error);
  EXPECT_THROW(cache.reserve(3, 1), Error);
  EXPECT_THROW(cache.length(-1), Error);
  EXPECT_THROW(cache.fork(0, 3), Error);
  EXPECT_THROW(cache.resize_rows(-1), Error);
  EXPECT_THROW(cache.reorder(std::vector<int64_t>{0, 3}), Error);
  expect_unchanged();
  cache.reserve(2, 3 * kPage);
}

TEST(PagedCache, MakesSharedSlotsInTheMiddleWritable) {
  PagedCache cache = make_cache(2);
  append(cache, 0, ids_from(1, 3 * kPage));
  cache.fork(0, 1);
  cache.make_writable(1, kPage, 2 * kPage);
  EXPECT_EQ(cache.pages(0)[0], cache.pages(1)[0]);
  EXPECT_NE(cache.pages(0)[1], cache.pages(1)[1]);
  EXPECT_EQ(cache.pages(0)[2], cache.pages(1)[2]);
  expect_row(cache, 1, ids_from(1, 3 * kPage));
  expect_consistent(cache);
}

TEST(PagedCache, RandomOperationsMatchRowsOfTheirOwn) {
  for (const bool preallocate : {false, true}) {
    PagedCache cache = make_cache(3, preallocate);
    std::vector<std::vector<float>> rows(3);  // The plain model: every row owns its tokens.
    test::Random random(preallocate ? 2 : 3);
    float next_id = 1;
    for (int step = 0; step < 3000; ++step) {
      SCOPED_TRACE(testing::Message() << "step " << step);
      const auto row = static_cast<size_t>(random.below(static_cast<int64_t>(rows.size())));
      const int64_t length = static_cast<int64_t>(rows[row].size());
      switch (random.below(8)) {
        case 0:
        case 1:
        case 2: {
          const std::vector<float> ids = ids_from(next_id, random.below(2) == 0 ? 1 : random.below(40));
          try {
            append(cache, static_cast<int64_t>(row), ids);
            rows[row].insert(rows[row].end(), ids.begin(), ids.end());
            next_id = next_id > 10000 ? 1 : next_id + static_cast<float>(ids.size());
          } catch (const Error& error) {
            ASSERT_EQ(error.code(), ErrorCode::kCapacity);
          }
          break;
        }
        case 3: {
          const int64_t n = random.below(length + 10);
          cache.truncate(static_cast<int64_t>(row), n);
          rows[row].resize(static_cast<size_t>(std::min(n, length)));
          break;
        }
        case 4: {
          const int64_t to = random.below(static_cast<int64_t>(rows.size()));
          cache.fork(static_cast<int64_t>(row), to);
          rows[static_cast<size_t>(to)] = std::vector(rows[row]);
          break;
        }
        case 5: {
          std::vector<int64_t> sources(static_cast<size_t>(1 + random.below(6)));
          for (int64_t& source : sources) source = random.below(static_cast<int64_t>(rows.size()));
          cache.reorder(sources);
          std::vector<std::vector<float>> reordered;
          for (int64_t source : sources) reordered.push_back(rows[static_cast<size_t>(source)]);
          rows = std::move(reordered);
          break;
        }
        case 6: {
          const int64_t n = 1 + random.below(6);
          cache.resize_rows(n);
          rows.resize(static_cast<size_t>(n));
          break;
        }
        default:
          if (random.below(20) == 0) {
            cache.reset();
            for (auto& r : rows) r.clear();
          } else if (random.below(100) == 0) {
            cache.grow_pool(cache.pool().max_pages() + 1);
          }
      }
      ASSERT_EQ(cache.n_rows(), static_cast<int64_t>(rows.size()));
      expect_consistent(cache, preallocate);
      if (step % 7 == 0)
        for (size_t r = 0; r < rows.size(); ++r) expect_row(cache, static_cast<int64_t>(r), rows[r]);
      if (HasFatalFailure()) return;
    }
  }
}

}  // namespace
}  // namespace minillm
