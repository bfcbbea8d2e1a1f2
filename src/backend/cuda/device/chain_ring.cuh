// chain_ring.cuh - how a chain's weights and inputs come into shared memory: one lane each of some warps starts bulk copies into two rings,
// in the order in which they will be used, through all products of the chain.
// Source: PTX ISA 8.x, "cp.async.bulk", "mbarrier".
#pragma once

#include "backend/cuda/device/barrier.cuh"
#include "backend/cuda/device/few_tokens.cuh"

namespace minillm::cuda {

constexpr int kChainProducts = 4, kChainTokens = 4, kMostStages = 16, kInputSlots = 4;
constexpr int kChainWarps = kStageUnits, kChainConsumers = 32 * kChainWarps;  ///< That multiply.
constexpr int kWeightCopiers = 4;                                             ///< Warps: one or two alone are slower than the memory.
constexpr int kChainThreads = kChainConsumers + 32 * (kWeightCopiers + 1);
constexpr int kChainRowBatch = 4;
constexpr int kChainSums = 2 * kChainWarps * kTileRows * kChainTokens;  ///< Floats of one set of the warps' sums; there are two.

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
  Barrier weights[kMostStages], empty[kMostStages];
  Barrier inputs[kInputSlots], inputs_empty[kInputSlots];
  Barrier released[kChainProducts];  ///< The inputs of this product are there.
};

__device__ __forceinline__ uint64_t read_once_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
/// 16-byte multiples; the bytes count on `barrier`.
__device__ __forceinline__ void bulk_copy(void* to, const void* from, uint32_t bytes, Barrier& barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(&barrier.word))
               : "memory");
}
__device__ __forceinline__ void bulk_copy(void* to, const void* from, uint32_t bytes, Barrier& barrier, uint64_t policy) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(&barrier.word)), "l"(policy)
               : "memory");
}

/// Every second product deals its groups from the other end, so that the blocks that got one more are not always the same.
__device__ __forceinline__ int first_group(int product) {
  return static_cast<int>(product % 2 == 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x);
}

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
  __device__ __forceinline__ void copy(unsigned char* to, Barrier& full, uint64_t policy) const {
    const int tile = group + (step & gated) * half_tiles, first = (step >> gated) * kStageUnits, n = min(kStageUnits, n_units - first);
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

}  // namespace minillm::cuda
