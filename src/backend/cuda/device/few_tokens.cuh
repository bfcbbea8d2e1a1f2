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

constexpr int kProductWarps = 8, kProductThreads = 32 * kProductWarps;

/// The part of a row that a thread works on at a time: float4 number threadIdx.x + i * kProductThreads. All loads are issued before the
/// first is used: a row comes from L2, and one wait for each of its elements would take longer than the weights.
constexpr int kRowBatch = 4;
__device__ __forceinline__ void load_batch(float4 (&batch)[kRowBatch], const float* x, int64_t n, int64_t first) {
#pragma unroll
  for (int i = 0; i < kRowBatch; ++i) {
    const int64_t at = 4 * (first + threadIdx.x + i * kProductThreads);
    if (at + 3 < n && reinterpret_cast<uintptr_t>(x) % 16 == 0) {
      batch[i] = *reinterpret_cast<const float4*>(x + at);
    } else {
      batch[i] = {at < n ? x[at] : 0.0f, at + 1 < n ? x[at + 1] : 0.0f, at + 2 < n ? x[at + 2] : 0.0f, at + 3 < n ? x[at + 3] : 0.0f};
    }
  }
}

/// 1 / sqrt(mean of squares + eps) of a row, in one order for all kernels that norm; every thread of kProductThreads calls it.
__device__ __forceinline__ float rms_factor(const float* x, int64_t n, float eps) {
  float sum = 0.0f;
  for (int64_t first = 0; 4 * first < n; first += kRowBatch * kProductThreads) {
    float4 batch[kRowBatch];
    load_batch(batch, x, n, first);
#pragma unroll
    for (const float4& v : batch) sum += v.x * v.x + v.y * v.y + (v.z * v.z + v.w * v.w);
  }
  return 1.0f / sqrtf(block_sum<kProductThreads>(sum) / static_cast<float>(n) + eps);
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

/// Writes row x as high and low parts: chunk c of 32 begins at out + c * chunk_stride, its low part 32 elements behind.
template <Format kFormat>
__device__ __forceinline__ void split_row(__nv_bfloat16* out, int64_t chunk_stride, const float* x, const float* norm, float eps, int64_t n,
                                          int64_t padded) {
  const float factor = norm == nullptr ? 1.0f : rms_factor(x, n, eps);
  for (int64_t first = 0; 4 * first < padded; first += kRowBatch * kProductThreads) {
    float4 batch[kRowBatch], weights[kRowBatch];
    load_batch(batch, x, n, first);
    if (norm != nullptr) load_batch(weights, norm, n, first);
#pragma unroll
    for (int i = 0; i < kRowBatch; ++i) {
      const int64_t at = 4 * (first + threadIdx.x + i * kProductThreads);
      if (at >= padded) break;
      float4 v = batch[i];
      if (norm != nullptr)
        v = {weights[i].x * (v.x * factor), weights[i].y * (v.y * factor), weights[i].z * (v.z * factor), weights[i].w * (v.w * factor)};
      store_split<kFormat>(out + at / 32 * chunk_stride, static_cast<int>(at % 32), v);
    }
  }
}

/// [chunk][token][part][32]: a warp's inputs of a chunk and four tokens are 512 bytes in a row.
template <Format kFormat>
__global__ void __launch_bounds__(kProductThreads)
    split_kernel(__nv_bfloat16* out, const float* x, const float* norm, float eps, int64_t n, int64_t padded) {
  let_successor_start();
  wait_for_predecessor();
  split_row<kFormat>(out + blockIdx.x * 64, int64_t{gridDim.x} * 64, x + blockIdx.x * n, norm, eps, n, padded);
}

/// Units in flight for each warp: as many as registers hold.
template <Format kFormat, int kNTiles, int kMTiles>
constexpr int kProductDepth = kFormat == Format::kBF16 ? (kNTiles* kMTiles == 1    ? 4
                                                          : kNTiles * kMTiles <= 8 ? 2
                                                                                   : 1)
                                                       : (kMTiles == 1 && kNTiles <= 2 ? 2 : 1);
template <int kNTiles, int kMTiles>
constexpr int kProductBlocks = kNTiles* kMTiles >= 4 ? 1 : 2;  ///< A multiprocessor.

/// Floats of one set of the warps' sums; there are two.
template <int kNTiles, int kMTiles>
constexpr int kProductSums = kProductWarps* kMTiles* kTileRows * 4 * kNTiles;

/// Adds the warps' sums of the tiles of `group` and applies the epilogue. `sums`: [warp][tile][row][token].
template <int kNTiles, int kMTiles>
__device__ __forceinline__ void finish_tiles(const FewTokenProduct& p, const float* sums, int64_t group) {
  constexpr int kTokens = 4 * kNTiles, kPart = kMTiles * kTileRows * kTokens;
  const auto total = [&](int m, int row, int token) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kProductWarps; ++w) sum += sums[w * kPart + (m * kTileRows + row) * kTokens + token];
    return sum;
  };
  if (p.epilogue == Epilogue::kGated) {
    for (int i = threadIdx.x; i < kTileRows * p.n_tokens; i += kProductThreads) {
      const int row = i % kTileRows, token = i / kTileRows;
      p.out[token * p.out_stride + group * kTileRows + row] = activate(total(0, row, token), p.gelu) * total(kMTiles - 1, row, token);
    }
    return;
  }
  for (int i = threadIdx.x; i < kMTiles * kTileRows * p.n_tokens; i += kProductThreads) {
    const int row = i % kTileRows, m = i / kTileRows % kMTiles, token = i / (kMTiles * kTileRows);
    const int64_t n = (group * kMTiles + m) * kTileRows + row;
    if (n >= p.w.rows) continue;
    float* out = p.out + token * p.out_stride + p.w.first_row + n;
    *out = p.epilogue == Epilogue::kAdd ? *out + total(m, row, token) : total(m, row, token);
  }
}

