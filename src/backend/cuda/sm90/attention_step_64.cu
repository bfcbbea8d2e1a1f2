// attention_step_64.cu - the Hopper attention kernel for heads of 64 elements.
#include "backend/cuda/sm90/attention_step.cuh"

namespace minillm::cuda::sm90 {

void step_attention_64(const StepAttention& p, cudaStream_t stream) {
  if (p.tile_rows == 192)
    launch_for_type<64, 3, 128>(p, stream);
  else
    launch_for_type<64, 2, 128>(p, stream);
}

}  // namespace minillm::cuda::sm90
