// cpu_backend_composites.cpp - the composites of backend.h, fused: norms run right before a row is quantised, activations and residual
// sums right after a product, by the thread that has the values in its cache. The same kernels in the same order as the small
// operations: the same bits.
// Gain: of about fifteen loops a layer seven remain, and none of the serial ones (docs/SPEED.md, "Quantised products").
#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/pack.h"
#include "base/check.h"

namespace minillm::cpu {
namespace {

/// Writes row t of `out` from row t of x, as a product's `before`. Both [T, N], weight [N].
auto norm_rows(const Kernels& kernels, TensorView out, ConstTensorView x, ConstTensorView weight, float eps) {
  const int64_t n = x.dim(1);
  MINILLM_CHECK(weight.n_elements() == n, "norm of ", weight.n_elements(), " for ", n);
  return [=, &kernels](int64_t t, float* to) {
    kernels.rms_norm(to != nullptr ? to : out.f32() + t * n, x.f32() + t * n, weight.f32(), n, eps);
  };
}

}  // namespace

void CpuBackend::attention_input(TensorView q, ConstTensorView x, const AttentionInput& w, ConstTensorView angles, KvStorage& kv,
                                 int64_t layer) {
  const TensorView normed = scratch(0, x.dim(0), x.dim(1)), qkv = scratch(1, x.dim(0), w.qkv->rows());
  const auto norm = norm_rows(kernels_, normed, x, w.norm, w.norm_eps);
  products_.matmul(qkv, normed, own(*w.qkv), {.before = norm});
  rotate_and_append(q, qkv, w, angles, kv, layer);
}

void CpuBackend::add_product(TensorView x, int64_t n, ConstTensorView post_norm, float eps,
                             FunctionRef<void(TensorView projected, const Beside& beside)> multiply) {
  const int64_t n_rows = x.dim(0);
  MINILLM_CHECK(x.dim(1) == n, "x of ", x.dim(1), ", w of ", n);
  const TensorView projected = scratch(1, n_rows, n);
  const auto add_block = [&](const OutputBlock& b) {
    for (int64_t t = 0; t < b.n_rows; ++t) kernels_.add(x.f32() + (b.row + t) * n + b.column, b.values + t * b.stride, b.n_columns);
  };
  if (!post_norm) return multiply(projected, {.after = add_block, .only_after = true, .updated = x.f32(), .does = Finish::kAdd});
  MINILLM_CHECK(post_norm.n_elements() == n, "norm of ", post_norm.n_elements(), " for ", n);
  multiply(projected, {});
  for_rows(n_rows, n, [&](int64_t t) {
    float* row = projected.f32() + t * n;
    kernels_.rms_norm(row, row, post_norm.f32(), n, eps);
    kernels_.add(x.f32() + t * n, row, n);
  });
}

void CpuBackend::attention_output(TensorView x, ConstTensorView attended, const PackedWeight& w, ConstTensorView post_norm, float eps) {
  add_product(x, w.rows(), post_norm, eps,
              [&](TensorView projected, const Beside& beside) { products_.matmul(projected, attended, own(w), beside); });
}

void CpuBackend::feed_forward_input(TensorView gated, ConstTensorView x, const FeedForward& w) {
  const CpuWeight& gate_up_weight = own(*w.gate_up);
  if (!is_pair(gate_up_weight)) return Backend::feed_forward_input(gated, x, w);
  const int64_t n_rows = x.dim(0), f = gated.dim(1);
  MINILLM_CHECK(2 * f == gate_up_weight.rows(), f, " gated of ", gate_up_weight.rows());
  const TensorView normed = scratch(0, n_rows, x.dim(1)), gate_up = scratch(1, n_rows, 2 * f);
  const auto norm = norm_rows(kernels_, normed, x, w.norm, w.norm_eps);
  const auto gate_kernel = w.activation == Activation::kSilu ? kernels_.gate_silu : kernels_.gate_gelu;
  const auto gate = [&](const OutputBlock& b) {
    for (int64_t t = 0; t < b.n_rows; ++t)
      gate_kernel(gated.f32() + (b.row + t) * f + b.column, b.values + t * b.stride, b.second + t * b.stride, b.n_columns);
  };
  products_.matmul(gate_up, normed, gate_up_weight, {.before = norm, .after = gate, .only_after = true, .pairs = true});
}

void CpuBackend::feed_forward_to_tiles(const RoundedRows& gated, ConstTensorView x, const FeedForward& w) {
  const int64_t n_rows = x.dim(0);
  const TensorView normed = scratch(0, n_rows, x.dim(1)), gate_up = scratch(1, n_rows, w.gate_up->rows());
  const auto norm = norm_rows(kernels_, normed, x, w.norm, w.norm_eps);
  const auto gate_kernel = w.activation == Activation::kSilu ? kernels_.gate_silu_rounded : kernels_.gate_gelu_rounded;
  const auto gate = [&](const OutputBlock& b) {
    gate_kernel({.gate = b.values, .up = b.second, .stride = b.stride, .row = b.row, .n_rows = b.n_rows, .column = b.column}, gated);
  };
  products_.matmul(gate_up, normed, own(*w.gate_up),
                   {.before = norm,
                    .after = gate,
                    .only_after = true,
                    .rounded = gated,
                    .does = w.activation == Activation::kSilu ? Finish::kSilu : Finish::kGelu,
                    .pairs = true});
}

void CpuBackend::feed_forward_from_tiles(TensorView x, const RoundedRows& gated, const FeedForward& w) {
  add_product(x, w.down->rows(), w.post_norm, w.norm_eps,
              [&](TensorView projected, const Beside& beside) { products_.tiles().matmul(projected, gated, own(*w.down), beside); });
}

void CpuBackend::feed_forward(TensorView x, const FeedForward& w) {
  const CpuWeight &gate_up = own(*w.gate_up), &down = own(*w.down);
  const int64_t n_rows = x.dim(0), f = down.cols();
  if (!is_pair(gate_up) || !products_.tiles().take(gate_up, n_rows) || !products_.tiles().take(down, n_rows) || f % kUnit != 0)
    return Backend::feed_forward(x, w);
  MINILLM_CHECK(2 * f == gate_up.rows(), f, " gated of ", gate_up.rows());
  const RoundedRows gated = products_.tiles().room(n_rows, f);
  feed_forward_to_tiles(gated, x, w);
  feed_forward_from_tiles(x, gated, w);
}

void CpuBackend::head(TensorView logits, ConstTensorView x, std::span<const int32_t> rows, ConstTensorView norm, float eps,
                      const PackedWeight& w, float softcap_value) {
  const int64_t n_rows = static_cast<int64_t>(rows.size()), n = x.dim(1);
  MINILLM_CHECK(norm.n_elements() == n, "norm of ", norm.n_elements(), " for ", n);
  for (const int32_t row : rows) MINILLM_CHECK(row >= 0 && row < x.dim(0), "row ", row, " of ", x.dim(0));
  const TensorView normed = scratch(0, n_rows, n);
  const auto norm_row = [&](int64_t i, float* to) {
    kernels_.rms_norm(to != nullptr ? to : normed.f32() + i * n, x.f32() + rows[static_cast<size_t>(i)] * n, norm.f32(), n, eps);
  };
  const auto cap = [&](const OutputBlock& b) {
    for (int64_t i = 0; i < b.n_rows; ++i) kernels_.softcap(b.values + i * b.stride, b.n_columns, softcap_value);
  };
  Beside beside{.before = norm_row};
  if (softcap_value != 0.0f) beside.after = cap;
  products_.matmul(logits, normed, own(w), beside);
}

}  // namespace minillm::cpu
