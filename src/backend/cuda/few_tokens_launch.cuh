// few_tokens_launch.cuh - choice of the instantiation for one storage format; each format is compiled in a file of its own.
#pragma once

#include <algorithm>

#include "backend/cuda/device/few_tokens_ring.cuh"

namespace minillm::cuda {

int multiprocessors();   ///< Of the current device.
bool has_copy_engine();  ///< Whether it is of sm_90 or newer.

struct RingTuning {
  bool on = true;
  int shared = 113 * 1024, most_resident = 32 * 1024, in_flight_bytes = 48 * 1024, most_stages = kMostStages;
};
extern RingTuning ring_tuning;

template <Format kFormat, int kNTiles, int kMTiles, bool kOneToken, int kWarps = kProductWarps>
void launch_product(const FewTokenProduct& p, cudaStream_t stream) {
  const auto kernel = few_token_kernel<kFormat, kNTiles, kMTiles, kOneToken, kWarps>;
  const int64_t n_tiles = (p.w.rows + kTileRows - 1) / kTileRows, half_tiles = n_tiles / 2;
  const int64_t n_groups = p.epilogue == Epilogue::kGated ? half_tiles : (n_tiles + kMTiles - 1) / kMTiles;
  constexpr int64_t kColumns = WeightStage<kFormat>::kColumns;
  const int64_t columns = (p.w.stride + kColumns - 1) / kColumns * kColumns;
  const size_t shared = 2 * sizeof(float) * kProductSums<kNTiles, kMTiles, kWarps> + (kOneToken ? static_cast<size_t>(columns) * 4 : 0);
  allow_shared(kernel, shared);
  const int64_t at_once = multiprocessors() * kProductBlocks<kNTiles, kMTiles, kWarps>;
  launch(kernel, static_cast<unsigned>(std::min(n_groups, at_once)), 32 * kWarps, shared, stream, p, n_groups, half_tiles);
}

template <Format kFormat, int kNTiles, int kMTiles, int kSums>
void launch_ring(const FewTokenProduct& p, RingPlan plan, cudaStream_t stream) {
  const auto kernel = ring_kernel<kFormat, kNTiles, kMTiles, kSums>;
  const size_t sums = 2 * sizeof(float) * kSums * kMTiles * kTileRows * 4 * kNTiles;
  const int64_t blocks = std::min<int64_t>(plan.n_groups, multiprocessors());
  const int64_t steps = (plan.n_groups + blocks - 1) / blocks * plan.n_passes * kMTiles;
  const int64_t room = ring_tuning.shared - 2048 - plan.resident_bytes - static_cast<int64_t>(sums);
  plan.n_stages = static_cast<int>(
      std::clamp(room / plan.stage_bytes, int64_t{2}, std::min<int64_t>({kMostStages, ring_tuning.most_stages, std::max<int64_t>(steps, 2)})));
  plan.in_flight = std::clamp(ring_tuning.in_flight_bytes / plan.stage_bytes, 2, plan.n_stages);
  const size_t shared = static_cast<size_t>(plan.resident_bytes + plan.n_stages * plan.stage_bytes) + sums;
  allow_shared(kernel, shared);
  launch(kernel, static_cast<unsigned>(blocks), kRingThreads<kFormat>, shared, stream, p, plan);
}

template <Format kFormat>
void split_inputs(FewTokenProduct& p, cudaStream_t stream) {
  const int64_t padded = (p.w.stride + kUnitColumns - 1) / kUnitColumns * kUnitColumns;
  auto* split = static_cast<__nv_bfloat16*>(p.split_inputs);
  auto* factors = reinterpret_cast<float*>(split + 2 * padded * p.n_tokens);
  launch(split_kernel<kFormat>, static_cast<unsigned>(p.n_tokens), kSplitThreads, 0, stream, split, factors, p.x, p.norm, p.eps, p.w.cols,
         padded);
  p.factors = p.norm == nullptr ? nullptr : factors;
}

/// Up to kRingTokens tokens. `wide`: 16 partial sums.
template <Format kFormat>
void ring_product(FewTokenProduct p, bool wide, cudaStream_t stream) {
  using Stage = WeightStage<kFormat>;
  const bool gated = p.epilogue == Epilogue::kGated;
  const int64_t n_tiles = (p.w.rows + kTileRows - 1) / kTileRows;
  RingPlan plan;
  plan.half_tiles = n_tiles / 2;
  plan.n_groups = gated ? plan.half_tiles : n_tiles;
  plan.n_units = static_cast<int>((p.w.stride + Stage::kColumns - 1) / Stage::kColumns);
  plan.n_passes = (plan.n_units + kStageUnits - 1) / kStageUnits;
  if constexpr (kFormat == Format::kBF16) {
    plan.inputs_at = kTileRows * kStageRowBytes;
  } else {
    const int scales = kStageUnits * kTileRows * (kUnitColumns / p.w.group) * (p.w.half_scales ? 2 : 4);
    plan.layout.scales_at = kStageUnits * kTileRows * kUnitColumns / (kFormat == Format::kNibbles ? 2 : 1);
    plan.layout.offsets_at = plan.layout.scales_at + scales;
    plan.inputs_at = plan.layout.offsets_at + (p.w.offset == nullptr ? 0 : scales);
  }
  const int64_t row_bytes = int64_t{plan.n_units} * Stage::kColumns * 4;
  if ((p.n_tokens == 1 && !p.is_split) || p.n_tokens * row_bytes <= ring_tuning.most_resident) {
    plan.resident_bytes = static_cast<int>(p.n_tokens * row_bytes);
    plan.stage_bytes = plan.inputs_at;
  } else {
    if (!p.is_split) split_inputs<kFormat>(p, stream);
    p.is_split = true;
    plan.stage_bytes = plan.inputs_at + kStageUnits * Stage::kChunks * p.n_tokens * 128;
  }
  if (p.n_tokens <= 4)
    gated  ? launch_ring<kFormat, 1, 2, 8>(p, plan, stream)
    : wide ? launch_ring<kFormat, 1, 1, 16>(p, plan, stream)
           : launch_ring<kFormat, 1, 1, 8>(p, plan, stream);
  else
    gated  ? launch_ring<kFormat, 2, 2, 8>(p, plan, stream)
    : wide ? launch_ring<kFormat, 2, 1, 16>(p, plan, stream)
           : launch_ring<kFormat, 2, 1, 8>(p, plan, stream);
}

/// Long rows without a norm: always with 16 warps, whatever the number of tokens, since the warps decide the order of sums.
template <Format kFormat>
void wide_product(const FewTokenProduct& p, cudaStream_t stream) {
  if (p.n_tokens == 1 && !p.is_split) return launch_product<kFormat, 1, 1, true, kWideProductWarps>(p, stream);
  if (p.n_tokens <= 4) return launch_product<kFormat, 1, 1, false, kWideProductWarps>(p, stream);
  if (p.n_tokens <= 8) return launch_product<kFormat, 2, 1, false, kWideProductWarps>(p, stream);
  if (p.n_tokens <= 16) return launch_product<kFormat, 4, 1, false, kWideProductWarps>(p, stream);
  if (p.n_tokens <= 32) return launch_product<kFormat, 8, 1, false, kWideProductWarps>(p, stream);
  launch_product<kFormat, 16, 1, false, kWideProductWarps>(p, stream);
}

template <Format kFormat>
void few_token_product_in(FewTokenProduct p, cudaStream_t stream) {
  const bool gated = p.epilogue == Epilogue::kGated, wide = p.w.cols > 4096 && p.norm == nullptr && !gated;
  if (ring_tuning.on && p.n_tokens <= kRingTokens && has_copy_engine()) return ring_product<kFormat>(p, wide, stream);
  if (p.n_tokens > 1 && !p.is_split) split_inputs<kFormat>(p, stream);
  if (wide) return wide_product<kFormat>(p, stream);
  if (p.n_tokens == 1 && !p.is_split)
    return gated ? launch_product<kFormat, 1, 2, true>(p, stream) : launch_product<kFormat, 1, 1, true>(p, stream);
  const bool two = gated || (p.n_tokens > 8 && p.n_tokens <= 32 && p.w.rows / 32 >= 2 * multiprocessors());
  if (p.n_tokens <= 4)
    two ? launch_product<kFormat, 1, 2, false>(p, stream) : launch_product<kFormat, 1, 1, false>(p, stream);
  else if (p.n_tokens <= 8)
    two ? launch_product<kFormat, 2, 2, false>(p, stream) : launch_product<kFormat, 2, 1, false>(p, stream);
  else if (p.n_tokens <= 16)
    two ? launch_product<kFormat, 4, 2, false>(p, stream) : launch_product<kFormat, 4, 1, false>(p, stream);
  else if (p.n_tokens <= 32)
    two ? launch_product<kFormat, 8, 2, false>(p, stream) : launch_product<kFormat, 8, 1, false>(p, stream);
  else if (gated)
    throw Error(ErrorCode::kInternal, "few_token_product: a gated product of ", p.n_tokens, " tokens, at most 32");
  else
    launch_product<kFormat, 16, 1, false>(p, stream);
}

extern template void few_token_product_in<Format::kBF16>(FewTokenProduct, cudaStream_t);
extern template void few_token_product_in<Format::kNibbles>(FewTokenProduct, cudaStream_t);
extern template void few_token_product_in<Format::kBytes>(FewTokenProduct, cudaStream_t);
extern template void few_token_product_in<Format::kBytes16>(FewTokenProduct, cudaStream_t);

}  // namespace minillm::cuda
