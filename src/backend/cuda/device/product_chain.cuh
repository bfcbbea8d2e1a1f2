// product_chain.cuh - up to four products for up to 8 tokens as one kernel, each using the results of the one before: out, gate and up,
// down, and the next layer's q/k/v. One block a multiprocessor; its copying warps run through the weights of all products without
// a pause, into a ring of shared memory, while the multiplying warps wait for each other between two products (grid_barrier).
// So memory is busy while results go around, which takes 2 to 3 us a product. Needs the bulk copy engine of sm_90.
// Inputs overtake weights: at most `in_flight` stages are on their way at a time.
// Work:    a block takes groups of one tile of 16 rows (two, gate and up, where kMTiles is 2); a stage is eight units of one
//          tile, one for each warp.
// Sums:    bit for bit those of few_tokens.cuh: the same units make the same kSums partial sums, added in the same order.
// Inputs:  computed by each block into shared memory; or, where the product before stored them split, copied stage by stage.
#pragma once

#include "backend/cuda/device/few_tokens.cuh"
#include "backend/cuda/sm90/barrier.cuh"

namespace minillm::cuda {

constexpr int kChainProducts = 4, kChainTokens = 8, kMostStages = 16, kInputSlots = 4;
constexpr int kChainWarps = kStageUnits, kChainConsumers = 32 * kChainWarps;  ///< That multiply.
constexpr int kWeightCopiers = 4;                                   ///< Warps: one or two alone are slower than the memory.
constexpr int kChainThreads = kChainConsumers + 32 * (kWeightCopiers + 1);
constexpr int kChainRowBatch = 4;

struct ChainProduct {
  FewTokenProduct p;
  int n_groups = 0, half_tiles = 0;
  int n_units = 0, n_passes = 0;  ///< Units and stages of a tile.
  bool gated = false, wide = false;
  StageLayout layout;
};
struct Chain {
  ChainProduct products[kChainProducts];
  int n_products = 0;
  int n_stages = 0, stage_bytes = 0, in_flight = 0;
  int input_bytes = 0;     ///< Of a stage's split inputs, for which there is a ring of kInputSlots; 0: no product has any.
  int resident_bytes = 0;  ///< For computed inputs.
  unsigned int* barrier = nullptr;
};

struct ChainBarriers {
  sm90::Barrier weights[kMostStages], empty[kMostStages];
  sm90::Barrier inputs[kInputSlots], inputs_empty[kInputSlots];
  sm90::Barrier released[kChainProducts];  ///< The inputs of this product are there.
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

/// Blocks wait for each other; all of them run at once. The word's highest bit flips when the last has arrived, so that it need not be
/// set back: one block adds what is missing to 2^31. One thread a block calls these, between barriers of the block.
/// `copied`: bulk copies will read what was written before.
__device__ __forceinline__ unsigned int grid_arrive(unsigned int* word, bool copied) {
  const unsigned int mine = blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1) : 1u;
  unsigned int old;
  if (copied) asm volatile("fence.proxy.async;" ::: "memory");
  asm volatile("atom.add.release.gpu.global.u32 %0, [%1], %2;" : "=r"(old) : "l"(word), "r"(mine) : "memory");
  return old;
}
__device__ __forceinline__ void grid_wait(unsigned int* word, unsigned int old) {
  unsigned int now;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(word) : "memory");
  } while (((old ^ now) & 0x80000000u) == 0);
}

/// Every second product deals its groups from the other end, so that the blocks that got one more are not always the same.
__device__ __forceinline__ int first_group(int product) { return static_cast<int>(product % 2 == 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x); }

/// A copying warp's way through its block's stages of all products. What it needs of the product it is at lies in registers: looking it
/// up, or dividing, would take longer than the copies.
template <Format kFormat>
struct StageWalk {
  static constexpr int kCodes = kTileRows * kUnitColumns / (kFormat == Format::kNibbles ? 2 : 1);  ///< Bytes of a unit's codes.
  int product = -1, group = 0, n_groups = 0, step = 0, steps = 0, n_units = 0, half_tiles = 0, gated = 0;
  const char *data = nullptr, *scales = nullptr, *offsets = nullptr;
  int64_t row_bytes = 0, rows = 0;
  int scale_bytes = 0;
  StageLayout layout;

