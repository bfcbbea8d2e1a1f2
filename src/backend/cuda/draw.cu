// draw.cu - the next token of each row by temperature, top-k, top-p and min-p (engine/sampler.h without penalties), so that a sampled
// step moves four bytes a sequence to the host and no row of logits. Many blocks weigh the tokens of a row; the last of them to finish
// finds the cuts and the token.
#include <cstdint>

#include "backend/cuda/check.h"
#include "backend/cuda/device/launch.cuh"
#include "backend/cuda/device/weighed_row.cuh"
#include "backend/cuda/operations.h"

namespace minillm::cuda {
namespace {

constexpr int kSlices = 16;

/// What outlives a block: zeros before and after a call.
struct Scratch {
  Mass mass[kBins];
  unsigned int count[kBins];
  unsigned int n_done;
};
static_assert(sizeof(Scratch) == kDrawRowBytes);

/// This share of a mass, in whole numbers below it. `share` is less than 1.
__device__ __forceinline__ Mass part_of(Mass mass, double share) {
  const Mass part = static_cast<Mass>(static_cast<double>(mass) * share);
  return part < mass ? part : mass - 1;
}

/// The first step whose tokens weigh less than `share` of the highest.
__device__ __forceinline__ int first_below(float share) {
  const double q = floor(-log(static_cast<double>(share)) * kSteps);
  return q < kEnd - 1 ? static_cast<int>(q) + 1 : kEnd;
}

__device__ int32_t draw_token(const Row& row, const Draw& draw, Tally of_bin, Finder::Shared& shared) {
  Finder finder(row, of_bin, shared);
  const int heavy_end = draw.min_p > 0 ? first_below(draw.min_p) : kEnd;
  const bool cuts_top = draw.top_k > 0 && draw.top_k < row.vocab;
  if (!cuts_top && draw.top_p >= 1) {  // Nothing depends on an order: by id, as on the host.
    const Mass total = heavy_end < kEnd ? finder.below(heavy_end).tally.mass : finder.all().mass;
    return walk_ids(row, part_of(total, draw.uniform), [heavy_end](int q) { return q < heavy_end ? mass_of(q) : Mass{0}; });
  }
  Prefix kept{kEnd, 0, finder.all()};
  if (cuts_top && static_cast<unsigned int>(draw.top_k) < kept.tally.count) kept = finder.reach(By::kCount, draw.top_k);
  if (draw.top_p < 1) {
    const auto share = static_cast<Mass>(ceil(static_cast<double>(draw.top_p) * static_cast<double>(kept.tally.mass)));
    kept = finder.reach(By::kMass, share < 1 ? 1 : share < kept.tally.mass ? share : kept.tally.mass);
  }
  if (heavy_end < kEnd && heavy_end <= kept.key) kept = finder.below(heavy_end);
  const Mass target = part_of(kept.tally.mass, draw.uniform) + 1;
  const Prefix drawn = finder.reach(By::kMass, target);
  return finder.id_of(drawn.key, drawn.n_of_key - 1);
}

/// One block a slice of the vocabulary and row; `ids` hold the highest, or less than 0, which stays.
__global__ void __launch_bounds__(kRowThreads)
    draw_kernel(int32_t* ids, const float* logits, int64_t vocab, const Draw* draws, Scratch* scratch) {
  __shared__ Mass masses[kBins];
  __shared__ unsigned int counts[kBins];
  __shared__ Finder::Shared shared;
  __shared__ bool is_last;
  masses[threadIdx.x] = 0;
  counts[threadIdx.x] = 0;
  __syncthreads();
  let_successor_start();
  wait_for_predecessor();
  const int slice = blockIdx.x;
  const Draw draw = draws[blockIdx.y];
  int32_t& id = ids[blockIdx.y];
  if (draw.temperature == 0 || id < 0) return;
  const float* const row_logits = logits + blockIdx.y * vocab;
  const Row row{row_logits, vocab, row_logits[id], kSteps / draw.temperature};
  const int64_t per_slice = (vocab + kSlices - 1) / kSlices, first = slice * per_slice;
  row.for_each(first, first + per_slice < vocab ? first + per_slice : vocab, threadIdx.x, kRowThreads, [&](int64_t, int q) {
    atomicAdd(&masses[q / kWidth], mass_of(q));
    atomicAdd(&counts[q / kWidth], 1u);
  });
  __syncthreads();
  Scratch& sums = scratch[blockIdx.y];
  if (counts[threadIdx.x] > 0) {
    atomicAdd(&sums.mass[threadIdx.x], masses[threadIdx.x]);
    atomicAdd(&sums.count[threadIdx.x], counts[threadIdx.x]);
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) is_last = atomicInc(&sums.n_done, kSlices - 1) == kSlices - 1;  // Back to 0 for the next call.
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  const Tally of_bin{__ldcg(&sums.mass[threadIdx.x]), __ldcg(&sums.count[threadIdx.x])};
  sums.mass[threadIdx.x] = 0;
  sums.count[threadIdx.x] = 0;
  const int32_t drawn = draw_token(row, draw, of_bin, shared);
  if (threadIdx.x == 0) id = drawn;
}

}  // namespace

void draw(int32_t* ids, const float* logits, int64_t n_rows, int64_t vocab, const Draw* draws, void* scratch, cudaStream_t stream) {
  for (int64_t row = 0; row < n_rows; row += kFewTokens) {
    const auto n = static_cast<unsigned>(n_rows - row < kFewTokens ? n_rows - row : kFewTokens);
    launch(draw_kernel, dim3(kSlices, n), kRowThreads, 0, stream, ids + row, logits + row * vocab, vocab, draws + row,
           static_cast<Scratch*>(scratch));
  }
}

}  // namespace minillm::cuda
