// few_tokens.cuh - out[t, n] = sum_k x[t, k] w[n, k] for 1 to 64 tokens: the weight is read once, at the memory's speed.
// A block owns tiles of 16 rows (two tiles where kMTiles is 2); its eight warps share the columns, each keeping kDepth units in
// flight, and add their sums in warp order through shared memory. Blocks stay and take the next tile; its first loads are issued
// before the sums of this one are added, and the very first before the predecessor kernel has ended.
// The order over k is the same for every number of tokens, so a token's result does not depend on its company.
// Weights feed the matrix instruction's 16 rows and tokens its 8 columns, four at a time (weight_stage.cuh).
// Cost: the weight's bytes / memory bandwidth up to about 32 tokens.
#pragma once

#include <cmath>

#include "backend/cuda/device/activate.cuh"
#include "backend/cuda/device/launch.cuh"
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/device/weight_stage.cuh"

namespace minillm::cuda {

constexpr int kProductWarps = 8, kWideProductWarps = 16;  ///< Wide: for long rows, where tiles are few.
constexpr int kSplitThreads = 32 * kProductWarps;

/// The part of a row that a thread works on at a time: float4 number threadIdx.x + i * kThreads. All loads are issued before the first
/// is used: a row comes from L2, and one wait for each of its elements would take longer than the weights. Past the L1 cache, which may
/// hold what a row was before the last product of a chain.
constexpr int kRowBatch = 2;
template <int kThreads, int kBatch>
__device__ __forceinline__ void load_batch(float4 (&batch)[kBatch], const float* x, int64_t n, int64_t first) {
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    const int64_t at = 4 * (first + threadIdx.x + i * kThreads);
    if (at + 3 < n && reinterpret_cast<uintptr_t>(x) % 16 == 0) {
      batch[i] = __ldcg(reinterpret_cast<const float4*>(x + at));
    } else {
      batch[i] = {at < n ? __ldcg(x + at) : 0.0f, at + 1 < n ? __ldcg(x + at + 1) : 0.0f, at + 2 < n ? __ldcg(x + at + 2) : 0.0f,
                  at + 3 < n ? __ldcg(x + at + 3) : 0.0f};
    }
  }
}

/// Stores four neighbours, the first at element e of a chunk (a multiple of 4), as high and low parts.
template <Format kFormat>
__device__ __forceinline__ void store_split(__nv_bfloat16* chunk, int e, const float4& v) {
  const float high[4] = {__bfloat162float(__float2bfloat16_rn(v.x)), __bfloat162float(__float2bfloat16_rn(v.y)),
                         __bfloat162float(__float2bfloat16_rn(v.z)), __bfloat162float(__float2bfloat16_rn(v.w))};
  const float low[4] = {v.x - high[0], v.y - high[1], v.z - high[2], v.w - high[3]};
  __nv_bfloat16* to = chunk + input_place<kFormat>(e);
  if constexpr (kFormat == Format::kNibbles) {  // Neighbours stand two apart.
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      to[2 * i] = __float2bfloat16_rn(high[i]);
      to[2 * i + 32] = __float2bfloat16_rn(low[i]);
    }
  } else {
    *reinterpret_cast<uint2*>(to) = {pack2<__nv_bfloat16>(high[0], high[1]), pack2<__nv_bfloat16>(high[2], high[3])};
    *reinterpret_cast<uint2*>(to + 32) = {pack2<__nv_bfloat16>(low[0], low[1]), pack2<__nv_bfloat16>(low[2], low[3])};
  }
}