  __device__ __forceinline__ void open(const Chain& chain, int number) {
    product = number;
    if (number >= chain.n_products) return;
    const ChainProduct& at = chain.products[number];
    group = first_group(number), n_groups = at.n_groups, n_units = at.n_units, half_tiles = at.half_tiles, gated = at.gated ? 1 : 0;
    steps = at.n_passes << gated;
    data = static_cast<const char*>(at.p.w.data), rows = at.p.w.rows, row_bytes = at.p.w.stride * 2;
    if constexpr (kFormat != Format::kBF16) {
      scales = static_cast<const char*>(at.p.w.scale), offsets = static_cast<const char*>(at.p.w.offset), layout = at.layout;
      scale_bytes = kTileRows * (kUnitColumns / at.p.w.group) * (at.p.w.half_scales ? 2 : 4);
    }
  }
  /// False at the end.
  __device__ __forceinline__ bool advance(const Chain& chain, int stages) {
    step += stages;
    while (product < chain.n_products) {
      if (group >= n_groups)
        open(chain, product + 1);
      else if (step < steps)
        return true;
      else
        step -= steps, group += static_cast<int>(gridDim.x);
    }
    return false;
  }
  /// Starts the copies of the stage.
  __device__ __forceinline__ void copy(unsigned char* to, sm90::Barrier& full, uint64_t policy) const {
    const int tile = group + (step & gated) * half_tiles, first = (step >> gated) * kStageUnits,
              n = min(kStageUnits, n_units - first);
    if constexpr (kFormat == Format::kBF16) {
      const auto bytes = static_cast<uint32_t>(min(int64_t{n} * 128, row_bytes - first * 128));
      const int last = static_cast<int>(min(int64_t{kTileRows}, rows - int64_t{tile} * kTileRows)) - 1;
      const char* from = data + int64_t{tile} * kTileRows * row_bytes + first * 128;
      full.arrive_expecting(kTileRows * bytes);
#pragma unroll
      for (int row = 0; row < kTileRows; ++row) {
        bulk_copy(to + row * kStageRowBytes, from, bytes, full, policy);
        if (row < last) from += row_bytes;  // Past the end: any row, not stored.
      }
    } else {
      const int64_t at = int64_t{tile} * n_units + first;
      full.arrive_expecting(static_cast<uint32_t>(n * (kCodes + (offsets == nullptr ? 1 : 2) * scale_bytes)));
      bulk_copy(to, data + at * kCodes, static_cast<uint32_t>(n * kCodes), full, policy);
      bulk_copy(to + layout.scales_at, scales + at * scale_bytes, static_cast<uint32_t>(n * scale_bytes), full, policy);
      if (offsets != nullptr)
        bulk_copy(to + layout.offsets_at, offsets + at * scale_bytes, static_cast<uint32_t>(n * scale_bytes), full, policy);
    }
  }
};

/// One lane of a copying warp, from beginning to end. A slot of the ring belongs to one of the warps, and a warp waits for its own slots
/// only: no wait can mistake a phase for the one two before it.
template <Format kFormat>
__device__ __forceinline__ void copy_weights(const Chain& chain, ChainBarriers& barriers, unsigned char* ring, int copier) {
  const uint64_t policy = read_once_policy();
  const int n_stages = chain.n_stages, n_own = (n_stages - copier + kWeightCopiers - 1) / kWeightCopiers,
            ahead = min(max(chain.in_flight / kWeightCopiers, 1), n_own);
  int own = 0;  // Slot copier + own * kWeightCopiers.
  uint32_t parity = 0;
  bool first_round = true;
  StageWalk<kFormat> at;
  if (copier < n_stages && at.advance(chain, copier)) {
    for (;;) {
      const int slot = copier + own * kWeightCopiers, before = own - ahead;
      if (!first_round) barriers.empty[slot].wait(parity ^ 1);
      if (before >= 0 || !first_round)
        barriers.weights[copier + (before >= 0 ? before : before + n_own) * kWeightCopiers].wait(before >= 0 ? parity : parity ^ 1);
      at.copy(ring + slot * chain.stage_bytes, barriers.weights[slot], policy);
      const bool wraps = ++own == n_own;
      if (wraps) own = 0, parity ^= 1, first_round = false;
      if (!at.advance(chain, wraps ? n_stages - slot + copier : kWeightCopiers)) break;
    }
  }
  if (copier == 0) let_successor_start();
}

