// tile_products.h - products of many rows on tiles of bfloat16 (AMX): activations are rounded once, weights are unpacked to bfloat16 in the
// caches, sums are float32 over all of k.
// Numerics: a row's result depends on that row alone, but differs from that of Products' other paths by the rounding of activations and
//   weights to 8 bits: a relative 2^-9 of each product, at random.
// Memory: the rounded rows of the largest step, and 144 KiB a thread.
#pragma once

#include <cstdint>
#include <functional>

#include "backend/buffer.h"
#include "backend/cpu/beside.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/pack.h"
#include "base/tensor_view.h"
#include "base/thread_pool.h"

namespace minillm::cpu {

class TileProducts {
 public:
  /// Rows from which unpacking to tiles is paid for, measured: docs/SPEED.md, "Tiles of bfloat16".
  static constexpr int64_t kFewestRows = 24;

  /// Pool and kernels must outlive this object. Without tiles in `kernels` it takes nothing.
  TileProducts(ThreadPool& pool, const Kernels& kernels, std::function<Buffer(size_t)> allocate);

  bool exist() const noexcept { return kernels_.round_row != nullptr; }
  /// Whether products of `w` with this many rows are computed here.
  bool take(const CpuWeight& w, int64_t n_rows) const;
  /// What it takes for inputs [max_rows, max_k].
  static int64_t bytes(int64_t max_rows, int64_t max_k, int n_threads);
  /// Makes room for inputs [max_rows, max_k]; grows only.
  void reserve(int64_t max_rows, int64_t max_k);
  /// As Products::matmul. x is not written where `beside.before` makes its rows.
  void matmul(TensorView out, ConstTensorView x, const CpuWeight& w, const Beside& beside);
  /// The same for rows that are rounded already: those of room().
  void matmul(TensorView out, const RoundedRows& x, const CpuWeight& w, const Beside& beside);
  /// Room for rows that a product makes for the next one: `k` a multiple of 32. Good until the next call.
  RoundedRows room(int64_t n_rows, int64_t k);

 private:
  RoundedRows round(ConstTensorView x, const Beside& beside);
  RoundedRows reserved(Buffer& buffer, int64_t n_rows, int64_t k);

  ThreadPool& pool_;
  const Kernels& kernels_;
  std::function<Buffer(size_t)> allocate_;
  Buffer rows_, made_rows_, scratch_, row_;  ///< row_: a float row a thread.
};

}  // namespace minillm::cpu