/// Writes row x, times the norm's weight where there is one, as high and low parts: chunk c of 32 begins at out + c * chunk_stride, its
/// low part 32 elements behind. Returns the sum of this thread's squares of x: the norm's factor is applied to the product's sums.
/// `weights`: the norm's first batch on entry, its last one after.
template <Format kFormat, int kThreads, int kBatch>
__device__ __forceinline__ float split_row(__nv_bfloat16* out, int64_t chunk_stride, const float* x, const float* norm,
                                           float4 (&weights)[kBatch], int64_t n, int64_t padded) {
  float sum = 0.0f;
  for (int64_t first = 0; 4 * first < padded; first += kBatch * kThreads) {
    float4 batch[kBatch];
    load_batch<kThreads>(batch, x, n, first);
    if (norm != nullptr && first != 0) load_batch<kThreads>(weights, norm, n, first);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int64_t at = 4 * (first + threadIdx.x + i * kThreads);
      if (at >= padded) break;
      float4 v = batch[i];
      sum += v.x * v.x + v.y * v.y + (v.z * v.z + v.w * v.w);
      if (norm != nullptr) v = {weights[i].x * v.x, weights[i].y * v.y, weights[i].z * v.z, weights[i].w * v.w};
      store_split<kFormat>(out + at / 32 * chunk_stride, static_cast<int>(at % 32), v);
    }
  }
  return sum;
}

/// The norm's factor from the warps' sums of squares; the same bits wherever it is computed.
__device__ __forceinline__ float norm_factor(const float* squares, int64_t n, float eps) {
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < kProductWarps; ++w) sum += squares[w];
  return 1.0f / sqrtf(sum / static_cast<float>(n) + eps);
}

/// [chunk][token][part][32]: a warp's inputs of a chunk and four tokens are 512 bytes in a row. Then the norm's factors, [token].
template <Format kFormat>
__global__ void __launch_bounds__(kSplitThreads)
    split_kernel(__nv_bfloat16* out, float* factors, const float* x, const float* norm, float eps, int64_t n, int64_t padded) {
  __shared__ float squares[kProductWarps];
  let_successor_start();
  float4 weights[kRowBatch];
  if (norm != nullptr) load_batch<kSplitThreads>(weights, norm, n, 0);
  wait_for_predecessor();
  const float sum = warp_sum(
      split_row<kFormat, kSplitThreads>(out + blockIdx.x * 64, int64_t{gridDim.x} * 64, x + blockIdx.x * n, norm, weights, n, padded));
  if (threadIdx.x % 32 == 0) squares[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) factors[blockIdx.x] = norm == nullptr ? 1.0f : norm_factor(squares, n, eps);
}

/// Units in flight for each warp: as many as registers hold.
template <Format kFormat, int kNTiles, int kMTiles>
constexpr int kProductDepth = kFormat == Format::kBF16 ? (kNTiles* kMTiles == 1    ? 4
                                                          : kNTiles * kMTiles <= 8 ? 2
                                                                                   : 1)
                                                       : (kMTiles == 1 && kNTiles <= 2 ? 2 : 1);
template <int kNTiles, int kMTiles, int kWarps>
constexpr int kProductBlocks = kNTiles* kMTiles >= 4 || kWarps == kWideProductWarps ? 1 : 2;  ///< A multiprocessor.

/// Floats of one set of the warps' sums; there are two.
template <int kNTiles, int kMTiles, int kWarps>
constexpr int kProductSums = kWarps* kMTiles* kTileRows * 4 * kNTiles;

/// Element n of a token's inputs of the product with p.next.
__device__ __forceinline__ void store_split_one(const FewTokenProduct& p, int token, int64_t n, float value) {
  const int e = static_cast<int>(n % 32);
  int place = input_place<Format::kBytes>(e);
  if (p.next.codes == DeviceTensor::Codes::kBF16) place = e;
  if (p.next.codes == DeviceTensor::Codes::kNibbles) place = input_place<Format::kNibbles>(e);
  __nv_bfloat16* to = static_cast<__nv_bfloat16*>(p.split_out) + (n / 32 * p.n_tokens + token) * 64 + place;
  const __nv_bfloat16 high = __float2bfloat16_rn(value);
  to[0] = high;
  to[32] = __float2bfloat16_rn(value - __bfloat162float(high));
}

