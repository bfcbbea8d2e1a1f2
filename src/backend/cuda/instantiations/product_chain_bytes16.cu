// product_chain_bytes16.cu - chains of products of one storage format.
#include "backend/cuda/product_chain_launch.cuh"

namespace minillm::cuda {

template void product_chain_in<Format::kBytes16>(std::span<const FewTokenProduct>, unsigned int*, cudaStream_t);

}  // namespace minillm::cuda
