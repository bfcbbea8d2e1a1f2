// kv_storage.h - pages of keys and values in host memory.
// Layout:  [page][layer][kv head][K | V]. K: panels of 16 tokens, transposed: [page_tokens / 16][D][16], so that q . k runs with
//          keys in the lanes. V: [page_tokens][D rounded up to 16]. Everything is 64-byte aligned.
// Memory:  one mapping of max_pages, without access rights until commit(); its address never changes. Pages that are given up
//          go back to the system and lose their rights, so that a late reader is found at once.
// Threads: different slots may be written at once; commit() alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cpu/attention_kernels.h"
#include "backend/kv_storage.h"

namespace minillm::cpu {

class CpuKvStorage final : public KvStorage {
 public:
  /// Throws Error{kInvalidArgument} for a shape it cannot hold, Error{kOutOfMemory} if the address range is not to be had.
  CpuKvStorage(const KvShape& shape, const AttentionKernels& kernels);
  ~CpuKvStorage() override;
  CpuKvStorage(const CpuKvStorage&) = delete;
  CpuKvStorage& operator=(const CpuKvStorage&) = delete;

  void commit(int64_t n_pages) override;
  void copy_page(int32_t from, int32_t to) override;
  void write(int64_t layer, int32_t page, int64_t slot, ConstTensorView k, ConstTensorView v) override;
  void read(int64_t layer, int32_t page, int64_t slot, TensorView k, TensorView v) const override;
  int64_t bytes() const noexcept override { return n_pages_ * page_stride_; }

  KvElement element() const noexcept { return element_; }
  int64_t committed_pages() const noexcept { return n_pages_; }
  int64_t value_width() const noexcept { return value_width_; }  ///< Elements from one V row to the next.

  int64_t panels_per_page() const noexcept { return panels_per_page_; }
  /// Where the panels of `page` start; panel i holds tokens 16 i to 16 i + 15, and is `*_panel_bytes` further.
  const std::byte* keys_of(int64_t layer, int32_t page, int64_t head) const noexcept { return head_block(layer, page, head); }
  const std::byte* values_of(int64_t layer, int32_t page, int64_t head) const noexcept {
    return head_block(layer, page, head) + keys_bytes_;
  }
  int64_t key_panel_bytes() const noexcept { return panel_bytes_; }
  int64_t value_panel_bytes() const noexcept { return kKeyPanel * value_bytes_; }
  /// Stores one token of one head; k and v are float32 [D]. Touches nothing else.
  void store(int64_t layer, int32_t page, int64_t head, int64_t slot, const float* k, const float* v) noexcept;

 private:
  std::byte* head_block(int64_t layer, int32_t page, int64_t head) const noexcept {
    return base_ + page * page_stride_ + (layer * shape().n_kv_heads + head) * head_bytes_;
  }
  void check_place(int64_t layer, int32_t page, int64_t slot, int64_t n_tokens) const;

  const AttentionKernels& kernels_;
  KvElement element_;
  int64_t element_bytes_, value_width_;
  int64_t panel_bytes_, value_bytes_;  ///< One K panel; one V row.
  int64_t keys_bytes_, head_bytes_;    ///< K of one (layer, head) of a page; K and V of it.
  int64_t panels_per_page_, page_stride_, n_pages_ = 0;
  size_t mapped_bytes_;
  std::byte* base_ = nullptr;
};

/// Throws Error{kInvalidArgument} for anything but kCacheDtypes.
KvElement kv_element(Dtype dtype);

}  // namespace minillm::cpu
