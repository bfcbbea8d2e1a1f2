// cpu_backend_attention.cpp - the operations on keys and values: checks in attention.h, pages in kv_storage.h.
#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kv_storage.h"

namespace minillm::cpu {

std::unique_ptr<KvStorage> CpuBackend::make_kv_storage(const KvShape& shape) {
  return std::make_unique<CpuKvStorage>(shape, attention_kernels_of(name_of(isa_)));
}

void CpuBackend::rotate_and_append(TensorView q, ConstTensorView qkv, const AttentionInput& w, ConstTensorView angles, KvStorage& kv,
                                   int64_t layer) {
  attention_.rotate_and_append(batch_, q, qkv, w, angles, kv, layer);
}

void CpuBackend::attention(TensorView out, ConstTensorView q, const KvStorage& kv, int64_t layer, const AttentionParams& params,
                           TensorView lse) {
  attention_.attention(batch_, out, q, kv, layer, params, lse);
}

void CpuBackend::dense_attention(TensorView out, ConstTensorView q, ConstTensorView k, ConstTensorView v, const AttentionParams& params,
                                 TensorView lse) {
  attention_.dense_attention(out, q, k, v, params, lse);
}

}  // namespace minillm::cpu
