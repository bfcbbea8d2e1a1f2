// few_tokens_launch.cuh - choice of the instantiation for one storage format; each format is compiled in a file of its own.
#pragma once

#include <algorithm>

#include "backend/cuda/device/few_tokens.cuh"

namespace minillm::cuda {

int multiprocessors();  ///< Of the current device.

template <Format kFormat, int kNTiles, int kMTiles, bool kOneToken>
void launch_product(const FewTokenProduct& p, cudaStream_t stream) {
  const auto kernel = few_token_kernel<kFormat, kNTiles, kMTiles, kOneToken>;
  const int64_t n_tiles = (p.w.rows + kTileRows - 1) / kTileRows, half_tiles = n_tiles / 2;
  const int64_t n_groups = p.epilogue == Epilogue::kGated ? half_tiles : (n_tiles + kMTiles - 1) / kMTiles;
  const int64_t columns =
      (p.w.stride + WeightStage<kFormat>::kColumns - 1) / WeightStage<kFormat>::kColumns * WeightStage<kFormat>::kColumns;
  const size_t shared = 2 * sizeof(float) * kProductSums<kNTiles, kMTiles> + (kOneToken ? static_cast<size_t>(columns) * 4 : 0);
  allow_shared(kernel, shared);
  const int64_t at_once = multiprocessors() * kProductBlocks<kNTiles, kMTiles>;
  launch(kernel, static_cast<unsigned>(std::min(n_groups, at_once)), kProductThreads, shared, stream, p, n_groups, half_tiles);
}

template <Format kFormat>
void few_token_product_in(const FewTokenProduct& p, cudaStream_t stream) {
  const bool gated = p.epilogue == Epilogue::kGated;
  if (p.n_tokens == 1) return gated ? launch_product<kFormat, 1, 2, true>(p, stream) : launch_product<kFormat, 1, 1, true>(p, stream);
  const int64_t padded = (p.w.stride + 127) / 128 * 128;
  launch(split_kernel<kFormat>, static_cast<unsigned>(p.n_tokens), kProductThreads, 0, stream, static_cast<__nv_bfloat16*>(p.split_inputs),
         p.x, p.norm, p.eps, p.w.cols, padded);
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

extern template void few_token_product_in<Format::kBF16>(const FewTokenProduct&, cudaStream_t);
extern template void few_token_product_in<Format::kNibbles>(const FewTokenProduct&, cudaStream_t);
extern template void few_token_product_in<Format::kBytes>(const FewTokenProduct&, cudaStream_t);
extern template void few_token_product_in<Format::kBytes16>(const FewTokenProduct&, cudaStream_t);

}  // namespace minillm::cuda
