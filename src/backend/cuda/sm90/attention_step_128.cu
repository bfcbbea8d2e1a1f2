// attention_step_128.cu - the Hopper attention kernel for heads of 128 elements.
#include "backend/cuda/sm90/attention_step.cuh"

namespace minillm::cuda::sm90 {

void step_attention_128(const StepAttention& p, cudaStream_t stream) { launch_for_type<128, 2, 128>(p, stream); }

}  // namespace minillm::cuda::sm90
