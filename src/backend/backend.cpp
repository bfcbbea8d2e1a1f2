// backend.cpp - the composite operations, made of the small ones.
#include "backend/backend.h"

#include <algorithm>
#include <atomic>

#include "base/bytes.h"
#include "base/check.h"

namespace minillm {

std::array<int64_t, 3> scratch_widths(const WorkspaceShape& shape) noexcept {
  const int64_t qkv = (shape.n_heads + 2 * shape.n_kv_heads) * shape.head_dim;
  return {shape.hidden, std::max({qkv, 2 * shape.ffn, shape.hidden}), std::max(shape.ffn, shape.hidden)};
}

void Backend::reserve_workspace(const WorkspaceShape& shape) {
  const std::array<int64_t, 3> widths = scratch_widths(shape);
  for (size_t i = 0; i < std::size(scratch_); ++i) {
    const size_t bytes = static_cast<size_t>(shape.max_rows * widths[i]) * sizeof(float);
    if (scratch_[i].bytes() >= bytes) continue;
    scratch_[i] = Buffer();  // Freed first: both at once may not fit.
    scratch_[i] = allocate(bytes);
  }
}

bool Backend::are_all_rows(std::span<const int32_t> rows, int64_t n_rows) noexcept {
  if (static_cast<int64_t>(rows.size()) != n_rows) return false;
  for (size_t i = 0; i < rows.size(); ++i)
    if (rows[i] != static_cast<int32_t>(i)) return false;
  return true;
}

TensorView Backend::scratch(int slot, int64_t rows, int64_t cols) {
  const Buffer& buffer = scratch_[slot];
  MINILLM_CHECK(static_cast<size_t>(rows * cols) * sizeof(float) <= buffer.bytes(), "scratch ", slot, ": ", rows, " x ", cols,
                " floats, reserved ", readable_bytes(buffer.bytes()));
  return {buffer.data(), Dtype::kF32, {rows, cols}};
}

void Backend::begin_step(const Batch& batch) {
  batch_ = batch;
  ++n_steps_;
}

KvStorage::KvStorage(const KvShape& shape) : shape_(shape), serial_(new_serial()) {}

uint64_t new_serial() noexcept {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

void Backend::repeat(const StepKey&, const std::function<void()>& work) { work(); }

AttentionTypes Backend::attention_types(const AttentionParams&, const KvStorage&, const PackedWeight&) const { return {}; }

void Backend::begin_choice(std::span<const Draw>) {
  throw Error(ErrorCode::kUnsupported, description(), ": choosing tokens on the device");
}
void Backend::choose(ConstTensorView, bool) { throw Error(ErrorCode::kUnsupported, description(), ": choosing tokens on the device"); }
std::unique_ptr<PendingTokens> Backend::make_pending_tokens(int64_t) {
  throw Error(ErrorCode::kUnsupported, description(), ": choosing tokens on the device");
}
void Backend::send_chosen(PendingTokens&) { throw Error(ErrorCode::kUnsupported, description(), ": choosing tokens on the device"); }

void Backend::attention_input(TensorView q, ConstTensorView x, const AttentionInput& w, ConstTensorView angles, KvStorage& kv,
                              int64_t layer) {
  const TensorView normed = scratch(0, x.dim(0), x.dim(1));
  const TensorView qkv = scratch(1, x.dim(0), w.qkv->rows());
  rms_norm(normed, x, w.norm, w.norm_eps);
  matmul(qkv, normed, *w.qkv);
  rotate_and_append(q, qkv, w, angles, kv, layer);
}

void Backend::attention_output(TensorView x, ConstTensorView attended, const PackedWeight& w, ConstTensorView post_norm, float eps) {
  const TensorView projected = scratch(1, x.dim(0), w.rows());
  matmul(projected, attended, w);
  if (post_norm) rms_norm(projected, projected, post_norm, eps);
  add(x, projected);
}

void Backend::feed_forward_input(TensorView gated, ConstTensorView x, const FeedForward& w) {
  const TensorView normed = scratch(0, x.dim(0), x.dim(1));
  const TensorView gate_up = scratch(1, x.dim(0), w.gate_up->rows());
  rms_norm(normed, x, w.norm, w.norm_eps);
  matmul(gate_up, normed, *w.gate_up);
  gated_activation(gated, gate_up, w.activation);
}

void Backend::feed_forward_output(TensorView x, ConstTensorView gated, const FeedForward& w) {
  attention_output(x, gated, *w.down, w.post_norm, w.norm_eps);  // The same: a product, a norm where there is one, the residual.
}

void Backend::feed_forward(TensorView x, const FeedForward& w) {
  const TensorView gated = scratch(2, x.dim(0), w.down->cols());
  feed_forward_input(gated, x, w);
  feed_forward_output(x, gated, w);
}

void Backend::head(TensorView logits, ConstTensorView x, std::span<const int32_t> rows, ConstTensorView norm, float eps,
                   const PackedWeight& w, float softcap_value) {
  const TensorView wanted = scratch(0, static_cast<int64_t>(rows.size()), x.dim(1));
  const bool all = are_all_rows(rows, x.dim(0));
  if (!all) gather_rows(wanted, x, rows);
  rms_norm(wanted, all ? x : ConstTensorView(wanted), norm, eps);
  matmul(logits, wanted, w);
  if (softcap_value != 0.0f) softcap(logits, softcap_value);
}

}  // namespace minillm