/// One lane of the warp that copies inputs.
template <Format kFormat>
__device__ __forceinline__ void copy_inputs(const Chain& chain, ChainBarriers& barriers, unsigned char* ring) {
  constexpr int kChunks = WeightStage<kFormat>::kChunks;
  int slot = 0;
  uint32_t parity = 0;
  for (int number = 0; number < chain.n_products; ++number) {
    const ChainProduct& product = chain.products[number];
    if (!product.p.is_split) continue;
    barriers.released[number].wait(0);
    asm volatile("fence.proxy.async;" ::: "memory");
    for (int group = first_group(number); group < product.n_groups; group += static_cast<int>(gridDim.x))
      for (int pass = 0; pass < product.n_passes; ++pass) {
        barriers.inputs_empty[slot].wait(parity ^ 1);
        const int unit = pass * kStageUnits, n = min(kStageUnits, product.n_units - unit);
        const auto bytes = static_cast<uint32_t>(n * kChunks * product.p.n_tokens * 128);
        barriers.inputs[slot].arrive_expecting(bytes);
        bulk_copy(ring + slot * chain.input_bytes,
                  static_cast<const char*>(product.p.split_inputs) + int64_t{unit} * kChunks * product.p.n_tokens * 128, bytes,
                  barriers.inputs[slot]);
        if (++slot == kInputSlots) slot = 0, parity ^= 1;
      }
  }
}

/// Where the multiplying warps are in the rings.
struct RingReader {
  int slot = 0, input_slot = 0, buffer = 0;
  uint32_t parity = 0, input_parity = 0;
};
struct ChainMemory {
  unsigned char *ring, *input_ring, *resident;
  float* sums;
};

