// kv_storage.h - pages of keys and values on a device. Who owns which page is decided in kv/; here are only the bytes.
// Layout:  a page holds `page_tokens` tokens of every layer; inside, the layout is the backend's own.
// Memory:  the address range of all `max_pages` is reserved once and never moves; commit() decides how much is backed.
#pragma once

#include <cstdint>

#include "base/tensor_view.h"

namespace minillm {

struct KvShape {
  int64_t n_layers = 0;      ///< L
  int64_t n_kv_heads = 0;    ///< G
  int64_t head_dim = 0;      ///< D
  int64_t page_tokens = 64;  ///< Tokens a page: a multiple of 16 from 16 to 1024.
  int64_t max_pages = 0;
  Dtype dtype = Dtype::kF16;  ///< kF32, kF16, kBF16 or kF8 (values as they are: above 448 is 448).

  /// K and V of one page over all layers.
  int64_t page_bytes() const noexcept {
    return 2 * n_layers * n_kv_heads * head_dim * page_tokens * static_cast<int64_t>(block_bytes(dtype));
  }
};

class KvStorage {
 public:
  explicit KvStorage(const KvShape& shape);
  virtual ~KvStorage() = default;
  const KvShape& shape() const noexcept { return shape_; }
  uint64_t serial() const noexcept { return serial_; }  ///< Of this storage alone.

  /// Pages [0, n_pages) may be used afterwards; memory of those above goes back to the system.
  /// Contents of a page are unspecified (poison) until written. Throws Error{kOutOfMemory}, nothing changed then.
  virtual void commit(int64_t n_pages) = 0;
  /// Copies K and V of every layer of a page (copy-on-write).
  virtual void copy_page(int32_t from, int32_t to) = 0;
  /// Stores tokens at slots [slot, slot + n) of `page` in `layer`; k and v are host float32 [n, G, D].
  virtual void write(int64_t layer, int32_t page, int64_t slot, ConstTensorView k, ConstTensorView v) = 0;
  /// The inverse: host float32 [n, G, D].
  virtual void read(int64_t layer, int32_t page, int64_t slot, TensorView k, TensorView v) const = 0;
  /// Committed bytes.
  virtual int64_t bytes() const noexcept = 0;

 private:
  KvShape shape_;
  uint64_t serial_;
};

}  // namespace minillm
