// attention_step_256.cu - the Hopper attention kernel for heads of 256 elements.
#include "backend/cuda/sm90/attention_step.cuh"

namespace minillm::cuda::sm90 {

void step_attention_256(const StepAttention& p, cudaStream_t stream) { launch_for_type<256, 2, 64>(p, stream); }

}  // namespace minillm::cuda::sm90
