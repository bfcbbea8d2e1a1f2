// kv_pages.cpp - row-major pages of keys and values.
#include "backend/reference/kv_pages.h"

#include <cstring>
#include <new>

#include "base/bytes.h"
#include "base/check.h"
#include "base/dequantise.h"
#include "base/dtype.h"

namespace minillm::reference {

KvPages::KvPages(const KvShape& shape) : KvStorage(shape) {
  if (!is_cache_dtype(shape.dtype))
    throw Error(ErrorCode::kInvalidArgument, "kv storage: dtype ", name_of(shape.dtype), ": expected ", kCacheDtypes);
  if (shape.page_tokens < 16 || shape.page_tokens > 1024 || shape.page_tokens % 16 != 0)
    throw Error(ErrorCode::kInvalidArgument, "kv storage: pages of ", shape.page_tokens, " tokens: expected a multiple of 16 up to 1024");
  if (shape.n_layers < 1 || shape.n_kv_heads < 1 || shape.head_dim < 1 || shape.max_pages < 0)
    throw Error(ErrorCode::kInvalidArgument, "kv storage: ", shape.n_layers, " layers of ", shape.n_kv_heads, " heads of ", shape.head_dim,
                ", at most ", shape.max_pages, " pages");
}

void KvPages::commit(int64_t n_pages) {
  MINILLM_CHECK(n_pages >= 0 && n_pages <= shape().max_pages, "commit of ", n_pages, " pages of ", shape().max_pages);
  const size_t wanted = static_cast<size_t>(n_pages), before = pages_.size();
  const size_t page_bytes = static_cast<size_t>(shape().page_bytes());
  try {
    pages_.reserve(wanted);
    while (pages_.size() < wanted) {
      pages_.push_back(std::unique_ptr<std::byte[]>(new std::byte[page_bytes]));
      std::memset(pages_.back().get(), 0xFF, page_bytes);  // All ones is NaN in each of the four types.
    }
  } catch (const std::bad_alloc&) {
    pages_.resize(before);
    throw Error(ErrorCode::kOutOfMemory, "kv storage: no room for ", n_pages, " pages of ", readable_bytes(page_bytes));
  }
  pages_.resize(wanted);
}

void KvPages::copy_page(int32_t from, int32_t to) {
  std::memcpy(at(Part::kKeys, 0, to, 0, 0), at(Part::kKeys, 0, from, 0, 0), static_cast<size_t>(shape().page_bytes()));
}

std::byte* KvPages::at(Part part, int64_t layer, int32_t page, int64_t slot, int64_t head) const {
  const KvShape& s = shape();
  MINILLM_CHECK(page >= 0 && static_cast<size_t>(page) < pages_.size(), "page ", page, " of ", pages_.size(), " committed");
  MINILLM_CHECK(layer >= 0 && layer < s.n_layers && slot >= 0 && slot < s.page_tokens && head >= 0 && head < s.n_kv_heads, "layer ", layer,
                ", slot ", slot, ", head ", head, " outside the page");
  const int64_t row = ((static_cast<int64_t>(part) * s.n_layers + layer) * s.page_tokens + slot) * s.n_kv_heads + head;
  return pages_[static_cast<size_t>(page)].get() + static_cast<size_t>(row * s.head_dim) * block_bytes(s.dtype);
}

void KvPages::store(Part part, int64_t layer, int32_t page, int64_t slot, int64_t head, const float* values) {
  narrow_row(shape().dtype, at(part, layer, page, slot, head), values, shape().head_dim);
}

void KvPages::load(Part part, int64_t layer, int32_t page, int64_t slot, int64_t head, float* values) const {
  dequantise_row(shape().dtype, at(part, layer, page, slot, head), values, shape().head_dim);
}

void KvPages::write(int64_t layer, int32_t page, int64_t slot, ConstTensorView k, ConstTensorView v) {
  const int64_t n_heads = shape().n_kv_heads, dim = shape().head_dim;
  for (int64_t i = 0; i < k.dim(0); ++i)
    for (int64_t g = 0; g < n_heads; ++g) {
      store(Part::kKeys, layer, page, slot + i, g, k.f32() + (i * n_heads + g) * dim);
      store(Part::kValues, layer, page, slot + i, g, v.f32() + (i * n_heads + g) * dim);
    }
}

void KvPages::read(int64_t layer, int32_t page, int64_t slot, TensorView k, TensorView v) const {
  const int64_t n_heads = shape().n_kv_heads, dim = shape().head_dim;
  for (int64_t i = 0; i < k.dim(0); ++i)
    for (int64_t g = 0; g < n_heads; ++g) {
      load(Part::kKeys, layer, page, slot + i, g, k.f32() + (i * n_heads + g) * dim);
      load(Part::kValues, layer, page, slot + i, g, v.f32() + (i * n_heads + g) * dim);
    }
}

}  // namespace minillm::reference
