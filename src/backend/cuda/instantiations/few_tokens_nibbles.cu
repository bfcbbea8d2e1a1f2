// few_tokens_nibbles.cu - the few-token product of one storage format.
#include "backend/cuda/few_tokens_launch.cuh"

namespace minillm::cuda {

template void few_token_product_in<Format::kNibbles>(FewTokenProduct, cudaStream_t);

}  // namespace minillm::cuda
