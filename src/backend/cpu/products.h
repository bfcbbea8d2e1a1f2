// products.h - out[t, n] = sum_k x[t, k] w[n, k] for packed weights: quantises the activations once, then hands panels to threads.
// Which path: up to three rows go through gemv, one after the other; a batch through gemm_packed, where the instruction set has it (both
//   read the weights as they are packed); more rows through gemm (weights unpacked to the L2 cache). All give the same bits. Where there
//   are tiles (tile_products.h), these take the products of many rows, and give the same but for rounding.
// Memory: quantised activations of the largest step, and 160 KiB a thread for unpacked weights.
#pragma once

#include <cstdint>
#include <functional>

#include "backend/buffer.h"
#include "backend/cpu/beside.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/row_groups.h"
#include "backend/cpu/tile_products.h"
#include "base/tensor_view.h"
#include "base/thread_pool.h"

namespace minillm::cpu {

/// Whether `w` is two tensors of as many rows.
bool is_pair(const CpuWeight& w) noexcept;

class Products {
 public:
  /// `allocate` gives 64-byte aligned memory and counts it; pool and kernels must outlive this object.
  Products(ThreadPool& pool, const Kernels& kernels, std::function<Buffer(size_t)> allocate);

  /// Makes room for inputs [max_rows, max_k]; grows only. A larger input grows it then.
  void reserve(int64_t max_rows, int64_t max_k);
  /// x [T, K], out [T, N], float32. Throws Error{kInvalidArgument} for a weight that was packed for lookups only.
  void matmul(TensorView out, ConstTensorView x, const CpuWeight& w, const Beside& beside = {});
  TileProducts& tiles() noexcept { return tiles_; }

 private:
  void reserve_quantised(int64_t max_rows, int64_t max_k);
  QuantisedRows activations(int64_t n_rows, const CpuWeight& w);
  /// Rows of float x [T, K], made by `beside.before`, and their integers where part of the weight is quantised.
  QuantisedRows prepare(ConstTensorView x, const CpuWeight& w, const Beside& beside);
  void multiply_few(float* out, const float* x, const QuantisedRows& quantised, int64_t n_rows, const CpuWeight& w, const Beside& beside);
  void multiply_rows(float* out, const float* x, const QuantisedRows& quantised, int64_t n_rows, const CpuWeight& w, const Beside& beside);
  /// Whether this many rows go through gemm_packed.
  bool stays_packed(const CpuWeight& w, int64_t n_rows) const;
  void multiply_packed(float* out, const QuantisedRows& quantised, int64_t n_rows, const CpuWeight& w, const Beside& beside);
  Unpacked unpacked(int thread) const;

  ThreadPool& pool_;
  const Kernels& kernels_;
  std::function<Buffer(size_t)> allocate_;
  Buffer activations_, unpacked_;
  TileProducts tiles_;
};

}  // namespace minillm::cpu
