// dense_product.cpp - cuBLASLt is column-major: out^T [N, T] = w^T' [K, N]' x^T [K, T], so nothing is transposed in memory.
#include "backend/cuda/dense_product.h"

#include <algorithm>
#include <memory>

#include "backend/cuda/check.h"

namespace minillm::cuda {
namespace {

constexpr size_t kMostPlans = 64;  ///< Finding an algorithm takes about 30 us of the host.

void check_blas(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS) throw Error(ErrorCode::kDevice, call, ": ", cublasLtGetStatusString(status));
}
#define MINILLM_BLAS(call) check_blas((call), #call)

/// Destroys a cuBLASLt object when it goes out of scope.
template <typename T, cublasStatus_t (*kDestroy)(T)>
struct Owner {
  T object = nullptr;
  Owner() = default;
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;
  ~Owner() {
    if (object != nullptr) (void)kDestroy(object);
  }
};
using Layout = Owner<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;

cudaDataType_t type_of(Dtype dtype) { return dtype == Dtype::kF32 ? CUDA_R_32F : dtype == Dtype::kF16 ? CUDA_R_16F : CUDA_R_16BF; }

}  // namespace

struct DenseProduct::Plan {
  Shape shape;
  Owner<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> product;
  Layout w, x, out;
  cublasLtMatmulAlgo_t algorithm{};
};

DenseProduct::DenseProduct(Buffer workspace) : workspace_(std::move(workspace)) { MINILLM_BLAS(cublasLtCreate(&handle_)); }

DenseProduct::~DenseProduct() { (void)cublasLtDestroy(handle_); }

const DenseProduct::Plan& DenseProduct::plan(const Shape& s) {
  const auto known = std::ranges::find_if(plans_, [&](const auto& plan) { return plan->shape == s; });
  if (known != plans_.end()) return **known;
  if (plans_.size() == kMostPlans) plans_.erase(plans_.begin());
  auto made = std::make_unique<Plan>();
  made->shape = s;
  const cudaDataType_t type = type_of(s.dtype);
  const auto n = static_cast<uint64_t>(s.n), k = static_cast<uint64_t>(s.k), n_tokens = static_cast<uint64_t>(s.n_tokens);
  MINILLM_BLAS(cublasLtMatmulDescCreate(&made->product.object, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t transposed = CUBLAS_OP_T;
  MINILLM_BLAS(cublasLtMatmulDescSetAttribute(made->product.object, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
  MINILLM_BLAS(cublasLtMatrixLayoutCreate(&made->w.object, type, k, n, s.k));
  MINILLM_BLAS(cublasLtMatrixLayoutCreate(&made->x.object, type, k, n_tokens, s.k));
  MINILLM_BLAS(cublasLtMatrixLayoutCreate(&made->out.object, type_of(s.out_dtype), n, n_tokens, s.out_stride));
  Owner<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy> preference;
  MINILLM_BLAS(cublasLtMatmulPreferenceCreate(&preference.object));
  const size_t workspace = workspace_.bytes();
  MINILLM_BLAS(
      cublasLtMatmulPreferenceSetAttribute(preference.object, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
  cublasLtMatmulHeuristicResult_t best{};
  int n_found = 0;
  MINILLM_BLAS(cublasLtMatmulAlgoGetHeuristic(handle_, made->product.object, made->w.object, made->x.object, made->out.object,
                                              made->out.object, preference.object, 1, &best, &n_found));
  if (n_found == 0)
    throw Error(ErrorCode::kUnsupported, "cuBLASLt has no product of ", s.n_tokens, " x ", s.k, " by ", s.n, " x ", s.k, " in ",
                name_of(s.dtype));
  made->algorithm = best.algo;
  plans_.push_back(std::move(made));
  return *plans_.back();
}

void DenseProduct::run(void* out, const void* x, const void* w, const Shape& shape, cudaStream_t stream) {
  if (shape.n_tokens == 0 || shape.n == 0) return;
  const Plan& p = plan(shape);
  const float one = 1.0f, beta = shape.add ? 1.0f : 0.0f;
  MINILLM_BLAS(cublasLtMatmul(handle_, p.product.object, &one, w, p.w.object, x, p.x.object, &beta, out, p.out.object, out, p.out.object,
                              &p.algorithm, workspace_.data(), workspace_.bytes(), stream));
}

}  // namespace minillm::cuda
