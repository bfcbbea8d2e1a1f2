// page_pool.h - which pages are free, and how many owners each has. Pages are shared by forks and prefixes, copied on write.
#pragma once

#include <cstdint>
#include <vector>

namespace minillm {

class PagePool {
 public:
  explicit PagePool(int64_t max_pages) : max_pages_(max_pages) {}

  /// A free page with one owner, the lowest-numbered one so that memory stays dense.
  /// Throws Error{kCapacity} naming the limit when all are taken.
  int32_t take();
  void share(int32_t page);    ///< One more owner.
  void release(int32_t page);  ///< One owner less; free at zero.
  int64_t owners(int32_t page) const;
  int64_t n_free() const noexcept;  ///< Pages that take() can still give.
  int64_t n_used() const noexcept;
  int64_t max_pages() const noexcept { return max_pages_; }
  void raise_limit(int64_t max_pages) noexcept { max_pages_ = max_pages > max_pages_ ? max_pages : max_pages_; }
  /// Pages [0, high_water()) hold everything in use: what must be committed.
  int64_t high_water() const noexcept;

 private:
  int64_t max_pages_;
  int64_t n_used_ = 0;
  std::vector<int32_t> owners_;  ///< [high water]; 0 is free. The last is never 0.
  std::vector<int32_t> free_;    ///< Min-heap of released pages; those not below the high water count for nothing.
};

}  // namespace minillm