template <Format kFormat, int kNTiles, int kMTiles, bool kOneToken>
__global__ void __launch_bounds__(kProductThreads, (kProductBlocks<kNTiles, kMTiles>))
    few_token_kernel(const __grid_constant__ FewTokenProduct p, int64_t n_groups, int64_t half_tiles) {
  using Stage = WeightStage<kFormat>;
  constexpr int kDepth = kProductDepth<kFormat, kNTiles, kMTiles>;
  extern __shared__ __align__(16) unsigned char shared[];
  auto* sums = reinterpret_cast<float*>(shared);
  auto* split = shared + 2 * kProductSums<kNTiles, kMTiles> * sizeof(float);  // kOneToken: [chunk][part][32]
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int n_units = static_cast<int>((p.w.stride + Stage::kColumns - 1) / Stage::kColumns);
  const int n_rounds = (n_units + kProductWarps * kDepth - 1) / (kProductWarps * kDepth);
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
  for (int d = 0; d < kDepth; ++d) load(stages[d], blockIdx.x, warp + d * kProductWarps);
  let_successor_start();
  wait_for_predecessor();
  if constexpr (kOneToken) {
    split_row<kFormat>(reinterpret_cast<__nv_bfloat16*>(split), 64, p.x, p.norm, p.eps, p.w.cols, int64_t{n_units} * Stage::kColumns);
    __syncthreads();
  }
  const auto inputs = [&](int chunk, int n) -> uint4 {
    const int column = lane / 4;
    if constexpr (kOneToken) return column < 2 ? reinterpret_cast<const uint4*>(split)[(chunk * 2 + column) * 4 + lane % 4] : uint4{};
    const int token = 4 * n + column / 2;
    if (token >= p.n_tokens) return uint4{};
    return static_cast<const uint4*>(p.split_inputs)[((int64_t{chunk} * p.n_tokens + token) * 2 + column % 2) * 4 + lane % 4];
  };

  int buffer = 0;
  for (int64_t group = blockIdx.x; group < n_groups; group += gridDim.x, buffer ^= 1) {
    float acc[kMTiles][kNTiles][4] = {};
    for (int round = 0; round < n_rounds; ++round) {
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        const int unit = warp + (round * kDepth + d) * kProductWarps;
        if (unit < n_units) {
#pragma unroll
          for (int m = 0; m < kMTiles; ++m)
            stages[d][m].multiply(acc[m], p.w, [&](int chunk, int n) { return inputs(unit * Stage::kChunks + chunk, n); });
        }
        if (round + 1 < n_rounds)
          load(stages[d], group, unit + kDepth * kProductWarps);
        else
          load(stages[d], group + gridDim.x, warp + d * kProductWarps);
      }
    }
    float* mine = sums + buffer * kProductSums<kNTiles, kMTiles>;
    constexpr int kTokens = 4 * kNTiles;
#pragma unroll
    for (int m = 0; m < kMTiles; ++m)
#pragma unroll
      for (int n = 0; n < kNTiles; ++n) {
        float* to = mine + ((warp * kMTiles + m) * kTileRows + lane / 4) * kTokens + 4 * n + lane % 4;
        to[0] = acc[m][n][0] + acc[m][n][1];
        to[8 * kTokens] = acc[m][n][2] + acc[m][n][3];
      }
    __syncthreads();  // Before anyone writes `mine` again there is another one of these.
    finish_tiles<kNTiles, kMTiles>(p, mine, group);
  }
}

}  // namespace minillm::cuda