/// kAdd: the first element that this thread will add to in finish_tiles; loaded early, since it comes from L2. With many tokens the
/// registers serve better for other things.
template <int kNTiles>
constexpr bool kResidualEarly = kNTiles == 1;
template <int kMTiles>
__device__ __forceinline__ float residual_of(const FewTokenProduct& p, int64_t group) {
  const int i = threadIdx.x, row = i % kTileRows, m = i / kTileRows % kMTiles, token = i / (kMTiles * kTileRows);
  const int64_t n = (group * kMTiles + m) * kTileRows + row;
  return p.epilogue == Epilogue::kAdd && token < p.n_tokens && n < p.w.rows ? __ldcg(p.out + token * p.out_stride + p.w.first_row + n)
                                                                            : 0.0f;
}

/// Adds the kSums partial sums of the tiles of `group` and applies the norm's factor and the epilogue. `sums`: [part][tile][row][token].
/// `before`: what residual_of gave, where kEarly.
template <int kNTiles, int kMTiles, int kSums, int kThreads, bool kEarly, typename Factor>
__device__ __forceinline__ void finish_tiles(const FewTokenProduct& p, const float* sums, int64_t group, float before, Factor&& factor) {
  constexpr int kTokens = 4 * kNTiles, kPart = kMTiles * kTileRows * kTokens;
  const auto total = [&](int m, int row, int token) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kSums; ++w) sum += sums[w * kPart + (m * kTileRows + row) * kTokens + token];
    return sum * factor(token);
  };
  if (p.epilogue == Epilogue::kGated) {
    for (int i = threadIdx.x; i < kTileRows * p.n_tokens; i += kThreads) {
      const int row = i % kTileRows, token = i / kTileRows;
      const float value = activate(total(0, row, token), p.gelu) * total(kMTiles - 1, row, token);
      if (p.split_out == nullptr)
        p.out[token * p.out_stride + group * kTileRows + row] = value;
      else
        store_split_one(p, token, group * kTileRows + row, value);
    }
    return;
  }
  for (int i = threadIdx.x; i < kMTiles * kTileRows * p.n_tokens; i += kThreads) {
    const int row = i % kTileRows, m = i / kTileRows % kMTiles, token = i / (kMTiles * kTileRows);
    const int64_t n = (group * kMTiles + m) * kTileRows + row;
    if (n >= p.w.rows) continue;
    float* out = p.out + token * p.out_stride + p.w.first_row + n;
    if (p.epilogue == Epilogue::kAdd)
      *out = (kEarly && i < kThreads ? before : *out) + total(m, row, token);
    else
      *out = total(m, row, token);
  }
}

