// product_chain.cu - which products join a chain, and in which format it runs.
#include "backend/cuda/check.h"
#include "backend/cuda/product_chain_launch.cuh"

namespace minillm::cuda {
namespace {

/// Less is read so fast that waiting for each other inside a kernel takes longer than the ends of kernels do.
constexpr int64_t kLeastBytes = 48'000'000;
constexpr int64_t kMostInputBytes = 64 * 1024;  ///< Of shared memory; the ring needs the rest.

/// The copy engine came with sm_90; not every GPU since has the shared memory.
bool runs_chains() {
  int device = 0, major = 0, shared = 0;
  MINILLM_CUDA(cudaGetDevice(&device));
  MINILLM_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  MINILLM_CUDA(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return major >= 9 && shared >= kChainShared;
}

}  // namespace

bool joins_chain(const FewTokenProduct& p) {
  if (p.n_tokens < 1 || p.n_tokens > kChainTokens || p.w.rows == 0 || !takes_few_tokens(p.w) || !runs_chains()) return false;
  const int64_t padded = (p.w.stride + kUnitColumns - 1) / kUnitColumns * kUnitColumns;
  if (p.is_split) return p.epilogue != Epilogue::kGated;
  return p.n_tokens * padded * 4 <= kMostInputBytes;
}

bool chains_with(const FewTokenProduct& a, const FewTokenProduct& b) {
  return a.n_tokens == b.n_tokens && a.w.codes == b.w.codes &&
         (a.w.codes != DeviceTensor::Codes::kBytes || (a.w.group == 16) == (b.w.group == 16));
}

bool chain_pays(std::span<const FewTokenProduct> products) {
  int64_t bytes = 0;
  for (const FewTokenProduct& p : products) {
    const int64_t n = p.w.rows * p.w.stride;
    bytes += p.w.codes == DeviceTensor::Codes::kBF16 ? 2 * n : p.w.codes == DeviceTensor::Codes::kBytes ? n : n / 2;
  }
  return bytes >= kLeastBytes;
}

void product_chain(std::span<const FewTokenProduct> products, unsigned int* barrier, cudaStream_t stream) {
  if (products.empty()) return;
  if (products.size() > kChainProducts)
    throw Error(ErrorCode::kInternal, "product_chain: ", products.size(), " products, at most ", kChainProducts);
  switch (products[0].w.codes) {
    case DeviceTensor::Codes::kBF16:
      return product_chain_in<Format::kBF16>(products, barrier, stream);
    case DeviceTensor::Codes::kNibbles:
      return product_chain_in<Format::kNibbles>(products, barrier, stream);
    case DeviceTensor::Codes::kBytes:
      return products[0].w.group == 16 ? product_chain_in<Format::kBytes16>(products, barrier, stream)
                                       : product_chain_in<Format::kBytes>(products, barrier, stream);
    default:
      throw Error(ErrorCode::kInternal, "product_chain: a float32 or float16 weight");
  }
}

}  // namespace minillm::cuda
