// many_tokens.h - launchers of the kernels between the dense products of many tokens.
#pragma once

#include "backend/cuda/operations.h"

namespace minillm::cuda {

/// out [n_rows, n] in `dtype` (f16, bf16) = RMSNorm of x [n_rows, n]; n a multiple of 8.
void norm_to(void* out, Dtype dtype, const float* x, const float* weight, int64_t n_rows, int64_t n, float eps, cudaStream_t stream);
/// out [n_rows, F] in `dtype` = activation(gate) up of gate_up [n_rows, 2F] in `in_dtype` (f32, bf16); F a multiple of 8.
void gate_to(void* out, Dtype dtype, const void* gate_up, Dtype in_dtype, int64_t n_rows, int64_t ffn, Activation activation,
             cudaStream_t stream);

/// As rotate_and_append, with queries in the cache's 16-bit type; even head_dim and rope_dim.
void append_rows(void* q, const AppendInputs& in, const DeviceStep& step, const KeyLayout& cache, cudaStream_t stream);

}  // namespace minillm::cuda
