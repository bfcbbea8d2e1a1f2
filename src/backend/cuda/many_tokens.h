// many_tokens.h - launchers of the kernels between the dense products of many tokens.
#pragma once

#include "backend/cuda/operations.h"

namespace minillm::cuda {

/// out [n_rows, n] in `dtype` (f16, bf16) = RMSNorm of x [n_rows, n]; n a multiple of 8.
void norm_to(void* out, Dtype dtype, const float* x, const float* weight, int64_t n_rows, int64_t n, float eps, cudaStream_t stream);
/// out [n_rows, F] in `dtype` = activation(gate) up of gate_up [n_rows, 2F] in `in_dtype` (f32, bf16); F a multiple of 8.
void gate_to(void* out, Dtype dtype, const void* gate_up, Dtype in_dtype, int64_t n_rows, int64_t ffn, Activation activation,
             cudaStream_t stream);

/// The type that matrix kernels read a cache in: its own, or float16 for 8 bits.
inline Dtype matrix_type(Dtype cache) { return cache == Dtype::kF8 ? Dtype::kF16 : cache; }

/// As rotate_and_append, with queries in the matrix_type() of a 16-bit or 8-bit cache; even head_dim and rope_dim.
void append_rows(void* q, const AppendInputs& in, const DeviceStep& step, const KeyLayout& cache, cudaStream_t stream);

/// One layer of the step's n_pages pages of an 8-bit cache in float16: page i of the copy is the one that step.tables[i] names, and
/// tables[i] becomes i. `page_elements` of keys and values, a multiple of 16.
void widen_pages(void* to, int32_t* tables, const KeyLayout& cache, const DeviceStep& step, int64_t n_pages, int64_t page_elements,
                 cudaStream_t stream);

}  // namespace minillm::cuda
