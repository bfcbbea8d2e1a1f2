// paged_cache.cpp - block tables over a pool of pages, copied on write.
// Each change first takes what it needs, then alters rows with steps that cannot fail: an exception leaves all rows unchanged.
#include "kv/paged_cache.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"

namespace minillm {

PagedCache::PagedCache(std::shared_ptr<Backend> backend, const KvShape& shape, int64_t n_rows, bool preallocate, int64_t max_row_tokens)
    : backend_(std::move(backend)),
      storage_(backend_->make_kv_storage(shape)),
      pool_(shape.max_pages),
      preallocated_(preallocate),
      max_row_tokens_(max_row_tokens > 0 ? max_row_tokens : shape.max_pages * shape.page_tokens) {
  if (n_rows < 0) throw Error(ErrorCode::kInvalidArgument, "kv cache: ", n_rows, " rows");
  rows_.resize(static_cast<size_t>(n_rows));
  if (!preallocated_) return;
  storage_->commit(shape.max_pages);
  committed_ = shape.max_pages;
}

PagedCache::~PagedCache() = default;

PagedCache::Row& PagedCache::at(int64_t row) { return const_cast<Row&>(std::as_const(*this).at(row)); }

const PagedCache::Row& PagedCache::at(int64_t row) const {
  if (row < 0 || row >= n_rows()) throw Error(ErrorCode::kInvalidArgument, "kv cache: row ", row, " of ", n_rows());
  return rows_[static_cast<size_t>(row)];
}

int64_t PagedCache::length(int64_t row) const { return at(row).length; }

std::span<const int32_t> PagedCache::pages(int64_t row) const { return at(row).pages; }

void PagedCache::make_writable(int64_t row, int64_t first, int64_t n_tokens) {
  Row& r = at(row);
  MINILLM_CHECK(first >= 0 && first <= r.length, "slots from ", first, " of a row of ", r.length);
  if (n_tokens > max_row_tokens_)
    throw Error(ErrorCode::kCapacity, "kv cache: row ", row, " would hold ", n_tokens, " tokens: at most ", max_row_tokens_);
  const int64_t page_tokens = storage_->shape().page_tokens;
  const size_t n_pages = static_cast<size_t>(ceil_div(std::max<int64_t>(n_tokens, 0), page_tokens));

  std::vector<size_t> places;  // In the block table: pages that are missing, or shared with another row.
  for (size_t i = static_cast<size_t>(first / page_tokens); i < n_pages; ++i)
    if (i >= r.pages.size() || pool_.owners(r.pages[i]) > 1) places.push_back(i);
  if (places.empty()) return;

  r.pages.reserve(n_pages);
  std::vector<int32_t> taken;
  taken.reserve(places.size());
  try {
    while (taken.size() < places.size()) taken.push_back(pool_.take());
    if (pool_.high_water() > committed_) {
      storage_->commit(pool_.high_water());
      committed_ = pool_.high_water();
    }
  } catch (...) {
    release(taken);
    throw;
  }
  for (size_t i = 0; i < places.size(); ++i) {
    if (places[i] == r.pages.size()) {
      r.pages.push_back(taken[i]);
      continue;
    }
    int32_t& page = r.pages[places[i]];
    storage_->copy_page(page, taken[i]);
    pool_.release(page);
    page = taken[i];
  }
}

void PagedCache::advance(int64_t row, int64_t n_tokens) {
  Row& r = at(row);
  const int64_t reserved = static_cast<int64_t>(r.pages.size()) * storage_->shape().page_tokens;
  MINILLM_CHECK(n_tokens >= 0 && n_tokens <= reserved - r.length, "row ", row, " of ", r.length, " tokens, ", reserved,
                " reserved: advance by ", n_tokens);
  r.length += n_tokens;
}

void PagedCache::truncate(int64_t row, int64_t n_tokens) {
  Row& r = at(row);
  if (n_tokens < 0) throw Error(ErrorCode::kInvalidArgument, "kv cache: truncate row ", row, " to ", n_tokens, " tokens");
  r.length = std::min(r.length, n_tokens);
  const size_t kept = static_cast<size_t>(ceil_div(r.length, storage_->shape().page_tokens));
  if (kept >= r.pages.size()) return;
  release(std::span(r.pages).subspan(kept));
  r.pages.resize(kept);
  shrink();
}

void PagedCache::fork(int64_t from, int64_t to) {
  const Row& source = at(from);
  Row& target = at(to);
  if (from == to) return;
  const size_t n_shared = static_cast<size_t>(ceil_div(source.length, storage_->shape().page_tokens));  // Not what is only reserved.
  std::vector<int32_t> pages(source.pages.begin(), source.pages.begin() + static_cast<ptrdiff_t>(n_shared));
  for (int32_t page : pages) pool_.share(page);
  release(target.pages);
  target = {std::move(pages), source.length};
  shrink();
}

void PagedCache::reset() {
  for (Row& row : rows_) {
    release(row.pages);
    row = {};
  }
  shrink();
}

void PagedCache::resize_rows(int64_t n_rows) {
  if (n_rows < 0) throw Error(ErrorCode::kInvalidArgument, "kv cache: ", n_rows, " rows");
  const size_t wanted = static_cast<size_t>(n_rows);
  for (size_t i = wanted; i < rows_.size(); ++i) release(rows_[i].pages);
  rows_.resize(wanted);
  shrink();
}

void PagedCache::reorder(std::span<const int64_t> source_rows) {
  std::vector<Row> rows;
  rows.reserve(source_rows.size());
  for (int64_t source : source_rows) {
    const Row& row = at(source);
    const auto n_shared = static_cast<ptrdiff_t>(ceil_div(row.length, storage_->shape().page_tokens));
    rows.push_back({{row.pages.begin(), row.pages.begin() + n_shared}, row.length});
  }
  for (const Row& row : rows)
    for (int32_t page : row.pages) pool_.share(page);
  for (const Row& row : rows_) release(row.pages);
  rows_ = std::move(rows);
  shrink();
}

void PagedCache::grow_pool(int64_t max_pages) {
  if (max_pages <= pool_.max_pages()) return;
  KvShape shape = storage_->shape();
  shape.max_pages = max_pages;
  std::unique_ptr<KvStorage> larger = backend_->make_kv_storage(shape);
  const int64_t n_committed = preallocated_ ? max_pages : pool_.high_water();
  larger->commit(n_committed);
  // Through float32, which holds each storage type exactly.
  std::vector<float> k(static_cast<size_t>(shape.page_tokens * shape.n_kv_heads * shape.head_dim)), v(k.size());
  const TensorView keys(k.data(), Dtype::kF32, {shape.page_tokens, shape.n_kv_heads, shape.head_dim});
  const TensorView values(v.data(), Dtype::kF32, {shape.page_tokens, shape.n_kv_heads, shape.head_dim});
  for (int32_t page = 0; page < pool_.high_water(); ++page)
    for (int64_t layer = 0; layer < shape.n_layers && pool_.owners(page) > 0; ++layer) {
      storage_->read(layer, page, 0, keys, values);
      larger->write(layer, page, 0, keys, values);
    }
  storage_ = std::move(larger);
  committed_ = n_committed;
  pool_.raise_limit(max_pages);
}

void PagedCache::release(std::span<const int32_t> pages) {
  for (int32_t page : pages) pool_.release(page);
}

void PagedCache::shrink() {
  if (preallocated_ || pool_.high_water() >= committed_) return;
  storage_->commit(pool_.high_water());
  committed_ = pool_.high_water();
}

}  // namespace minillm
