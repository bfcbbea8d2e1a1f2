// workspace.cpp - allocation of the activation buffers.
#include "model/workspace.h"

#include <algorithm>

#include "base/check.h"

namespace minillm {
namespace {

constexpr int64_t kLogitBytes = 64 << 20;
constexpr int64_t kFloat = sizeof(float);

}  // namespace

void Workspace::reserve(const StepLimits& limits) {
  const StepLimits wanted{std::max(limits.max_rows, limits_.max_rows), std::max(limits.max_logit_rows, limits_.max_logit_rows),
                          std::max(limits.max_sequences, limits_.max_sequences)};
  const auto grow = [&](Buffer& buffer, int64_t rows, int64_t width) {
    const size_t bytes = static_cast<size_t>(rows * width * kFloat);
    if (buffer.bytes() >= bytes) return;
    serial_ = new_serial();
    buffer = Buffer();  // Freed first: both at once may not fit.
    buffer = backend_.allocate(bytes);
  };
  limits_ = {};  // If an allocation throws, nothing counts as reserved.
  grow(hidden_, wanted.max_rows, config_.hidden_size);
  grow(queries_, wanted.max_rows, config_.q_size());
  grow(attended_, wanted.max_rows, config_.q_size());
  grow(angles_, wanted.max_rows, rope_dim());
  if (config_.local_rope_base != 0.0f) grow(local_angles_, wanted.max_rows, rope_dim());
  grow(logits_, wanted.max_logit_rows, config_.vocab_size);
  backend_.reserve_workspace({.max_rows = wanted.max_rows,
                              .max_logit_rows = wanted.max_logit_rows,
                              .hidden = config_.hidden_size,
                              .n_heads = config_.n_heads,
                              .n_kv_heads = config_.n_kv_heads,
                              .head_dim = config_.head_dim,
                              .ffn = config_.ffn_size,
                              .vocab = config_.vocab_size,
                              .max_context = config_.context_length,
                              .max_sequences = wanted.max_sequences});
  limits_ = wanted;
}

TensorView Workspace::view(const Buffer& buffer, int64_t limit, int64_t n_rows, int64_t dim1, int64_t dim2) const {
  MINILLM_CHECK(n_rows <= limit, n_rows, " rows, reserved ", limit);
  if (dim2 == 0) return {buffer.data(), Dtype::kF32, {n_rows, dim1}};
  return {buffer.data(), Dtype::kF32, {n_rows, dim1, dim2}};
}

TensorView Workspace::hidden(int64_t n_rows) const { return view(hidden_, limits_.max_rows, n_rows, config_.hidden_size); }
TensorView Workspace::queries(int64_t n_rows) const { return view(queries_, limits_.max_rows, n_rows, config_.n_heads, config_.head_dim); }
TensorView Workspace::attended(int64_t n_rows) const {
  return view(attended_, limits_.max_rows, n_rows, config_.n_heads, config_.head_dim);
}
TensorView Workspace::angles(int64_t n_rows) const { return view(angles_, limits_.max_rows, n_rows, rope_dim()); }
TensorView Workspace::local_angles(int64_t n_rows) const { return view(local_angles_, limits_.max_rows, n_rows, rope_dim()); }
TensorView Workspace::logits(int64_t n_rows) const { return view(logits_, limits_.max_logit_rows, n_rows, config_.vocab_size); }

int64_t logit_rows_at_once(const ModelConfig& config, int64_t max_rows) noexcept {
  return std::min(max_rows, std::max<int64_t>(16, kLogitBytes / (config.vocab_size * kFloat)));
}

int64_t workspace_bytes(const ModelConfig& config, const StepLimits& limits) noexcept {
  const int64_t rope_dim = config.rope_dim == 0 ? config.head_dim : config.rope_dim;
  const int64_t row = config.hidden_size + 2 * config.q_size() + rope_dim * (config.local_rope_base != 0.0f ? 2 : 1);
  return kFloat * (limits.max_rows * row + limits.max_logit_rows * config.vocab_size);
}

}  // namespace minillm
