// schedule.cuh - which query tile a block computes next.
// Order: heads in groups whose K and V fit the L2 cache together; in a group, the longest rows first (causal tiles grow with
// their row), heads innermost so that blocks at work at the same time read the same keys. A ticket counter hands tiles out, so
// a block that drew short tiles draws more (longest-processing-time first, Graham 1969).
#pragma once

#include <cstdint>

namespace minillm::cuda::sm90 {

struct TileSchedule {
  int n_row_tiles;     ///< Query tiles a head.
  int n_heads;         ///< Query heads of one batch entry.
  int n_tiles;         ///< n_row_tiles * n_heads * batch
  int heads_in_group;  ///< Heads (over the batch) that share the L2 cache.
  bool longest_first;  ///< Causal.

  struct Tile {
    int row_tile, head, batch;
  };
  __device__ __forceinline__ Tile tile(int index) const {
    const int n_all_heads = n_tiles / n_row_tiles;
    const int group = index / (heads_in_group * n_row_tiles);
    const int first_head = group * heads_in_group;
    const int n_here = min(heads_in_group, n_all_heads - first_head);
    const int rest = index - first_head * n_row_tiles;
    const int row = rest / n_here, head = first_head + rest % n_here;
    return {longest_first ? n_row_tiles - 1 - row : row, head % n_heads, head / n_heads};
  }
};

}  // namespace minillm::cuda::sm90
