// weighed_row.cuh - a row of logits as weights that are whole numbers, and prefixes of its tokens in order of their weight.
//
// A logit l lies q = (max - l) / temperature * kSteps steps below the highest, rounded, and weighs 2^40 exp(-q / kSteps), rounded down.
// Sums of whole numbers are the same in any order, so that they depend on the row alone and atomic adds may be used. Logits of the same
// step count as equal: by id. What lies kRange below the highest, at e^-27 of its weight, does not count. Nothing is sorted: tokens are
// counted and weighed in wide bins of q, and for one bin at a time in its single steps.
#pragma once

#include <cstdint>

#include "backend/cuda_sizes.h"

namespace minillm::cuda {

constexpr int kRowThreads = 1024, kRowWarps = kRowThreads / 32;  ///< Of a block that looks at a row.
constexpr int kSteps = 1 << 16, kRange = 27;                     ///< Of a unit of the exponent; units.
constexpr int kBins = kDrawBins, kWidth = 2048;                  ///< Wide bins, and the steps in each.
constexpr int kEnd = kRange * kSteps;                            ///< The first step that counts no more.
constexpr float kHeaviest = static_cast<float>(1ull << 40);
static_assert(kEnd <= kBins * kWidth && kBins == kRowThreads && kWidth == 2 * kRowThreads);

using Mass = unsigned long long;

struct Tally {
  Mass mass;
  unsigned int count;
};
/// Weight of a logit q steps below the highest: from 2^40 down to 2, so that the sum over any vocabulary fits.
__device__ __forceinline__ Mass mass_of(int q) {
  constexpr float kLog2E = 1.44269504f;
  return static_cast<Mass>(exp2f(static_cast<float>(q) * (-kLog2E / kSteps)) * kHeaviest);
}

/// A row's logits, in steps below the highest.
struct Row {
  const float* logits;
  int64_t vocab;
  float max, steps_per_unit;

  /// kEnd for what does not count.
  __device__ __forceinline__ int key(float logit) const {
    const float q = (max - logit) * steps_per_unit + 0.5f;
    return q < static_cast<float>(kEnd) ? static_cast<int>(q) : kEnd;
  }
  /// f(id, key) for every id of [first, last), a batch of loads at a time since each comes from L2; threads take neighbours.
  template <typename F>
  __device__ __forceinline__ void for_each(int64_t first, int64_t last, int thread, int n_threads, const F& f) const {
    constexpr int kBatch = 8;
    for (int64_t i = first + thread; i < last; i += int64_t{kBatch} * n_threads) {
      float x[kBatch];
#pragma unroll
      for (int j = 0; j < kBatch; ++j) x[j] = i + j * n_threads < last ? logits[i + j * n_threads] : -INFINITY;
#pragma unroll
      for (int j = 0; j < kBatch; ++j)
        if (const int q = key(x[j]); q < kEnd) f(i + j * n_threads, q);
    }
  }
};

__device__ __forceinline__ Tally operator+(Tally a, Tally b) { return {a.mass + b.mass, a.count + b.count}; }

/// The sum of what the threads before this one hold; `all`: of every thread.
__device__ inline Tally sum_before(Tally mine, Tally& all) {
  __shared__ Tally warps[kRowWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Tally sum = mine;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const Tally other{__shfl_up_sync(0xFFFFFFFFu, sum.mass, distance), __shfl_up_sync(0xFFFFFFFFu, sum.count, distance)};
    if (lane >= distance) sum = sum + other;
  }
  __syncthreads();
  if (lane == 31) warps[warp] = sum;
  __syncthreads();
  Tally before{};
  all = {};
  for (int w = 0; w < kRowWarps; ++w) {
    if (w == warp) before = all;
    all = all + warps[w];
  }
  return {before.mass + sum.mass - mine.mass, before.count + sum.count - mine.count};
}

enum class By { kCount, kMass };

/// Tokens in order of their steps: those before `key`, and the first `n_of_key` of that key by id.
struct Prefix {
  int key;
  unsigned int n_of_key;
  Tally tally;  ///< Of all of them.
};

/// Finds prefixes of a row; every thread of the block calls every function.
class Finder {
 public:
  struct Shared {
    unsigned int counts[kWidth];
    int32_t ids[kWidth];  ///< The lowest id of each step.
    Prefix found;
    Tally before;
    int bin;
  };
  /// `mine`: of the wide bin threadIdx.x.
  __device__ Finder(const Row& row, Tally mine, Shared& shared) : row_(row), shared_(shared), mine_(mine) {
    before_ = sum_before(mine, all_);
  }
  __device__ Tally all() const { return all_; }

  /// The shortest prefix whose count or mass is at least `target`, which is 1 or more and not more than there is.
  __device__ Prefix reach(By by, Mass target);
  /// All tokens of keys below `end`.
  __device__ Prefix below(int end);
  /// The id of the n-th token, from 0, of this key. After reach(), which ended at it.
  __device__ int32_t id_of(int key, unsigned int n) const;

