// attention_step.cpp - which steps the Hopper kernel takes, and the choice of its instantiation.
#include "backend/cuda/sm90/attention_step.h"

#include "minillm/error.h"

namespace minillm::cuda::sm90 {

bool takes_step(const KeyLayout& cache, const AttentionScalars& a) {
  const bool is_plain = a.causal && a.window == 0 && a.softcap == 0.0f && a.alibi == nullptr && a.sinks == nullptr;
  return is_plain && cache.page_tokens > 0 && (cache.dtype == Dtype::kF16 || cache.dtype == Dtype::kBF16) &&
         (a.head_dim == 64 || a.head_dim == 128 || a.head_dim == 256);
}

void step_attention(const StepAttention& p, cudaStream_t stream) {
  if (p.n_tiles == 0) return;
  if (p.a.head_dim == 64) return step_attention_64(p, stream);
  if (p.a.head_dim == 128) return step_attention_128(p, stream);
  if (p.a.head_dim == 256) return step_attention_256(p, stream);
  throw Error(ErrorCode::kInternal, "step_attention: heads of ", p.a.head_dim, " elements");
}

}  // namespace minillm::cuda::sm90
