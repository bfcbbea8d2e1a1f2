// cpu_backend_attention.cpp - the operations on keys and values.
#include "backend/cpu/cpu_backend.h"

namespace minillm::cpu {

std::unique_ptr<KvStorage> CpuBackend::make_kv_storage(const KvShape&) {
  throw Error(ErrorCode::kUnsupported, "cpu: no storage for keys and values");
}
void CpuBackend::rotate_and_append(TensorView, ConstTensorView, const AttentionInput&, ConstTensorView, KvStorage&, int64_t) {
  throw Error(ErrorCode::kUnsupported, "cpu: no attention");
}
void CpuBackend::attention(TensorView, ConstTensorView, const KvStorage&, int64_t, const AttentionParams&, TensorView) {
  throw Error(ErrorCode::kUnsupported, "cpu: no attention");
}
void CpuBackend::dense_attention(TensorView, ConstTensorView, ConstTensorView, ConstTensorView, const AttentionParams&, TensorView) {
  throw Error(ErrorCode::kUnsupported, "cpu: no attention");
}

}  // namespace minillm::cpu
