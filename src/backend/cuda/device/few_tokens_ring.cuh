// few_tokens_ring.cuh - the products of few_tokens.cuh for up to 8 tokens where the GPU has a bulk copy engine (sm_90 and newer).
// One warp keeps copies of weights under way into a ring of shared memory, eight warps multiply what has arrived. Inputs overtake
// weights: at most plan.in_flight stages are on their way at a time, and what the ring holds beyond that was there before the
// predecessor ended. Two blocks fit on a multiprocessor, so that the next kernel fills its ring while this one multiplies.
// Work:    a block takes groups of one tile of 16 rows (two, gate and up, where kMTiles is 2), a stage is eight units of one tile,
//          a unit for each warp.
// Sums:    bit for bit those of few_tokens.cuh: the same units make the same kSums partial sums, added in the same order.
// Inputs:  `resident` in shared memory where they fit, computed by each block or copied; else they come stage by stage.
#pragma once

#include "backend/cuda/device/few_tokens.cuh"
#include "backend/cuda/sm90/barrier.cuh"

namespace minillm::cuda {

constexpr int kRingWarps = kStageUnits, kRingConsumers = 32 * kRingWarps, kMostStages = 16;
constexpr int kRingTokens = 8;
constexpr int kRingRowBatch = 4;
/// Warps that copy: starting the 16 copies of a stage of bf16 takes longer than the stage takes to come.
template <Format kFormat>
constexpr int kRingCopiers = kFormat == Format::kBF16 ? 4 : 1;
template <Format kFormat>
constexpr int kRingThreads = kRingConsumers + 32 * kRingCopiers<kFormat>;

/// What does not change from block to block; made by the launcher.
struct RingPlan {
  int64_t n_groups = 0, half_tiles = 0;
  int n_units = 0, n_passes = 0;  ///< Units and stages of a tile.
  int n_stages = 0, stage_bytes = 0, inputs_at = 0;
  StageLayout layout;
  int resident_bytes = 0;  ///< 0: inputs come with the weights.
  int in_flight = 0;       ///< Stages on their way at most.
};

struct RingBarriers {
  sm90::Barrier weights[kMostStages], inputs[kMostStages], empty[kMostStages], resident;
};

__device__ __forceinline__ uint64_t read_once_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
/// 16-byte multiples; the bytes count on `barrier`.
__device__ __forceinline__ void bulk_copy(void* to, const void* from, uint32_t bytes, sm90::Barrier& barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(&barrier.word))
               : "memory");
}
__device__ __forceinline__ void bulk_copy(void* to, const void* from, uint32_t bytes, sm90::Barrier& barrier, uint64_t policy) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(&barrier.word)), "l"(policy)
               : "memory");
}

/// Starts the copies of one stage; the whole warp calls it.
template <Format kFormat>
__device__ __forceinline__ void copy_stage(unsigned char* to, sm90::Barrier& full, const DeviceTensor& w, const RingPlan& plan,
                                           int64_t tile, int pass, int lane, uint64_t policy) {
  const int first = pass * kStageUnits, n = min(kStageUnits, plan.n_units - first);
  if constexpr (kFormat == Format::kBF16) {
    const int columns = static_cast<int>(min(int64_t{n} * 64, w.stride - int64_t{first} * 64));
    if (lane == 0) full.arrive_expecting(static_cast<uint32_t>(kTileRows * columns * 2));
    __syncwarp();
    if (lane < kTileRows) {
      const int64_t row = min(tile * kTileRows + lane, w.rows - 1);  // Past the end: any row, not stored.
      bulk_copy(to + lane * kStageRowBytes, static_cast<const __nv_bfloat16*>(w.data) + row * w.stride + first * 64,
                static_cast<uint32_t>(columns * 2), full, policy);
    }
  } else {
    constexpr int kCodes = kTileRows * kUnitColumns / (kFormat == Format::kNibbles ? 2 : 1);
    const int scales = kTileRows * (kUnitColumns / w.group) * (w.half_scales ? 2 : 4);
    const int64_t at = tile * plan.n_units + first;
    if (lane == 0) full.arrive_expecting(static_cast<uint32_t>(n * (kCodes + (w.offset == nullptr ? 1 : 2) * scales)));
    __syncwarp();
    if (lane == 0) bulk_copy(to, static_cast<const char*>(w.data) + at * kCodes, static_cast<uint32_t>(n * kCodes), full, policy);
    if (lane == 1)
      bulk_copy(to + plan.layout.scales_at, static_cast<const char*>(w.scale) + at * scales, static_cast<uint32_t>(n * scales), full,
                policy);
    if (lane == 2 && w.offset != nullptr)
      bulk_copy(to + plan.layout.offsets_at, static_cast<const char*>(w.offset) + at * scales, static_cast<uint32_t>(n * scales), full,
                policy);
  }
}

