// page_pool_test.cpp - invariants of the pool of pages under random use.
#include "kv/page_pool.h"

#include <gtest/gtest.h>

#include <map>

#include "minillm/error.h"
#include "support/random.h"

namespace minillm {
namespace {

TEST(PagePool, GivesTheLowestFreePage) {
  PagePool pool(4);
  EXPECT_EQ(pool.take(), 0);
  EXPECT_EQ(pool.take(), 1);
  EXPECT_EQ(pool.take(), 2);
  pool.release(0);
  pool.release(1);
  EXPECT_EQ(pool.high_water(), 3);
  EXPECT_EQ(pool.take(), 0);
  pool.release(2);
  EXPECT_EQ(pool.high_water(), 1);  // Page 1 was free already: both fall below the water.
  EXPECT_EQ(pool.take(), 1);
  EXPECT_EQ(pool.take(), 2);
}

TEST(PagePool, RefusesTheNextPageWhenFullAndNamesTheLimit) {
  PagePool pool(2);
  pool.take();
  pool.take();
  try {
    pool.take();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCapacity);
    EXPECT_NE(std::string(error.what()).find("2 pages"), std::string::npos) << error.what();
  }
  EXPECT_EQ(pool.n_used(), 2);
  pool.raise_limit(3);
  EXPECT_EQ(pool.take(), 2);
}

TEST(PagePool, FreePagesCannotBeSharedOrReleased) {
  PagePool pool(2);
  for (int32_t page : {-1, 0, 5}) {
    EXPECT_THROW(pool.share(page), Error) << page;
    EXPECT_THROW(pool.release(page), Error) << page;
    EXPECT_EQ(pool.owners(page), 0);
  }
}

TEST(PagePool, InvariantsHoldOver20000RandomOperations) {
  constexpr int64_t kMax = 37;
  PagePool pool(kMax);
  std::map<int32_t, int64_t> owners;  // The plain model: a page is there if somebody owns it.
  test::Random random(1);
  for (int step = 0; step < 20'000; ++step) {
    const bool growing = step / 500 % 2 == 0;
    const int64_t choice = random.below(10);
    if (choice < (growing ? 6 : 2)) {
      if (static_cast<int64_t>(owners.size()) == kMax) {
        EXPECT_THROW(pool.take(), Error);
      } else {
        int32_t lowest = 0;
        while (owners.contains(lowest)) ++lowest;
        ASSERT_EQ(pool.take(), lowest) << "step " << step;
        owners[lowest] = 1;
      }
    } else if (!owners.empty()) {
      const auto page = std::next(owners.begin(), random.below(static_cast<int64_t>(owners.size())));
      if (choice == 9) {
        pool.share(page->first);
        ++page->second;
      } else {
        pool.release(page->first);
        if (--page->second == 0) owners.erase(page);
      }
    }
    for (int32_t page = 0; page < kMax; ++page)
      ASSERT_EQ(pool.owners(page), owners.contains(page) ? owners[page] : 0) << "step " << step << ", page " << page;
    ASSERT_EQ(pool.n_used(), static_cast<int64_t>(owners.size()));
    ASSERT_EQ(pool.n_free() + pool.n_used(), kMax);
    ASSERT_EQ(pool.high_water(), owners.empty() ? 0 : owners.rbegin()->first + 1);
  }
}

}  // namespace
}  // namespace minillm