template <Format kFormat, int kNTiles, int kMTiles, bool kOneToken, int kWarps>
__global__ void __launch_bounds__(32 * kWarps, (kProductBlocks<kNTiles, kMTiles, kWarps>))
    few_token_kernel(const __grid_constant__ FewTokenProduct p, int64_t n_groups, int64_t half_tiles) {
  using Stage = WeightStage<kFormat>;
  constexpr int kDepth = kProductDepth<kFormat, kNTiles, kMTiles>, kTokens = 4 * kNTiles;
  /// Inputs of other tokens' products come from L2: for few of them they travel in the ring with the weights.
  constexpr bool kInputsAhead = kFormat == Format::kBF16 && !kOneToken && kNTiles * kMTiles == 1;
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ float squares[kWarps];
  auto* sums = reinterpret_cast<float*>(shared);
  auto* split = shared + 2 * kProductSums<kNTiles, kMTiles, kWarps> * sizeof(float);  // kOneToken: [chunk][part][32]
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int n_units = static_cast<int>((p.w.stride + Stage::kColumns - 1) / Stage::kColumns);
  const int n_rounds = (n_units + kWarps * kDepth - 1) / (kWarps * kDepth);
  const int64_t last_tile = (p.w.rows - 1) / kTileRows;

  Stage stages[kDepth][kMTiles];
  const auto load = [&](Stage(&stage)[kMTiles], int64_t group, int unit) {
    if (unit >= n_units || group >= n_groups) return;
#pragma unroll
    for (int m = 0; m < kMTiles; ++m) {
      const int64_t tile = p.epilogue == Epilogue::kGated ? group + m * half_tiles : min(group * kMTiles + m, last_tile);
      stage[m].load(p.w, tile, unit, lane);
    }
  };
#pragma unroll
  for (int d = 0; d < kDepth; ++d) load(stages[d], blockIdx.x, warp + d * kWarps);
  let_successor_start();
  touch_parameters(p);
  if constexpr (kOneToken) {
    float4 weights[kRowBatch];
    if (p.norm != nullptr) load_batch<32 * kWarps>(weights, p.norm, p.w.cols, 0);
    wait_for_predecessor();
    const float sum = warp_sum(split_row<kFormat, 32 * kWarps>(reinterpret_cast<__nv_bfloat16*>(split), 64, p.x, p.norm, weights, p.w.cols,
                                                               int64_t{n_units} * Stage::kColumns));
    if (lane == 0) squares[warp] = sum;
    __syncthreads();
  } else {
    wait_for_predecessor();
  }
  const auto inputs = [&](int chunk, int n) -> uint4 {
    const int column = lane / 4;
    if constexpr (kOneToken) return column < 2 ? reinterpret_cast<const uint4*>(split)[(chunk * 2 + column) * 4 + lane % 4] : uint4{};
    const int token = 4 * n + column / 2;
    if (token >= p.n_tokens) return uint4{};
    return static_cast<const uint4*>(p.split_inputs)[((int64_t{chunk} * p.n_tokens + token) * 2 + column % 2) * 4 + lane % 4];
  };
  const auto factor = [&](int token) {
    if constexpr (kOneToken) return p.norm == nullptr ? 1.0f : norm_factor(squares, p.w.cols, p.eps);
    return p.factors == nullptr ? 1.0f : p.factors[token];
  };
  uint4 ahead[kDepth][Stage::kChunks];
  const auto load_inputs = [&](uint4(&to)[Stage::kChunks], int unit) {
    if constexpr (kInputsAhead) {
      if (unit >= n_units) return;
#pragma unroll
      for (int chunk = 0; chunk < Stage::kChunks; ++chunk) to[chunk] = inputs(unit * Stage::kChunks + chunk, 0);
    }
  };
#pragma unroll
  for (int d = 0; d < kDepth; ++d) load_inputs(ahead[d], warp + d * kWarps);

  int buffer = 0;
  for (int64_t group = blockIdx.x; group < n_groups; group += gridDim.x, buffer ^= 1) {
    float acc[kMTiles][kNTiles][4] = {};
    const float before = kResidualEarly<kNTiles> ? residual_of<kMTiles>(p, group) : 0.0f;
    for (int round = 0; round < n_rounds; ++round) {
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        const int unit = warp + (round * kDepth + d) * kWarps;
        if (unit < n_units) {
#pragma unroll
          for (int m = 0; m < kMTiles; ++m)
            stages[d][m].multiply(
                acc[m], p.w, [&](int chunk, int n) { return kInputsAhead ? ahead[d][chunk] : inputs(unit * Stage::kChunks + chunk, n); });
        }
        const bool same_tile = round + 1 < n_rounds;
        const int next = same_tile ? unit + kDepth * kWarps : warp + d * kWarps;
        load(stages[d], same_tile ? group : group + gridDim.x, next);
        load_inputs(ahead[d], next);
      }
    }
    float* mine = sums + buffer * kProductSums<kNTiles, kMTiles, kWarps>;
#pragma unroll
    for (int m = 0; m < kMTiles; ++m)
#pragma unroll
      for (int n = 0; n < kNTiles; ++n) {
        float* to = mine + ((warp * kMTiles + m) * kTileRows + lane / 4) * kTokens + 4 * n + lane % 4;
        to[0] = acc[m][n][0] + acc[m][n][1];
        to[8 * kTokens] = acc[m][n][2] + acc[m][n][3];
      }
    __syncthreads();  // Before anyone writes `mine` again there is another one of these.
    finish_tiles<kNTiles, kMTiles, kWarps, 32 * kWarps, kResidualEarly<kNTiles>>(p, mine, group, before, factor);
  }
}

}  // namespace minillm::cuda
