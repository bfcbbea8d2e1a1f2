// page_pool.cpp - counts of owners, and a heap of free pages so that the lowest is given first.
#include "kv/page_pool.h"

#include <algorithm>
#include <functional>

#include "base/check.h"

namespace minillm {

int32_t PagePool::take() {
  while (!free_.empty()) {
    std::ranges::pop_heap(free_, std::greater<>());
    const int32_t page = free_.back();
    free_.pop_back();
    if (static_cast<size_t>(page) >= owners_.size()) continue;  // The high water has fallen below it since it was released.
    owners_[static_cast<size_t>(page)] = 1;
    ++n_used_;
    return page;
  }
  if (high_water() >= max_pages_) throw Error(ErrorCode::kCapacity, "kv cache: all ", max_pages_, " pages are in use");
  if (free_.capacity() <= owners_.size()) free_.reserve(2 * owners_.size() + 16);  // So that release() never allocates.
  owners_.push_back(1);
  ++n_used_;
  return static_cast<int32_t>(owners_.size()) - 1;
}

void PagePool::share(int32_t page) {
  MINILLM_CHECK(owners(page) > 0, "page ", page, " is free");
  ++owners_[static_cast<size_t>(page)];
}

void PagePool::release(int32_t page) {
  MINILLM_CHECK(owners(page) > 0, "page ", page, " is free");
  if (--owners_[static_cast<size_t>(page)] > 0) return;
  --n_used_;
  if (static_cast<size_t>(page) + 1 < owners_.size()) {
    free_.push_back(page);
    std::ranges::push_heap(free_, std::greater<>());
  } else {
    while (!owners_.empty() && owners_.back() == 0) owners_.pop_back();  // What is above stays in free_; take() passes over it.
  }
}

int64_t PagePool::owners(int32_t page) const {
  return page >= 0 && static_cast<size_t>(page) < owners_.size() ? owners_[static_cast<size_t>(page)] : 0;
}

int64_t PagePool::n_free() const noexcept { return max_pages_ - n_used_; }
int64_t PagePool::n_used() const noexcept { return n_used_; }
int64_t PagePool::high_water() const noexcept { return static_cast<int64_t>(owners_.size()); }

}  // namespace minillm
