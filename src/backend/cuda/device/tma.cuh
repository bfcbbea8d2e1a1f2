// tma.cuh - the bulk tensor copy engine: boxes of a tensor to and from shared memory, 128-byte swizzled.
// A box is 64 columns (128 bytes of 16-bit elements) by n rows. In shared memory row r's 16-byte chunk c stands at chunk
// c ^ (r % 8) of the row, so that eight rows of one column touch all banks. Rows outside the tensor read as zero and are not written.
// Source: PTX ISA 8.x, "cp.async.bulk.tensor"; CUDA driver API, cuTensorMapEncodeTiled.
#pragma once

#include <cuda.h>

#include "backend/cuda/device/barrier.cuh"

namespace minillm::cuda {

constexpr int kBoxColumns = 64;  ///< 16-bit elements in 128 bytes, the widest swizzle.

__device__ __forceinline__ void prefetch_map(const CUtensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

/// Copies the box at (column, head, row, batch) to `to`; its bytes count on `barrier`.
__device__ __forceinline__ void load_box(const CUtensorMap* map, void* to, Barrier& barrier, int column, int head, int row, int batch) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(
                   shared_address(to)),
               "l"(map), "r"(shared_address(&barrier.word)), "r"(column), "r"(head), "r"(row), "r"(batch)
               : "memory");
}

/// The same for memory that is read once: it is the first to leave the L2 cache.
__device__ __forceinline__ void load_box_once(const CUtensorMap* map, void* to, Barrier& barrier, int column, int head, int row,
                                              int batch) {
  constexpr uint64_t kEvictFirst = 0x12F0000000000000;  // As createpolicy.fractional.L2::evict_first encodes it.
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, %4, %5, %6}], [%2], "
      "%7;" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(&barrier.word)), "r"(column), "r"(head), "r"(row), "r"(batch), "l"(kEvictFirst)
      : "memory");
}

/// Copies the box from shared memory; part of the calling thread's current group of stores.
__device__ __forceinline__ void store_box(const CUtensorMap* map, const void* from, int column, int head, int row, int batch) {
  asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(map),
               "r"(shared_address(from)), "r"(column), "r"(head), "r"(row), "r"(batch)
               : "memory");
}
__device__ __forceinline__ void commit_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/// Waits until the committed stores have read their shared memory.
__device__ __forceinline__ void wait_stores_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }

}  // namespace minillm::cuda
