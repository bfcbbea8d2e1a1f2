// products.cpp - products with weights and row lookups.
//   matmul: out[t, n] = sum_k x[t, k] w[n, k].   embed: out[t, :] = scale table[token_t, :].
#include <algorithm>

#include "backend/reference/reference_backend.h"

namespace minillm::reference {
namespace {

const ReferenceWeight& weight_of(const PackedWeight& w) {
  const auto* weight = dynamic_cast<const ReferenceWeight*>(&w);
  MINILLM_CHECK(weight != nullptr, "reference: a weight packed by another backend");
  return *weight;
}

/// Eight partial sums: shorter rounding chains, and the compiler may use vectors. The order depends on K alone.
double dot(const float* a, const float* b, int64_t n) {
  constexpr int64_t kLanes = 8;
  double sum[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) sum[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
  for (; i < n; ++i) sum[i % kLanes] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  double total = 0;
  for (double s : sum) total += s;
  return total;
}

}  // namespace

void ReferenceBackend::embed(TensorView out, const PackedWeight& table, float scale) {
  const ReferenceWeight& weight = weight_of(table);
  const int64_t n_rows = out.dim(0), n_cols = width(out);
  MINILLM_CHECK(n_cols == weight.cols() && n_rows == static_cast<int64_t>(batch_.tokens.size()), "embed: out [", n_rows, ", ", n_cols,
                "] for ", batch_.tokens.size(), " tokens of width ", weight.cols());
  for (int64_t t = 0; t < n_rows; ++t) {
    const TokenId token = batch_.tokens[static_cast<size_t>(t)];
    if (token < 0 || token >= weight.rows())
      throw Error(ErrorCode::kInvalidArgument, "embed: token id ", token, " at row ", t, ": expected 0 to ", weight.rows() - 1);
    for (int64_t i = 0; i < n_cols; ++i)
      out.f32()[t * n_cols + i] = static_cast<float>(static_cast<double>(scale) * static_cast<double>(weight.row(token)[i]));
  }
}

void ReferenceBackend::matmul(TensorView out, ConstTensorView x, const PackedWeight& w) {
  const ReferenceWeight& weight = weight_of(w);
  const int64_t n_rows = out.dim(0);
  MINILLM_CHECK(x.dim(0) == n_rows && width(x) == weight.cols() && width(out) == weight.rows(), "matmul: [", x.dim(0), ", ", width(x),
                "] times [", weight.rows(), ", ", weight.cols(), "]^T into [", n_rows, ", ", width(out), "]");
  for (int64_t t = 0; t < n_rows; ++t)
    for (int64_t n = 0; n < weight.rows(); ++n)
      out.f32()[t * weight.rows() + n] = static_cast<float>(dot(x.f32() + t * weight.cols(), weight.row(n), weight.cols()));
}

void ReferenceBackend::gather_rows(TensorView out, ConstTensorView x, std::span<const int32_t> rows) {
  const int64_t n_cols = width(x);
  MINILLM_CHECK(out.dim(0) == static_cast<int64_t>(rows.size()) && width(out) == n_cols, "gather_rows: ", rows.size(), " rows of ", n_cols,
                " into [", out.dim(0), ", ", width(out), "]");
  for (size_t i = 0; i < rows.size(); ++i) {
    MINILLM_CHECK(rows[i] >= 0 && rows[i] < x.dim(0), "gather_rows: row ", rows[i], " of ", x.dim(0));
    std::copy_n(x.f32() + rows[i] * n_cols, n_cols, out.f32() + static_cast<int64_t>(i) * n_cols);
  }
}

}  // namespace minillm::reference
