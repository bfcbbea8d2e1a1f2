// decode_items.cuh - how decode attention cuts a step's rows into items - a row, a key head, a run of its keys - and shares them out.
// A row is cut by its own length and the model alone, so its result is the same in any batch. Which block computes an item is another
// matter: neighbouring items go to a block together, so that most rows and heads lie within one, in shares that blocks draw. Shares
// become smaller from round to round: multiprocessors do not get equal parts of the memory's speed.
// Source of the halved rounds: Hummel et al. 1992, Factoring.
#pragma once

#include <cuda.h>

#include "backend/cuda/device/kv_tile.cuh"
#include "backend/cuda/operations.h"

namespace minillm::cuda {

constexpr int kDecodeTile = 64, kStepKeys = 16;  ///< Keys of a tile, and those of one matrix instruction.
constexpr int kGroupRows = 16;                   ///< Most query heads of a key head.

struct DecodeArguments {
  CUtensorMap keys, values;  ///< (D, token of the page, head, page), boxes of 128 bytes by `box_keys` tokens; from sm_90 on.
  float *out, *lse;
  const float* q;
  KeyLayout cache;
  DeviceStep step;
  AttentionScalars a;
  float* partial;                               ///< [row][run][H][kDim + 2]
  unsigned int* n_done;                         ///< [row][H], and behind them the number of shares drawn
  int target_runs, least_tiles[2], long_tiles;  ///< least_tiles: of a run, where the row has less than long_tiles, or more.
  int box_keys;                                 ///< Keys that lie one behind the other in a page and a tile.
  int n_stages, n_sums;                         ///< Of the ring of tiles; sets of sums in shared memory.
  AppendInputs append;  ///< With a q/k/v product: the queries come from it, and its keys and values go to the cache first.
};

/// A row as its own length cuts it. No division is needed to walk over its items.
struct RowCut {
  Visible visible;
  int table_start, begin, n_tiles, tiles_a_run, n_runs;
  /// What a head's items weigh: their tiles, and for each as much again as one tile.
  __device__ __forceinline__ int weight() const { return n_tiles + n_runs; }
};
__device__ __forceinline__ RowCut cut_of(const DecodeArguments& p, int row) {
  RowCut c;
  Visible& v = c.visible;
  v.slot = p.step.slots[row];
  const int n_keys = p.step.key_counts[row];
  c.table_start = p.step.table_starts[row];
  v.first = p.a.window > 0 ? static_cast<int>(max(int64_t{0}, min(int64_t{n_keys}, v.slot - p.a.window + 1))) : 0;
  v.last = p.a.causal ? max(v.first, min(n_keys, v.slot + 1)) : n_keys;
  c.begin = v.first / kDecodeTile * kDecodeTile;
  c.n_tiles = max(0, (v.last - c.begin + kDecodeTile - 1) / kDecodeTile);
  c.tiles_a_run = max(p.least_tiles[c.n_tiles >= p.long_tiles ? 1 : 0], (c.n_tiles + p.target_runs - 1) / p.target_runs);
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

/// How many of the n sums x[1] to x[n] are at most `value`, in two votes of the warp: in which row a thing lies.
__device__ __forceinline__ int row_of(const int* x, int n, int value) {
  const int lane = threadIdx.x % 32;
  const auto count = [&](int i) { return __popc(__ballot_sync(0xFFFFFFFFu, i < n && value >= x[i + 1])); };
  return n <= 32 ? count(lane) : count(lane) + count(lane + 32);
}

/// Neighbouring items [first, last); none: no more work.
struct Share {
  int first, last;
};

/// The step's rows, in shared memory.
struct DecodeRows {
  RowCut cut[kFewTokens];
  int first_item[kFewTokens + 1], weight_before[kFewTokens + 1];
  int n_rows, n_kv_heads;

  /// The whole block calls it; ends with a barrier.
  __device__ __forceinline__ void load(const DecodeArguments& p) {
    const int i = threadIdx.x, n = static_cast<int>(p.step.n_rows);
    if (i < n) {
      cut[i] = cut_of(p, i);
      first_item[i + 1] = cut[i].n_runs * p.a.n_kv_heads;
      weight_before[i + 1] = cut[i].weight() * p.a.n_kv_heads;
    }
    if (i == 0) first_item[0] = weight_before[0] = 0, n_rows = n, n_kv_heads = p.a.n_kv_heads;
    __syncthreads();
    if (n == 1) return;
    if (i < 32) sum_up(first_item + 1, n);
    if (i >= 32 && i < 64) sum_up(weight_before + 1, n);
    __syncthreads();
  }
  __device__ __forceinline__ int n_items() const { return first_item[n_rows]; }

  /// Rounds of shares, one for each block: each round is half of what is left, while that gives a block kLeastShare. Less than three
  /// rounds would even nothing out.
  __device__ __forceinline__ int n_shares(int n_blocks) const {
    constexpr int kLeastShare = 32, kMostRounds = 7;
    int rounds = 1;
    while (rounds < kMostRounds && (weight_before[n_rows] >> rounds) >= n_blocks * kLeastShare) ++rounds;
    return (rounds < 3 ? 1 : rounds) * n_blocks;
  }
  /// Whole warps call it.
  __device__ __forceinline__ Share share(int ticket, int n_blocks) const {
    if (n_items() <= n_blocks) return ticket < n_items() ? Share{ticket, ticket + 1} : Share{0, 0};
    const int n = n_shares(n_blocks), round = ticket / n_blocks, part = ticket - round * n_blocks;
    if (ticket >= n) return {0, 0};
    const int all = weight_before[n_rows], left = all >> round, here = ticket >= n - n_blocks ? left : left - (left >> 1);
    const int each = here / n_blocks, more = here - each * n_blocks, begin = all - left + part * each + min(part, more);
    const int whole_heads = n == n_blocks ? each / 2 : 0;  // Heads of up to this weight are not divided: they need no one else.
    return {item_behind(begin, whole_heads), item_behind(begin + each + (part < more ? 1 : 0), whole_heads)};
  }
  /// The first item that begins at or behind this weight.
  __device__ __forceinline__ int item_behind(int weight, int whole_heads) const {
    if (weight >= weight_before[n_rows]) return n_items();
    const int row = row_of(weight_before, n_rows, weight);
    const RowCut& c = cut[row];
    const int of_head = c.weight(), within = weight - weight_before[row], g = within / of_head, rest = within - g * of_head;
    if (of_head <= whole_heads) return first_item[row] + (g + (2 * rest >= of_head ? 1 : 0)) * c.n_runs;
    return first_item[row] + g * c.n_runs + min(c.n_runs, (rest + c.tiles_a_run) / (c.tiles_a_run + 1));
  }
};

/// One item of a share after the other.
struct Item {
  int index = 0, row, g, run, first_of_head;  ///< first_of_head: the item of run 0.
  int begin, n_tiles;                         ///< Of the run: its first slot.

  __device__ __forceinline__ void start(const DecodeRows& rows, int first) {
    index = first;
    row = row_of(rows.first_item, rows.n_rows, index);
    const int at = index - rows.first_item[row], n_runs = rows.cut[row].n_runs;
    g = at / n_runs;
    run = at - g * n_runs;
    first_of_head = index - run;
    locate(rows);
  }
  /// To the item behind, which must exist.
  __device__ __forceinline__ void advance(const DecodeRows& rows) {
    ++index;
    if (++run == rows.cut[row].n_runs) {
      run = 0;
      first_of_head = index;
      if (++g == rows.n_kv_heads) g = 0, ++row;
    }
    locate(rows);
  }
  __device__ __forceinline__ void locate(const DecodeRows& rows) {
    const RowCut& c = rows.cut[row];
    const int first_tile = run * c.tiles_a_run;
    begin = c.begin + first_tile * kDecodeTile;
    n_tiles = min(c.tiles_a_run, c.n_tiles - first_tile);
  }
};

}  // namespace minillm::cuda
