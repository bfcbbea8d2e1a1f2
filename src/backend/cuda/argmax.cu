// argmax.cu - the most likely token of each row, so that greedy decoding moves four bytes to the host instead of a row of logits.
// One block a row and slice of the vocabulary; the last block of a row to finish compares the slices.
#include <cmath>
#include <cstdint>

#include "backend/cuda/check.h"
#include "backend/cuda/device/launch.cuh"
#include "backend/cuda/operations.h"

namespace minillm::cuda {
namespace {

constexpr int kThreads = 256, kSlices = 64;
constexpr int64_t kMostRows = kFewTokens;

struct Best {
  float logit = -INFINITY;
  int32_t id = -1;  ///< -1: nothing above -inf; -2: a NaN or +inf, which beats everything.
};
/// What outlives a block. The counters begin at 0 and are 0 again after a call.
struct Scratch {
  Best slices[kMostRows][kSlices];
  unsigned int n_done[kMostRows];
};

__device__ __forceinline__ Best better(Best a, Best b) {
  if (a.id == -2 || b.id == -2) return {0.0f, -2};
  if (b.id == -1) return a;
  if (a.id == -1) return b;
  return b.logit > a.logit || (b.logit == a.logit && b.id < a.id) ? b : a;
}

__device__ Best block_best(Best mine) {
  __shared__ Best warps[kThreads / 32];
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    mine = better(mine, {__shfl_xor_sync(0xFFFFFFFFu, mine.logit, distance), __shfl_xor_sync(0xFFFFFFFFu, mine.id, distance)});
  __syncthreads();
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = mine;
  __syncthreads();
  mine = warps[0];
  for (int w = 1; w < kThreads / 32; ++w) mine = better(mine, warps[w]);
  return mine;
}

__global__ void __launch_bounds__(kThreads) argmax_kernel(int32_t* ids, const float* logits, int64_t vocab, Scratch* scratch) {
  let_successor_start();
  wait_for_predecessor();
  const int slice = blockIdx.x, row = blockIdx.y;
  const int64_t per_slice = (vocab + kSlices - 1) / kSlices, end = min(vocab, (slice + 1) * per_slice);
  Best best;
  constexpr int kBatch = 8;  // Loads first: each comes from L2.
  for (int64_t first = slice * per_slice + threadIdx.x; first < end; first += kBatch * kThreads) {
    float x[kBatch];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) x[j] = first + j * kThreads < end ? logits[row * vocab + first + j * kThreads] : -INFINITY;
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      if (!(x[j] < INFINITY))
        best = {0.0f, -2};
      else if (x[j] > -INFINITY)
        best = better(best, {x[j], static_cast<int32_t>(first + j * kThreads)});
    }
  }
  best = block_best(best);
  __shared__ bool is_last;
  if (threadIdx.x == 0) {
    scratch->slices[row][slice] = best;
    __threadfence();
    is_last = atomicInc(&scratch->n_done[row], kSlices - 1) == kSlices - 1;  // Back to 0 for the next call.
  }
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  best = {};
  if (threadIdx.x < kSlices) {
    const volatile Best& other = scratch->slices[row][threadIdx.x];
    best = {other.logit, other.id};
  }
  best = block_best(best);
  if (threadIdx.x == 0) ids[row] = best.id < 0 ? -1 : best.id;
}

}  // namespace

size_t argmax_scratch_bytes() { return sizeof(Scratch); }

void argmax(int32_t* ids, const float* logits, int64_t n_rows, int64_t vocab, void* scratch, cudaStream_t stream) {
  for (int64_t row = 0; row < n_rows; row += kMostRows) {
    const auto n = static_cast<unsigned>(n_rows - row < kMostRows ? n_rows - row : kMostRows);
    launch(argmax_kernel, dim3(kSlices, n), kThreads, 0, stream, ids + row, logits + row * vocab, vocab, static_cast<Scratch*>(scratch));
  }
}

}  // namespace minillm::cuda
