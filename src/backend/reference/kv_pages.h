// kv_pages.h - pages of the oracle: plain rows, nothing rearranged.
// Layout:  a page is [K|V][layer][slot][head][D] in the cache's dtype. Every page is its own allocation, so it never moves, and
//          a sanitizer sees a touch outside it.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "backend/kv_storage.h"

namespace minillm::reference {

class KvPages : public KvStorage {
 public:
  explicit KvPages(const KvShape& shape);
  void commit(int64_t n_pages) override;
  void copy_page(int32_t from, int32_t to) override;
  void write(int64_t layer, int32_t page, int64_t slot, ConstTensorView k, ConstTensorView v) override;
  void read(int64_t layer, int32_t page, int64_t slot, TensorView k, TensorView v) const override;
  int64_t bytes() const noexcept override { return static_cast<int64_t>(pages_.size()) * shape().page_bytes(); }

  enum class Part : int64_t { kKeys = 0, kValues = 1 };
  /// One head of one token: D elements, converted from and to float32.
  void store(Part part, int64_t layer, int32_t page, int64_t slot, int64_t head, const float* values);
  void load(Part part, int64_t layer, int32_t page, int64_t slot, int64_t head, float* values) const;

 private:
  std::byte* at(Part part, int64_t layer, int32_t page, int64_t slot, int64_t head) const;

  std::vector<std::unique_ptr<std::byte[]>> pages_;
};

}  // namespace minillm::reference
