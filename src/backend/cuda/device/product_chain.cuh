// product_chain.cuh - up to four products for up to 4 tokens as one kernel, each using the results of the one before: out, gate and up,
// down, and the next layer's q/k/v. One block a multiprocessor; its copying warps run through the weights of all products without
// a pause, into a ring of shared memory, while the multiplying warps wait for each other between two products (grid_barrier).
// So memory is busy while results go around, which takes 2 to 3 us a product. Needs the bulk copy engine of sm_90.
// Inputs overtake weights: at most `in_flight` stages are on their way at a time.
// Work:    a block takes groups of one tile of 16 rows (two, gate and up, where kMTiles is 2); a stage is eight units of one
//          tile, one for each warp.
// Sums:    bit for bit those of few_tokens.cuh: the same units make the same kSums partial sums, added in the same order.
// Inputs:  computed by each block into shared memory; or, where the product before stored them split, copied stage by stage.
#pragma once

#include "backend/cuda/device/chain_ring.cuh"

namespace minillm::cuda {

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

/// Where the multiplying warps are in the rings.
struct RingReader {
  int slot = 0, input_slot = 0, buffer = 0;
  uint32_t parity = 0, input_parity = 0;
};
struct ChainMemory {
  unsigned char *ring, *input_ring, *resident;
  float* sums;
};

/// A stage of a tile: the warp's unit of it, where it has one.
template <Format kFormat>
__device__ __forceinline__ void multiply_stage(float (&acc)[1][4], const Chain& chain, const ChainProduct& product, const DeviceTensor& w,
                                               ChainBarriers& barriers, RingReader& reader, const ChainMemory& memory, int pass, int warp,
                                               int lane) {
  using Stage = WeightStage<kFormat>;
  const int n_tokens = product.p.n_tokens, chunk_bytes = n_tokens * 128, column = lane / 4, unit = pass * kStageUnits + warp;
  const bool is_split = product.p.is_split, has_unit = unit < product.n_units;
  if (is_split) barriers.inputs[reader.input_slot].wait(reader.input_parity);
  const unsigned char* from = (is_split ? memory.input_ring + reader.input_slot * chain.input_bytes + warp * Stage::kChunks * chunk_bytes
                                        : memory.resident + unit * Stage::kChunks * chunk_bytes) +
                              column * 64 + lane % 4 * 16;
  uint4 inputs[Stage::kChunks];
#pragma unroll
  for (int chunk = 0; chunk < Stage::kChunks; ++chunk)
    inputs[chunk] = has_unit && column / 2 < n_tokens ? *reinterpret_cast<const uint4*>(from + chunk * chunk_bytes) : uint4{};
  barriers.weights[reader.slot].wait(reader.parity);
  if (has_unit) {
    Stage weights;
    weights.load_shared(memory.ring + reader.slot * chain.stage_bytes, product.layout, w, unit, warp, lane);
    weights.multiply(acc, w, [&](int chunk, int) { return inputs[chunk]; });
  }
  __syncwarp();
  if (lane == 0) barriers.empty[reader.slot].arrive();
  if (++reader.slot == chain.n_stages) reader.slot = 0, reader.parity ^= 1;
  if (!is_split) return;
  if (lane == 0) barriers.inputs_empty[reader.input_slot].arrive();
  if (++reader.input_slot == kInputSlots) reader.input_slot = 0, reader.input_parity ^= 1;
}

/// kPlain: quantised with scales of 16 bit and no offsets, which needs fewer registers.
template <Format kFormat, bool kPlain, int kMTiles, int kSums>
__device__ __forceinline__ void multiply(const Chain& chain, int number, ChainBarriers& barriers, RingReader& reader, float my_factor,
                                         const ChainMemory& memory) {
  constexpr int kSets = kMTiles * kSums / kChainWarps;  // Partial sums of a warp; stages add to them in turn.
  const ChainProduct& product = chain.products[number];
  DeviceTensor w = product.p.w;
  if constexpr (kPlain) w.half_scales = true, w.offset = nullptr;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int group = first_group(number); group < product.n_groups; group += static_cast<int>(gridDim.x), reader.buffer ^= 1) {
    float acc[kSets][1][4] = {};
    const float before = residual_of<kMTiles>(product.p, group);
    for (int pass = 0; pass < product.n_passes; pass += kSets / kMTiles)
#pragma unroll
      for (int set = 0; set < kSets; ++set) {
        const int at = kMTiles == 1 ? pass + set : pass;
        if (at >= product.n_passes) break;
        multiply_stage<kFormat>(acc[set], chain, product, w, barriers, reader, memory, at, warp, lane);
      }
    float* mine = memory.sums + reader.buffer * kChainSums;
#pragma unroll
    for (int set = 0; set < kSets; ++set) {
      const int part = kMTiles == 1 ? set * kChainWarps + warp : warp * kMTiles + set;  // [part][tile of the group]
      float* to = mine + (part * kTileRows + lane / 4) * kChainTokens + lane % 4;
      to[0] = acc[set][0][0] + acc[set][0][1];
      to[8 * kChainTokens] = acc[set][0][2] + acc[set][0][3];
    }
    named_sync(1, kChainConsumers);  // Before anyone writes `mine` again there is another one of these.
    finish_tiles<1, kMTiles, kSums, kChainConsumers, true>(product.p, mine, group, before, [&](int) { return my_factor; });
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
  named_sync(1, kChainConsumers);
  return p.norm == nullptr ? 1.0f : norm_factor(squares[my_token], p.w.cols, p.eps);
}

template <Format kFormat, bool kPlain>
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
        named_sync(1, kChainConsumers);
      }
      if (threadIdx.x == 0) barriers.released[number].arrive();
    });
    if (product.gated)
      multiply<kFormat, kPlain, 2, 8>(chain, number, barriers, reader, factor, memory);
    else if (product.wide)
      multiply<kFormat, kPlain, 1, 16>(chain, number, barriers, reader, factor, memory);
    else
      multiply<kFormat, kPlain, 1, 8>(chain, number, barriers, reader, factor, memory);
    if (number + 1 == chain.n_products) break;
    named_sync(1, kChainConsumers);
    if (threadIdx.x == 0) arrived = grid_arrive(chain.barrier, chain.products[number + 1].p.is_split);
  }
}

template <Format kFormat, bool kPlain>
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
  const int warp = uniform(threadIdx.x / 32), lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < chain.n_stages; ++i) barriers.weights[i].init(1), barriers.empty[i].init(kChainWarps);
    for (int i = 0; i < kInputSlots; ++i) barriers.inputs[i].init(1), barriers.inputs_empty[i].init(kChainWarps);
    for (Barrier& released : barriers.released) released.init(1);
    fence_barrier_init();
  }
  touch_parameters(chain);
  __syncthreads();
  if (warp < kChainWarps)
    multiply_all<kFormat, kPlain>(chain, barriers, squares, memory);
  else if (lane == 0 && warp < kChainWarps + kWeightCopiers)
    copy_weights<kFormat>(chain, barriers, memory.ring, warp - kChainWarps);
  else if (lane == 0)
    copy_inputs<kFormat>(chain, barriers, memory.input_ring);
#endif
}

}  // namespace minillm::cuda