 private:
  /// Counts and weighs the steps of one wide bin: this thread's two, and what comes before them in the row.
  struct Steps {
    Tally first, second, before;
  };
  __device__ Steps look_into(int bin);
  __device__ static Mass of(By by, Tally t) { return by == By::kCount ? t.count : t.mass; }

  const Row& row_;
  Shared& shared_;
  Tally mine_, before_, all_;
};

__device__ inline Finder::Steps Finder::look_into(int bin) {
  const int first = 2 * threadIdx.x;
  __syncthreads();
  for (int i = first; i < first + 2; ++i) shared_.counts[i] = 0, shared_.ids[i] = INT32_MAX;
  __syncthreads();
  row_.for_each(0, row_.vocab, threadIdx.x, kRowThreads, [&](int64_t id, int q) {
    if (q / kWidth != bin) return;
    atomicAdd(&shared_.counts[q % kWidth], 1u);
    atomicMin(&shared_.ids[q % kWidth], static_cast<int32_t>(id));
  });
  if (threadIdx.x == bin) shared_.before = before_;
  __syncthreads();
  Steps steps;
  const int q = bin * kWidth + first;
  steps.first = {shared_.counts[first] * mass_of(q), shared_.counts[first]};
  steps.second = {shared_.counts[first + 1] * mass_of(q + 1), shared_.counts[first + 1]};
  Tally in_bin;
  steps.before = shared_.before + sum_before(steps.first + steps.second, in_bin);
  return steps;
}

__device__ inline Prefix Finder::reach(By by, Mass target) {
  __syncthreads();
  if (of(by, before_) < target && of(by, before_ + mine_) >= target) shared_.bin = threadIdx.x;
  __syncthreads();
  const int bin = shared_.bin;
  const Steps steps = look_into(bin);
  Tally before = steps.before;
  for (int i = 0; i < 2; ++i) {
    const Tally step = i == 0 ? steps.first : steps.second;
    if (of(by, before) < target && of(by, before + step) >= target) {
      const int q = bin * kWidth + 2 * threadIdx.x + i;
      const Mass each = by == By::kCount ? 1 : mass_of(q);
      const auto n = static_cast<unsigned int>((target - of(by, before) + each - 1) / each);
      shared_.found = {q, n, {before.mass + n * mass_of(q), before.count + n}};
    }
    before = before + step;
  }
  __syncthreads();
  return shared_.found;
}

__device__ inline Prefix Finder::below(int end) {
  const int bin = end / kWidth;
  if (bin >= kBins) return {kEnd, 0, all_};
  const Steps steps = look_into(bin);
  if (static_cast<int>(threadIdx.x) == end % kWidth / 2) shared_.found = {end, 0, end % 2 == 0 ? steps.before : steps.before + steps.first};
  __syncthreads();
  return shared_.found;
}

/// The id at which a sum over ids in order exceeds `target`. `measure(key)`: what a token adds. Each warp takes a part of the row.
template <typename Measure>
__device__ int32_t walk_ids(const Row& row, Mass target, const Measure& measure) {
  __shared__ int32_t reached;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t per_warp = (row.vocab + kRowThreads - 1) / kRowThreads * 32, first = warp * per_warp;
  const int64_t last = first + per_warp < row.vocab ? first + per_warp : row.vocab;
  Mass mine = 0;
  row.for_each(first, last, lane, 32, [&](int64_t, int q) { mine += measure(q); });
  Tally all;
  const Mass before_mine = sum_before({mine, 0}, all).mass;
  const Mass end = __shfl_sync(0xFFFFFFFFu, before_mine + mine, 31);
  Mass before = __shfl_sync(0xFFFFFFFFu, before_mine, 0);
  if (before <= target && target < end)
    for (int64_t i = first; i < last; i += 32) {
      const int q = i + lane < last ? row.key(row.logits[i + lane]) : kEnd;
      Mass sum = q < kEnd ? measure(q) : 0;
#pragma unroll
      for (int distance = 1; distance < 32; distance *= 2) {
        const Mass other = __shfl_up_sync(0xFFFFFFFFu, sum, distance);
        if (lane >= distance) sum += other;
      }
      const unsigned int beyond = __ballot_sync(0xFFFFFFFFu, before + sum > target);
      if (beyond != 0) {
        if (lane == 0) reached = static_cast<int32_t>(i + __ffs(static_cast<int>(beyond)) - 1);
        break;
      }
      before += __shfl_sync(0xFFFFFFFFu, sum, 31);
    }
  __syncthreads();
  return reached;
}

__device__ inline int32_t Finder::id_of(int key, unsigned int n) const {
  if (n == 0) return shared_.ids[key % kWidth];
  return walk_ids(row_, n, [key](int q) -> Mass { return q == key ? 1 : 0; });
}

}  // namespace minillm::cuda
