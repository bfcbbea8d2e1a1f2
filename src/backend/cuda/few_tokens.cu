// few_tokens.cu - products of 1 to 64 tokens with bf16 and quantised weights: which format, and how much scratch.
#include "backend/cuda/check.h"
#include "backend/cuda/few_tokens_launch.cuh"

namespace minillm::cuda {

int multiprocessors() {
  int device = 0, n = 0;
  MINILLM_CUDA(cudaGetDevice(&device));
  MINILLM_CUDA(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device));
  return n;
}

bool takes_few_tokens(const DeviceTensor& w) { return w.codes != DeviceTensor::Codes::kF32 && w.codes != DeviceTensor::Codes::kF16; }

void few_token_product(const FewTokenProduct& p, cudaStream_t stream) {
  if (p.n_tokens == 0 || p.w.rows == 0) return;
  if (p.n_tokens > kFewTokens) throw Error(ErrorCode::kInternal, "few_token_product: ", p.n_tokens, " tokens, at most ", kFewTokens);
  switch (p.w.codes) {
    case DeviceTensor::Codes::kBF16:
      return few_token_product_in<Format::kBF16>(p, stream);
    case DeviceTensor::Codes::kNibbles:
      return few_token_product_in<Format::kNibbles>(p, stream);
    case DeviceTensor::Codes::kBytes:
      return p.w.group == 16 ? few_token_product_in<Format::kBytes16>(p, stream) : few_token_product_in<Format::kBytes>(p, stream);
    default:
      throw Error(ErrorCode::kInternal, "few_token_product: a float32 or float16 weight");
  }
}

}  // namespace minillm::cuda