/// Where a copying warp is among its block's stages; it takes every kStride-th. No divisions: they would take longer than the copies.
template <int kMTiles, int kStride>
struct StageWalk {
  int i, step, slot;
  uint32_t parity = 0;
  int64_t group = blockIdx.x;

  __device__ __forceinline__ StageWalk(int first, const RingPlan& plan) : i(first), step(first), slot(first) { wrap(plan); }
  __device__ __forceinline__ void advance(const RingPlan& plan) {
    i += kStride, step += kStride, slot += kStride;
    wrap(plan);
  }
  __device__ __forceinline__ void wrap(const RingPlan& plan) {
    while (step >= plan.n_passes * kMTiles) step -= plan.n_passes * kMTiles, group += gridDim.x;
    while (slot >= plan.n_stages) slot -= plan.n_stages, parity ^= 1;
  }
  __device__ __forceinline__ int pass() const { return step / kMTiles; }
  __device__ __forceinline__ int64_t tile(const RingPlan& plan) const { return group + step % kMTiles * plan.half_tiles; }
};

/// A copying warp, from beginning to end: number `first` of kRingCopiers.
template <Format kFormat, int kMTiles>
__device__ __forceinline__ void produce(const FewTokenProduct& p, const RingPlan& plan, RingBarriers& barriers, unsigned char* resident,
                                        unsigned char* ring, int first, int lane) {
  constexpr int kChunks = WeightStage<kFormat>::kChunks;
  using Walk = StageWalk<kMTiles, kRingCopiers<kFormat>>;
  const uint64_t policy = read_once_policy();
  const auto copy_weights = [&](const Walk& at) {
    if (at.i >= plan.in_flight) {
      const bool same = at.slot >= plan.in_flight;
      barriers.weights[at.slot - plan.in_flight + (same ? 0 : plan.n_stages)].wait(same ? at.parity : at.parity ^ 1);
    }
    copy_stage<kFormat>(ring + at.slot * plan.stage_bytes, barriers.weights[at.slot], p.w, plan, at.tile(plan), at.pass(), lane, policy);
  };
  const auto copy_inputs = [&](const Walk& at) {
    if (plan.resident_bytes != 0 || lane != 0) return;
    const int unit = at.pass() * kStageUnits, n = min(kStageUnits, plan.n_units - unit);
    const auto bytes = static_cast<uint32_t>(n * kChunks * p.n_tokens * 128);
    sm90::Barrier& full = barriers.inputs[at.slot];
    full.arrive_expecting(bytes);
    bulk_copy(ring + at.slot * plan.stage_bytes + plan.inputs_at,
              static_cast<const char*>(p.split_inputs) + int64_t{unit} * kChunks * p.n_tokens * 128, bytes, full);
  };
  const auto in_early = [&](const Walk& at) { return at.i < plan.n_stages && at.group < plan.n_groups; };
  Walk at(first, plan);
  for (; in_early(at); at.advance(plan)) copy_weights(at);
  wait_for_predecessor();
  if (first == 0 && plan.resident_bytes != 0 && p.is_split && lane == 0) {
    barriers.resident.arrive_expecting(static_cast<uint32_t>(plan.resident_bytes));
    bulk_copy(resident, p.split_inputs, static_cast<uint32_t>(plan.resident_bytes), barriers.resident);
  }
  if (plan.resident_bytes == 0)
    for (Walk early(first, plan); in_early(early); early.advance(plan)) copy_inputs(early);
  for (; at.group < plan.n_groups; at.advance(plan)) {
    barriers.empty[at.slot].wait(at.parity ^ 1);
    copy_weights(at);
    copy_inputs(at);
  }
}

/// The multiplying warps: resident inputs from x, with the norm's weight; leaves the sums of squares. Waits for the predecessor.
template <Format kFormat>
__device__ __forceinline__ void prepare_inputs(const FewTokenProduct& p, const RingPlan& plan, RingBarriers& barriers,
                                               unsigned char* resident, float (*squares)[kRingWarps], int warp, int lane) {
  if (plan.resident_bytes == 0 || p.is_split) {
    wait_for_predecessor();
    if (plan.resident_bytes != 0) barriers.resident.wait(0);
    return;
  }
  float4 weights[kRingRowBatch];
  if (p.norm != nullptr) load_batch<kRingConsumers>(weights, p.norm, p.w.cols, 0);
  wait_for_predecessor();
  const int64_t padded = int64_t{plan.n_units} * WeightStage<kFormat>::kColumns;
  for (int t = 0; t < p.n_tokens; ++t) {
    if (t > 0 && p.norm != nullptr && padded > 4 * kRingRowBatch * kRingConsumers)
      load_batch<kRingConsumers>(weights, p.norm, p.w.cols, 0);
    const float sum = warp_sum(split_row<kFormat, kRingConsumers>(reinterpret_cast<__nv_bfloat16*>(resident) + t * 64, 64 * p.n_tokens,
                                                                  p.x + t * p.w.cols, p.norm, weights, p.w.cols, padded));
    if (lane == 0) squares[t][warp] = sum;
  }
  sm90::named_sync(1, kRingConsumers);
}