/// kPlain: quantised with scales of 16 bit and no offsets, which needs fewer registers.
template <Format kFormat, int kNTiles, bool kPlain, int kMTiles, int kSums>
__device__ __forceinline__ void multiply(const Chain& chain, int number, ChainBarriers& barriers, RingReader& reader, float my_factor,
                                         const ChainMemory& memory) {
  using Stage = WeightStage<kFormat>;
  constexpr int kTokens = 4 * kNTiles, kSets = kMTiles * kSums / kChainWarps;  // Partial sums of a warp; stages add to them in turn.
  constexpr bool kInputsFirst = kNTiles == 1;                                  // Before the weights are there; else registers run out.
  const ChainProduct& product = chain.products[number];
  const FewTokenProduct& p = product.p;
  const int n_groups = product.n_groups, n_passes = product.n_passes, n_units = product.n_units, n_tokens = p.n_tokens,
            n_stages = chain.n_stages, stage_bytes = chain.stage_bytes, input_bytes = chain.input_bytes;
  const bool is_split = p.is_split;
  const StageLayout layout = product.layout;
  DeviceTensor w = p.w;
  if constexpr (kPlain) w.half_scales = true, w.offset = nullptr;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, column = lane / 4, token_bytes = column * 64 + lane % 4 * 16,
            chunk_bytes = n_tokens * 128;
  for (int group = first_group(number); group < n_groups; group += static_cast<int>(gridDim.x), reader.buffer ^= 1) {
    float acc[kSets][kNTiles][4] = {};
    const float before = residual_of<kMTiles>(p, group);
    for (int pass = 0; pass < n_passes; pass += kSets / kMTiles) {
#pragma unroll
      for (int set = 0; set < kSets; ++set) {
        const int at = kMTiles == 1 ? pass + set : pass, unit = at * kStageUnits + warp;
        if (at >= n_passes) break;
        if (is_split) barriers.inputs[reader.input_slot].wait(reader.input_parity);
        const unsigned char* from = (is_split ? memory.input_ring + reader.input_slot * input_bytes + warp * Stage::kChunks * chunk_bytes
                                              : memory.resident + unit * Stage::kChunks * chunk_bytes) +
                                    token_bytes;
        const auto inputs = [&](int chunk, int n) -> uint4 {
          if (4 * n + column / 2 >= n_tokens) return uint4{};
          return *reinterpret_cast<const uint4*>(from + chunk * chunk_bytes + n * 512);
        };
        uint4 first[Stage::kChunks];
        if (kInputsFirst && unit < n_units)
#pragma unroll
          for (int chunk = 0; chunk < Stage::kChunks; ++chunk) first[chunk] = inputs(chunk, 0);
        barriers.weights[reader.slot].wait(reader.parity);
        if (unit < n_units) {
          Stage weights;
          weights.load_shared(memory.ring + reader.slot * stage_bytes, layout, w, unit, warp, lane);
          weights.multiply(acc[set], w, [&](int chunk, int n) { return kInputsFirst ? first[chunk] : inputs(chunk, n); });
        }
        __syncwarp();
        if (lane == 0) barriers.empty[reader.slot].arrive();
        if (is_split) {
          if (lane == 0) barriers.inputs_empty[reader.input_slot].arrive();
          if (++reader.input_slot == kInputSlots) reader.input_slot = 0, reader.input_parity ^= 1;
        }
        if (++reader.slot == n_stages) reader.slot = 0, reader.parity ^= 1;
      }
    }
    float* mine = memory.sums + reader.buffer * (2 * kChainWarps * kTileRows * kTokens);
#pragma unroll
    for (int set = 0; set < kSets; ++set)
#pragma unroll
      for (int n = 0; n < kNTiles; ++n) {
        const int part = kMTiles == 1 ? set * kChainWarps + warp : warp * kMTiles + set;  // [part][tile of the group]
        float* to = mine + (part * kTileRows + lane / 4) * kTokens + 4 * n + lane % 4;
        to[0] = acc[set][n][0] + acc[set][n][1];
        to[8 * kTokens] = acc[set][n][2] + acc[set][n][3];
      }
    sm90::named_sync(1, kChainConsumers);  // Before anyone writes `mine` again there is another one of these.
    finish_tiles<kNTiles, kMTiles, kSums, kChainConsumers, true>(p, mine, group, before, [&](int) { return my_factor; });
  }
}

/// Inputs from x, with the norm's weight, to shared memory, when `wait` has returned. Gives the norm's factor of the token for which this
/// thread finishes elements.
template <Format kFormat, typename Wait>
__device__ __forceinline__ float prepare_inputs(const ChainProduct& product, unsigned char* resident, float (*squares)[kChainWarps],
                                                Wait&& wait) {
  const FewTokenProduct& p = product.p;
  const int my_token = min(static_cast<int>(threadIdx.x) / kTileRows, p.n_tokens - 1);
  if (p.is_split) {
    wait();
    return p.factors == nullptr ? 1.0f : p.factors[my_token];
  }
  float4 weights[kChainRowBatch];
  if (p.norm != nullptr) load_batch<kChainConsumers>(weights, p.norm, p.w.cols, 0);
  wait();
  const int64_t padded = int64_t{product.n_units} * WeightStage<kFormat>::kColumns;
  for (int t = 0; t < p.n_tokens; ++t) {
    if (t > 0 && p.norm != nullptr && padded > 4 * kChainRowBatch * kChainConsumers)
      load_batch<kChainConsumers>(weights, p.norm, p.w.cols, 0);
    const float sum = warp_sum(split_row<kFormat, kChainConsumers>(reinterpret_cast<__nv_bfloat16*>(resident) + t * 64, 64 * p.n_tokens,
                                                                   p.x + t * p.w.cols, p.norm, weights, p.w.cols, padded));
    if (threadIdx.x % 32 == 0) squares[t][threadIdx.x / 32] = sum;
  }
  sm90::named_sync(1, kChainConsumers);
  return p.norm == nullptr ? 1.0f : norm_factor(squares[my_token], p.w.cols, p.eps);
}

