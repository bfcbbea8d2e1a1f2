// kv_tile.cuh - tiles of 64 keys and values on their way from pages to shared memory.
// Layout in shared memory: 64 rows of keys, then 64 of values, each kDim elements as stored and 16 bytes of padding, which spreads the
// eight rows that one matrix load reads over all banks.
#pragma once

#include <utility>

#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/operations.h"

namespace minillm::cuda {

constexpr int kTileKeys = 64, kTileThreads = 128;
template <typename T, int kDim>
constexpr int kKeyBytes = kDim* static_cast<int>(sizeof(T)) + 16;

/// Calls f<kDim>() for the head width, where the matrix kernels have one for it; false elsewhere.
template <typename F>
bool visit_width(int64_t head_dim, F&& f) {
  return [&]<int... kDims>(std::integer_sequence<int, kDims...>) {
    return ((head_dim == kDims && (f.template operator()<kDims>(), true)) || ...);
  }
  (std::integer_sequence<int, 64, 80, 96, 128, 192, 256>());
}
inline bool is_tile_width(int64_t head_dim) {
  return visit_width(head_dim, []<int>() {});
}

/// Slots [first, last) that are seen, and the slot of the row's own token.
struct Visible {
  int first, last, slot;
};

/// Starts the copies of slots [slot, slot + 64), zeros for those not visible. `slot` is a multiple of 16: 16 keys lie in one page.
template <typename T, int kDim>
__device__ __forceinline__ void copy_tile(uint32_t to, const KeyLayout& cache, const int32_t* table, int g, int slot, const Visible& v) {
  constexpr int kElements = 16 / static_cast<int>(sizeof(T)), kChunks = kDim / kElements, kCopies = kTileKeys * kChunks;
  int64_t base[kTileKeys / 16];
#pragma unroll
  for (int i = 0; i < kTileKeys / 16; ++i) {
    const int s = min(slot + 16 * i, (v.last - 1) / 16 * 16);  // Past the end nothing is read; the table must not be, either.
    base[i] = table[s / cache.page_tokens] * cache.page_stride + s % cache.page_tokens * cache.token_stride + g * cache.head_stride;
  }
#pragma unroll
  for (int u = 0; u < (kCopies + kTileThreads - 1) / kTileThreads; ++u) {
    const int i = threadIdx.x + u * kTileThreads, row = i / kChunks, chunk = i % kChunks;
    if (kCopies % kTileThreads != 0 && i >= kCopies) break;
    const int64_t at =
        (row < 32 ? (row < 16 ? base[0] : base[1]) : (row < 48 ? base[2] : base[3])) + row % 16 * cache.token_stride + chunk * kElements;
    const bool wanted = slot + row >= v.first && slot + row < v.last;
    copy16_async(to + row * kKeyBytes<T, kDim> + chunk * 16, static_cast<const T*>(cache.keys) + at, wanted);
    copy16_async(to + (kTileKeys + row) * kKeyBytes<T, kDim> + chunk * 16, static_cast<const T*>(cache.values) + at, wanted);
  }
}

}  // namespace minillm::cuda
