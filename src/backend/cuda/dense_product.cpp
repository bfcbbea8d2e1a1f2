// dense_product.cpp - cuBLASLt is column-major: out^T [N, T] = w^T' [K, N]' x^T [K, T], so nothing is transposed in memory.
#include "backend/cuda/dense_product.h"

#include <memory>

#include "backend/cuda/check.h"

namespace minillm::cuda {
namespace {

void check_blas(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS) throw Error(ErrorCode::kDevice, call, ": ", cublasLtGetStatusString(status));
}
#define MINILLM_BLAS(call) check_blas((call), #call)

/// Destroys a cuBLASLt object when it goes out of scope.
template <typename T, cublasStatus_t (*kDestroy)(T)>
struct Owner {
  T object = nullptr;
  ~Owner() {
    if (object != nullptr) (void)kDestroy(object);
  }
};
using Layout = Owner<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;

}  // namespace

DenseProduct::DenseProduct(Buffer workspace) : workspace_(std::move(workspace)) { MINILLM_BLAS(cublasLtCreate(&handle_)); }

DenseProduct::~DenseProduct() { (void)cublasLtDestroy(handle_); }

void DenseProduct::run(float* out, int64_t out_stride, const void* x, const void* w, Dtype dtype, int64_t n_tokens, int64_t n, int64_t k,
                       cudaStream_t stream) {
  if (n_tokens == 0 || n == 0) return;
  const cudaDataType_t type = dtype == Dtype::kF32 ? CUDA_R_32F : dtype == Dtype::kF16 ? CUDA_R_16F : CUDA_R_16BF;
  Owner<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> product;
  Layout a, b, c;
  Owner<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy> preference;
  MINILLM_BLAS(cublasLtMatmulDescCreate(&product.object, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t transposed = CUBLAS_OP_T;
  MINILLM_BLAS(cublasLtMatmulDescSetAttribute(product.object, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
  MINILLM_BLAS(cublasLtMatrixLayoutCreate(&a.object, type, static_cast<uint64_t>(k), static_cast<uint64_t>(n), k));
  MINILLM_BLAS(cublasLtMatrixLayoutCreate(&b.object, type, static_cast<uint64_t>(k), static_cast<uint64_t>(n_tokens), k));
  MINILLM_BLAS(cublasLtMatrixLayoutCreate(&c.object, CUDA_R_32F, static_cast<uint64_t>(n), static_cast<uint64_t>(n_tokens), out_stride));
  MINILLM_BLAS(cublasLtMatmulPreferenceCreate(&preference.object));
  const size_t workspace = workspace_.bytes();
  MINILLM_BLAS(
      cublasLtMatmulPreferenceSetAttribute(preference.object, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
  cublasLtMatmulHeuristicResult_t best{};
  int n_found = 0;
  MINILLM_BLAS(cublasLtMatmulAlgoGetHeuristic(handle_, product.object, a.object, b.object, c.object, c.object, preference.object, 1, &best,
                                              &n_found));
  if (n_found == 0)
    throw Error(ErrorCode::kUnsupported, "cuBLASLt has no product of ", n_tokens, " x ", k, " by ", n, " x ", k, " in ", name_of(dtype));
  const float one = 1.0f, zero = 0.0f;
  MINILLM_BLAS(cublasLtMatmul(handle_, product.object, &one, w, a.object, x, b.object, &zero, out, c.object, out, c.object, &best.algo,
                              workspace_.data(), workspace, stream));
}

}  // namespace minillm::cuda
