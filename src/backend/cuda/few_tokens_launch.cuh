// few_tokens_launch.cuh - choice of the instantiation for one storage format; each format is compiled in a file of its own.
#pragma once

#include <algorithm>

#include "backend/cuda/device/few_tokens.cuh"

namespace minillm::cuda {

int multiprocessors();  ///< Of the current device.

/// Long rows without a norm are summed in 16 parts, whatever the number of tokens.
inline bool is_wide(const FewTokenProduct& p) { return p.w.cols > 4096 && p.norm == nullptr && p.epilogue != Epilogue::kGated; }

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

template <Format kFormat>
void split_inputs(FewTokenProduct& p, cudaStream_t stream) {
  const int64_t padded = (p.w.stride + kUnitColumns - 1) / kUnitColumns * kUnitColumns;
  auto* split = static_cast<__nv_bfloat16*>(p.split_inputs);
  auto* factors = reinterpret_cast<float*>(split + 2 * padded * p.n_tokens);
  launch(split_kernel<kFormat>, static_cast<unsigned>(p.n_tokens), kSplitThreads, 0, stream, split, factors, p.x, p.norm, p.eps, p.w.cols,
         padded);
  p.factors = p.norm == nullptr ? nullptr : factors;
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
  const bool gated = p.epilogue == Epilogue::kGated, wide = is_wide(p);
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
