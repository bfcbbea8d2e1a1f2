// decode_items.cuh - how decode attention cuts a step's rows into items - a row, a key head, a run of its keys - and shares them out.
// A row is cut by its own length and the model alone, so its result is the same in any batch. Which block computes an item is another
// matter: blocks get equal shares of all tiles, as neighbouring items, so that most rows and heads lie within one block.
#pragma once

#include <cuda.h>

#include "backend/cuda/device/kv_tile.cuh"
#include "backend/cuda/operations.h"

namespace minillm::cuda {

constexpr int kDecodeTile = 64, kStepKeys = 16;  ///< Keys of a tile, and those that one warp takes of it.
constexpr int kGroupRows = 16;                   ///< Most query heads of a key head.

struct DecodeArguments {
  CUtensorMap keys, values;  ///< (D, token of the page, head, page), boxes of 64 columns by `box_keys` tokens; from sm_90 on.
  float *out, *lse;
  const float* q;
  KeyLayout cache;
  DeviceStep step;
  AttentionScalars a;
  float* partial;              ///< [row][run][H][kDim + 2]
  unsigned int* n_done;        ///< [row][H]
  int target_runs, least_tiles;
  int box_keys;                ///< Keys that lie one behind the other in a page and a tile.
  int n_stages, n_sums;        ///< Of the ring of tiles; sets of sums in shared memory.
  AppendInputs append;         ///< With a q/k/v product: the queries come from it, and its keys and values go to the cache first.
};

struct Cut {
  int begin, n_tiles, tiles_a_run, n_runs;
  /// What a head's items weigh: their tiles, and for each as much again as one tile.
  __device__ __forceinline__ int weight() const { return n_tiles + n_runs; }
};
__device__ __forceinline__ Cut cut_of(const Visible& v, const DecodeArguments& p) {
  Cut c;
  c.begin = v.first / kDecodeTile * kDecodeTile;
  c.n_tiles = max(0, (v.last - c.begin + kDecodeTile - 1) / kDecodeTile);
  c.tiles_a_run = max(p.least_tiles, (c.n_tiles + p.target_runs - 1) / p.target_runs);
  c.n_runs = max(1, (c.n_tiles + c.tiles_a_run - 1) / c.tiles_a_run);
  return c;
}

/// Inclusive sums over up to 64 numbers in shared memory, two a lane; one warp calls it.
__device__ __forceinline__ void sum_up(int* x, int n) {
  const int lane = threadIdx.x % 32, a = 2 * lane < n ? x[2 * lane] : 0, b = 2 * lane + 1 < n ? x[2 * lane + 1] : 0;
  int sum = a + b;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int left = __shfl_up_sync(0xFFFFFFFFu, sum, distance);
    if (lane >= distance) sum += left;
  }
  if (2 * lane < n) x[2 * lane] = sum - b;
  if (2 * lane + 1 < n) x[2 * lane + 1] = sum;
}
static_assert(kFewTokens <= 64);

/// The step's rows, in shared memory: every warp asks for them at every item.
struct DecodeRows {
  int slot[kFewTokens], n_keys[kFewTokens], table_start[kFewTokens];
  int first_item[kFewTokens + 1], weight_before[kFewTokens + 1];

  __device__ __forceinline__ Visible visible(const AttentionScalars& a, int row) const {
    Visible v;
    v.slot = slot[row];
    v.first = a.window > 0 ? static_cast<int>(max(int64_t{0}, min(int64_t{n_keys[row]}, v.slot - a.window + 1))) : 0;
    v.last = a.causal ? max(v.first, min(n_keys[row], v.slot + 1)) : n_keys[row];
    return v;
  }

  /// The whole block calls it; ends with a barrier.
  __device__ __forceinline__ void load(const DecodeArguments& p) {
    const int i = threadIdx.x, n = static_cast<int>(p.step.n_rows);
    if (i < n) {
      slot[i] = p.step.slots[i];
      n_keys[i] = p.step.key_counts[i];
      table_start[i] = p.step.table_starts[i];
      const Cut cut = cut_of(visible(p.a, i), p);
      first_item[i + 1] = cut.n_runs * p.a.n_kv_heads;
      weight_before[i + 1] = cut.weight() * p.a.n_kv_heads;
    }
    if (i == 0) first_item[0] = weight_before[0] = 0;
    __syncthreads();
    if (n == 1) return;
    if (i < 32) sum_up(first_item + 1, n);
    if (i >= 32 && i < 64) sum_up(weight_before + 1, n);
    __syncthreads();
  }

  /// The first item that begins at or behind `part` of `n_parts` equal shares of the weight.
  __device__ __forceinline__ int item_at_share(const DecodeArguments& p, int part, int n_parts) const {
    const int n = static_cast<int>(p.step.n_rows);
    const int weight = static_cast<int>(int64_t{weight_before[n]} * part / n_parts);
    if (weight >= weight_before[n]) return first_item[n];
    int row = 0;
    while (weight >= weight_before[row + 1]) ++row;
    const Cut cut = cut_of(visible(p.a, row), p);
    const int within = weight - weight_before[row], g = within / cut.weight(), rest = within - g * cut.weight();
    return first_item[row] + g * cut.n_runs + min(cut.n_runs, (rest + cut.tiles_a_run) / (cut.tiles_a_run + 1));
  }
};

struct Item {
  int row, g, run, first_of_head;  ///< first_of_head: the item of run 0.
  Visible visible;
  Cut cut;             ///< Of the row.
  int begin, n_tiles;  ///< Of the run: its first slot.
};
/// `row`: at or before the item's.
__device__ __forceinline__ Item item_at(const DecodeArguments& p, const DecodeRows& rows, int index, int row) {
  Item item;
  while (index >= rows.first_item[row + 1]) ++row;
  item.row = row;
  item.visible = rows.visible(p.a, row);
  item.cut = cut_of(item.visible, p);
  const int at = index - rows.first_item[row];
  item.g = at / item.cut.n_runs;
  item.run = at - item.g * item.cut.n_runs;
  item.first_of_head = index - item.run;
  const int first_tile = item.run * item.cut.tiles_a_run;
  item.begin = item.cut.begin + first_tile * kDecodeTile;
  item.n_tiles = min(item.cut.tiles_a_run, item.cut.n_tiles - first_tile);
  return item;
}

}  // namespace minillm::cuda
