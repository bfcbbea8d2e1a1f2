// paged_cache.h - rows of keys and values in shared pages: what the forward pass and the engine work with.
// A row is one sequence: a length and a block table. Rows are independent; pages come from one pool.
// KVCache (minillm/kv_cache.h) is this class plus the transformers interface.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "kv/page_pool.h"

namespace minillm {

class PagedCache {
 public:
  /// `max_pages` of `shape` bounds all rows together, `max_row_tokens` each one (0: only the pages do). With `preallocate`,
  /// everything is committed now.
  PagedCache(std::shared_ptr<Backend> backend, const KvShape& shape, int64_t n_rows, bool preallocate, int64_t max_row_tokens = 0);
  ~PagedCache();

  int64_t n_rows() const noexcept { return static_cast<int64_t>(rows_.size()); }
  int64_t length(int64_t row) const;  ///< Tokens held.
  /// Block table of `row`, valid until the next call that changes the row.
  std::span<const int32_t> pages(int64_t row) const;

  /// Makes slots [length, n_tokens) of `row` writable: takes pages, and copies a last page that is shared.
  /// Throws Error{kCapacity} or Error{kOutOfMemory}; the row is unchanged then.
  void reserve(int64_t row, int64_t n_tokens) { make_writable(row, length(row), n_tokens); }
  /// The same for slots [first, n_tokens), `first` at most the length: slots already held become the row's own.
  void make_writable(int64_t row, int64_t first, int64_t n_tokens);
  /// The `n_tokens` newest slots have been written. They must have been reserved.
  void advance(int64_t row, int64_t n_tokens);
  /// Keeps the first `n_tokens` (all of a shorter row); pages past them, reserved ones too, go back to the pool.
  void truncate(int64_t row, int64_t n_tokens);
  /// `to` becomes a copy of `from`, sharing its pages until either writes.
  void fork(int64_t from, int64_t to);
  void reset();                                        ///< All rows empty; memory goes back unless preallocated.
  void resize_rows(int64_t n_rows);                    ///< New rows are empty; removed ones are released.
  void reorder(std::span<const int64_t> source_rows);  ///< Row i becomes a fork of old row source_rows[i]; sets n_rows.
  /// Raises the bound on all pages together. Moves to a larger storage: both exist for a moment, block tables stay.
  void grow_pool(int64_t max_pages);

  KvStorage& storage() noexcept { return *storage_; }
  const KvStorage& storage() const noexcept { return *storage_; }
  const PagePool& pool() const noexcept { return pool_; }
  Backend& backend() noexcept { return *backend_; }

 private:
  struct Row {
    std::vector<int32_t> pages;
    int64_t length = 0;
  };
  Row& at(int64_t row);
  const Row& at(int64_t row) const;
  void release(std::span<const int32_t> pages);
  void shrink();  ///< Gives back committed memory above the pages in use.

  std::shared_ptr<Backend> backend_;
  std::unique_ptr<KvStorage> storage_;
  PagePool pool_;
  std::vector<Row> rows_;
  bool preallocated_;
  int64_t max_row_tokens_;
  int64_t committed_ = 0;  ///< Pages.
};

}  // namespace minillm