template <Format kFormat, int kNTiles, bool kPlain>
__device__ __forceinline__ void multiply_all(const Chain& chain, ChainBarriers& barriers, float (*squares)[kChainWarps],
                                             const ChainMemory& memory) {
  RingReader reader;
  unsigned int arrived = 0;
  for (int number = 0; number < chain.n_products; ++number) {
    const ChainProduct& product = chain.products[number];
    const float factor = prepare_inputs<kFormat>(product, memory.resident, squares, [&] {
      if (number == 0) {
        wait_for_predecessor();
      } else {
        if (threadIdx.x == 0) grid_wait(chain.barrier, arrived);
        sm90::named_sync(1, kChainConsumers);
      }
      if (threadIdx.x == 0) barriers.released[number].arrive();
      if (threadIdx.x == 0) STAMP(product.p.stamp, 1);
    });
    if (threadIdx.x == 0) STAMP(product.p.stamp, 2);
    if (product.gated)
      multiply<kFormat, kNTiles, kPlain, 2, 8>(chain, number, barriers, reader, factor, memory);
    else if (product.wide)
      multiply<kFormat, kNTiles, kPlain, 1, 16>(chain, number, barriers, reader, factor, memory);
    else
      multiply<kFormat, kNTiles, kPlain, 1, 8>(chain, number, barriers, reader, factor, memory);
    if (threadIdx.x == 0) STAMP(product.p.stamp, 3);
    if (number + 1 == chain.n_products) break;
    sm90::named_sync(1, kChainConsumers);
    if (threadIdx.x == 0) arrived = grid_arrive(chain.barrier, chain.products[number + 1].p.is_split);
  }
}

template <Format kFormat, int kNTiles, bool kPlain>
__global__ void __launch_bounds__(kChainThreads, 1) chain_kernel(const __grid_constant__ Chain chain) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) unsigned char chain_shared[];  // Copies that do not end on 128 bytes are cut in two.
  __shared__ ChainBarriers barriers;
  __shared__ float squares[kChainTokens][kChainWarps];
  ChainMemory memory;
  memory.ring = chain_shared;
  memory.input_ring = memory.ring + chain.n_stages * chain.stage_bytes;
  memory.resident = memory.input_ring + kInputSlots * chain.input_bytes;
  memory.sums = reinterpret_cast<float*>(memory.resident + chain.resident_bytes);
  const int warp = sm90::uniform(threadIdx.x / 32), lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < chain.n_stages; ++i) barriers.weights[i].init(1), barriers.empty[i].init(kChainWarps);
    for (int i = 0; i < kInputSlots; ++i) barriers.inputs[i].init(1), barriers.inputs_empty[i].init(kChainWarps);
    for (sm90::Barrier& released : barriers.released) released.init(1);
    sm90::fence_barrier_init();
  }
  if (threadIdx.x == 0) STAMP(chain.products[0].p.stamp, 0);
  touch_parameters(chain);
  __syncthreads();
  if (warp < kChainWarps)
    multiply_all<kFormat, kNTiles, kPlain>(chain, barriers, squares, memory);
  else if (lane == 0 && warp < kChainWarps + kWeightCopiers)
    copy_weights<kFormat>(chain, barriers, memory.ring, warp - kChainWarps);
  else if (lane == 0)
    copy_inputs<kFormat>(chain, barriers, memory.input_ring);
#endif
}

}  // namespace minillm::cuda