template <Format kFormat, int kNTiles, int kMTiles, int kSums>
__device__ __forceinline__ void consume(const FewTokenProduct& p, const RingPlan& plan, RingBarriers& barriers, const float (*squares)[kRingWarps],
                                        float* sums, const unsigned char* resident, const unsigned char* ring, int warp, int lane) {
  using Stage = WeightStage<kFormat>;
  constexpr int kSets = kMTiles * kSums / kRingWarps, kTokens = 4 * kNTiles;
  const int column = lane / 4, token_bytes = (column / 2 * 2 + column % 2) * 64 + lane % 4 * 16, chunk_bytes = p.n_tokens * 128;
  const auto factor = [&](int token) {
    if (plan.resident_bytes != 0 && !p.is_split) return p.norm == nullptr ? 1.0f : norm_factor(squares[token], p.w.cols, p.eps);
    return p.factors == nullptr ? 1.0f : p.factors[token];
  };
  int slot = 0, buffer = 0;
  uint32_t parity = 0;
  for (int64_t group = blockIdx.x; group < plan.n_groups; group += gridDim.x, buffer ^= 1) {
    float acc[kSets][kNTiles][4] = {};
    const float before = residual_of<kMTiles>(p, group);
    for (int pass = 0; pass < plan.n_passes; pass += kSets / kMTiles) {
#pragma unroll
      for (int set = 0; set < kSets; ++set) {
        const int at = kMTiles == 1 ? pass + set : pass;
        if (at >= plan.n_passes) break;
        const int unit = at * kStageUnits + warp;
        barriers.weights[slot].wait(parity);
        if (plan.resident_bytes == 0) barriers.inputs[slot].wait(parity);
        const unsigned char* stage = ring + slot * plan.stage_bytes;
        if (unit < plan.n_units) {
          const unsigned char* inputs = plan.resident_bytes == 0 ? stage + plan.inputs_at + warp * Stage::kChunks * chunk_bytes
                                                                 : resident + unit * Stage::kChunks * chunk_bytes;
          Stage weights;
          weights.load_shared(stage, plan.layout, p.w, unit, lane);
          weights.multiply(acc[set], p.w, [&](int chunk, int n) -> uint4 {
            if (4 * n + column / 2 >= p.n_tokens) return uint4{};
            return *reinterpret_cast<const uint4*>(inputs + chunk * chunk_bytes + n * 512 + token_bytes);
          });
        }
        __syncwarp();
        if (lane == 0) barriers.empty[slot].arrive();
        if (++slot == plan.n_stages) slot = 0, parity ^= 1;
      }
    }
    float* mine = sums + buffer * (kSets * kRingWarps * kTileRows * kTokens);
#pragma unroll
    for (int set = 0; set < kSets; ++set)
#pragma unroll
      for (int n = 0; n < kNTiles; ++n) {
        const int part = kMTiles == 1 ? set * kRingWarps + warp : warp * kMTiles + set;  // [part][tile of the group]
        float* to = mine + (part * kTileRows + lane / 4) * kTokens + 4 * n + lane % 4;
        to[0] = acc[set][n][0] + acc[set][n][1];
        to[8 * kTokens] = acc[set][n][2] + acc[set][n][3];
      }
    sm90::named_sync(1, kRingConsumers);  // Before anyone writes `mine` again there is another one of these.
    finish_tiles<kNTiles, kMTiles, kSums, kRingConsumers, true>(p, mine, group, before, factor);
  }
}

template <Format kFormat, int kNTiles, int kMTiles, int kSums>
__global__ void __launch_bounds__(kRingThreads<kFormat>, 2)
    ring_kernel(const __grid_constant__ FewTokenProduct p, const __grid_constant__ RingPlan plan) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ RingBarriers barriers;
  __shared__ float squares[kRingTokens][kRingWarps];
  unsigned char* const resident = shared;
  unsigned char* const ring = shared + plan.resident_bytes;
  auto* const sums = reinterpret_cast<float*>(ring + plan.n_stages * plan.stage_bytes);
  const int warp = sm90::uniform(threadIdx.x / 32), lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < plan.n_stages; ++i) barriers.weights[i].init(1), barriers.inputs[i].init(1), barriers.empty[i].init(kRingWarps);
    barriers.resident.init(1);
    sm90::fence_barrier_init();
  }
  let_successor_start();
  touch_parameters(p);
  touch_parameters(plan);
  __syncthreads();
  if (warp >= kRingWarps) {
    produce<kFormat, kMTiles>(p, plan, barriers, resident, ring, warp - kRingWarps, lane);
    return;
  }
  prepare_inputs<kFormat>(p, plan, barriers, resident, squares, warp, lane);
  consume<kFormat, kNTiles, kMTiles, kSums>(p, plan, barriers, squares, sums, resident, ring, warp, lane);
#endif
}

}  // namespace minillm::cuda
