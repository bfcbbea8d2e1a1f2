// elementwise.cpp - norms, activations, rotary angles and the residual sum.
// Sources: RMSNorm, Zhang & Sennrich 2019, arXiv:1910.07467, Eq. 4; GELU (tanh form), Hendrycks & Gimpel 2016, arXiv:1606.08415;
//          SwiGLU and GeGLU, Shazeer 2020, arXiv:2002.05202; rotary angles, Su et al. 2021, arXiv:2104.09864.
#include <cmath>
#include <numbers>

#include "backend/reference/reference_backend.h"

namespace minillm::reference {
namespace {

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kGeluTanh:
      return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
  }
  throw Error(ErrorCode::kUnsupported, "activation ", static_cast<int>(activation));
}

}  // namespace

void ReferenceBackend::rms_norm(TensorView out, ConstTensorView x, ConstTensorView weight, float eps) {
  const int64_t n_rows = x.dim(0), n = width(x);
  MINILLM_CHECK(out.dim(0) == n_rows && width(out) == n && weight.n_elements() == n, "rms_norm: [", n_rows, ", ", n, "] into [", out.dim(0),
                ", ", width(out), "] with a weight of ", weight.n_elements());
  for (int64_t t = 0; t < n_rows; ++t) {
    const float* row = x.f32() + t * n;
    double squares = 0;
    for (int64_t i = 0; i < n; ++i) squares += static_cast<double>(row[i]) * static_cast<double>(row[i]);
    const double root = std::sqrt(squares / static_cast<double>(n) + static_cast<double>(eps));
    for (int64_t i = 0; i < n; ++i)
      out.f32()[t * n + i] = static_cast<float>(static_cast<double>(weight.f32()[i]) * static_cast<double>(row[i]) / root);
  }
}

void ReferenceBackend::rope_angles(TensorView angles, std::span<const float> inverse_frequencies) {
  const int64_t half = static_cast<int64_t>(inverse_frequencies.size()), n_rows = angles.dim(0);
  MINILLM_CHECK(width(angles) == 2 * half && n_rows == static_cast<int64_t>(batch_.positions.size()), "rope_angles: [", n_rows, ", ",
                width(angles), "] for ", batch_.positions.size(), " positions and ", half, " frequencies");
  for (int64_t t = 0; t < n_rows; ++t)
    for (int64_t i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(batch_.positions[static_cast<size_t>(t)]) * static_cast<double>(inverse_frequencies[static_cast<size_t>(i)]);
      angles.f32()[t * 2 * half + i] = static_cast<float>(std::cos(angle));
      angles.f32()[t * 2 * half + half + i] = static_cast<float>(std::sin(angle));
    }
}

void ReferenceBackend::add(TensorView x, ConstTensorView y) {
  MINILLM_CHECK(x.n_elements() == y.n_elements(), "add: ", x.n_elements(), " and ", y.n_elements(), " elements");
  for (int64_t i = 0; i < x.n_elements(); ++i)
    x.f32()[i] = static_cast<float>(static_cast<double>(x.f32()[i]) + static_cast<double>(y.f32()[i]));
}

void ReferenceBackend::gated_activation(TensorView out, ConstTensorView gate_up, Activation activation) {
  const int64_t n_rows = out.dim(0), ffn = width(out);
  MINILLM_CHECK(gate_up.dim(0) == n_rows && width(gate_up) == 2 * ffn, "gated_activation: [", gate_up.dim(0), ", ", width(gate_up),
                "] into [", n_rows, ", ", ffn, "]");
  for (int64_t t = 0; t < n_rows; ++t)
    for (int64_t f = 0; f < ffn; ++f) {
      const float* row = gate_up.f32() + t * 2 * ffn;
      out.f32()[t * ffn + f] = static_cast<float>(activate(activation, static_cast<double>(row[f])) * static_cast<double>(row[ffn + f]));
    }
}

void ReferenceBackend::softcap(TensorView x, float c) {
  const double cap = static_cast<double>(c);
  for (int64_t i = 0; i < x.n_elements(); ++i) x.f32()[i] = static_cast<float>(cap * std::tanh(static_cast<double>(x.f32()[i]) / cap));
}

}  // namespace minillm::reference
