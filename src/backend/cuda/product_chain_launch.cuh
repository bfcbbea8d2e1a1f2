// product_chain_launch.cuh - a chain's plan and launch for one storage format; each format is compiled in a file of its own.
#pragma once

#include <algorithm>
#include <span>

#include "backend/cuda/device/product_chain.cuh"
#include "backend/cuda/few_tokens_launch.cuh"

namespace minillm::cuda {

/// Of a block, nearly all a multiprocessor has: the ring is what keeps memory busy while results go around.
constexpr int kChainShared = 226 * 1024, kChainInFlight = 64 * 1024;

template <Format kFormat>
ChainProduct plan_product(const FewTokenProduct& p) {
  using Stage = WeightStage<kFormat>;
  ChainProduct product;
  product.p = p;
  product.gated = p.epilogue == Epilogue::kGated;
  product.wide = is_wide(p);
  const auto n_tiles = static_cast<int>((p.w.rows + kTileRows - 1) / kTileRows);
  product.half_tiles = n_tiles / 2;
  product.n_groups = product.gated ? product.half_tiles : n_tiles;
  product.n_units = static_cast<int>((p.w.stride + Stage::kColumns - 1) / Stage::kColumns);
  product.n_passes = (product.n_units + kStageUnits - 1) / kStageUnits;
  if constexpr (kFormat != Format::kBF16) {
    product.layout.scales_at = kStageUnits * kTileRows * kUnitColumns / (kFormat == Format::kNibbles ? 2 : 1);
    product.layout.offsets_at = product.layout.scales_at + kStageUnits * kTileRows * (kUnitColumns / p.w.group) * (p.w.half_scales ? 2 : 4);
  }
  return product;
}

/// Bytes of a stage's weights.
template <Format kFormat>
int stage_weight_bytes(const ChainProduct& product) {
  if constexpr (kFormat == Format::kBF16) return kTileRows * kStageRowBytes;
  const int scales = product.layout.offsets_at - product.layout.scales_at;
  return product.layout.offsets_at + (product.p.w.offset == nullptr ? 0 : scales);
}

template <Format kFormat, bool kPlain>
void launch_chain(Chain& chain, cudaStream_t stream) {
  const auto kernel = chain_kernel<kFormat, kPlain>;
  const int fixed = chain.resident_bytes + kInputSlots * chain.input_bytes + 2 * kChainSums * static_cast<int>(sizeof(float));
  chain.n_stages = std::clamp((kChainShared - 1024 - fixed) / chain.stage_bytes, 3, kMostStages);
  chain.in_flight = std::clamp(kChainInFlight / chain.stage_bytes, kWeightCopiers, chain.n_stages);
  const size_t shared = static_cast<size_t>(chain.n_stages * chain.stage_bytes + fixed);
  allow_shared(kernel, shared);
  launch(kernel, static_cast<unsigned>(multiprocessors()), kChainThreads, shared, stream, chain);
}

template <Format kFormat>
void product_chain_in(std::span<const FewTokenProduct> products, unsigned int* barrier, cudaStream_t stream) {
  using Stage = WeightStage<kFormat>;
  Chain chain;
  chain.barrier = barrier;
  const int n_tokens = products[0].n_tokens;
  for (const FewTokenProduct& p : products) {
    ChainProduct& product = chain.products[chain.n_products++];
    product = plan_product<kFormat>(p);
    chain.stage_bytes = std::max(chain.stage_bytes, stage_weight_bytes<kFormat>(product));
    if (p.is_split)
      chain.input_bytes = kStageUnits * Stage::kChunks * 128 * n_tokens;
    else
      chain.resident_bytes = std::max(chain.resident_bytes, product.n_units * Stage::kColumns * 4 * n_tokens);
  }
  if constexpr (kFormat == Format::kNibbles || kFormat == Format::kBytes)
    if (std::ranges::all_of(products, [](const FewTokenProduct& p) { return p.w.half_scales && p.w.offset == nullptr; }))
      return launch_chain<kFormat, true>(chain, stream);
  launch_chain<kFormat, false>(chain, stream);
}

extern template void product_chain_in<Format::kBF16>(std::span<const FewTokenProduct>, unsigned int*, cudaStream_t);
extern template void product_chain_in<Format::kNibbles>(std::span<const FewTokenProduct>, unsigned int*, cudaStream_t);
extern template void product_chain_in<Format::kBytes>(std::span<const FewTokenProduct>, unsigned int*, cudaStream_t);
extern template void product_chain_in<Format::kBytes16>(std::span<const FewTokenProduct>, unsigned int*, cudaStream_t);

}  // namespace minillm::cuda
