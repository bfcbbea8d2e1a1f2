// transformer.cpp - the graph. Letters: T rows, E hidden, H query heads, G key/value heads, D head width, V vocabulary.
#include "model/transformer.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "base/check.h"
#include "model/rope.h"

namespace minillm {

Transformer::Transformer(const ModelConfig& config, const Weights& weights, Backend& backend, Workspace& workspace)
    : config_(config),
      weights_(weights),
      backend_(backend),
      workspace_(workspace),
      frequencies_(inverse_frequencies(config, RopeKind::kGlobal, weights.rope_factors)),
      attention_scale_(config.attention_scale != 0.0f ? config.attention_scale
                                                      : static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)))) {
  if (config.local_rope_base != 0.0f) local_frequencies_ = inverse_frequencies(config, RopeKind::kLocal, {});
}

void Transformer::forward(const Batch& batch, PagedCache& cache, const AttentionMode& mode, std::span<const int32_t> wanted) {
  begin_step(batch);
  const auto work = [&] { layers(cache, mode); };
  if (backend_.prefers_whole_steps() && batch.sequences.size() == batch.tokens.size()) {
    want_all_rows();  // What is repeated is the same for every step.
    backend_.repeat(key(cache, mode, Choice::kNone), std::ref(work));
  } else {
    wanted_.assign(wanted.begin(), wanted.end());
    work();
  }
}

void Transformer::start_tokens(const Batch& batch, PagedCache& cache, const AttentionMode& mode, std::span<const Draw> draws,
                               PendingTokens& to) {
  begin_step(batch);
  want_all_rows();
  backend_.begin_choice(draws);
  const bool draws_any = any_drawn(draws);
  const auto work = [&] {
    layers(cache, mode);
    backend_.choose(head(wanted_), draws_any);
  };
  backend_.repeat(key(cache, mode, draws_any ? Choice::kDrawn : Choice::kHighest), std::ref(work));
  backend_.send_chosen(to);
}

void Transformer::tokens_after(ConstTensorView logits, std::span<const Draw> draws, PendingTokens& to) {
  backend_.begin_choice(draws);
  backend_.choose(logits, any_drawn(draws));
  backend_.send_chosen(to);
}

StepKey Transformer::key(const PagedCache& cache, const AttentionMode& mode, Choice choice) const {
  return {workspace_.serial(), cache.storage().serial(), n_rows_, mode.block_size, mode.flash, choice};
}

/// Not in layers(), which a step that is repeated does not come through.
void Transformer::begin_step(const Batch& batch) {
  n_rows_ = static_cast<int64_t>(batch.tokens.size());
  result_ = workspace_.hidden(n_rows_);
  backend_.begin_step(batch);
}

void Transformer::want_all_rows() {
  wanted_.resize(static_cast<size_t>(n_rows_));
  std::iota(wanted_.begin(), wanted_.end(), 0);
}

void Transformer::layers(PagedCache& cache, const AttentionMode& mode) {
  backend_.embed(workspace_.hidden(n_rows_), *weights_.embedding, config_.embedding_scale);
  backend_.rope_angles(workspace_.angles(n_rows_), frequencies_);
  if (!local_frequencies_.empty()) backend_.rope_angles(workspace_.local_angles(n_rows_), local_frequencies_);
  for (int64_t i = 0; i < config_.n_layers; ++i) layer(i, cache, mode);
}

AttentionParams Transformer::attention_params(int64_t i, const AttentionMode& mode) const {
  AttentionParams params;
  params.n_heads = config_.n_heads;
  params.n_kv_heads = config_.n_kv_heads;
  params.head_dim = config_.head_dim;
  params.scale = attention_scale_;
  params.window = config_.layer_slides(i) ? config_.sliding_window : 0;
  params.softcap = config_.attention_softcap;
  params.block_size = mode.block_size;
  params.flash = mode.flash;
  return params;
}

void Transformer::layer(int64_t i, PagedCache& cache, const AttentionMode& mode) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(i)];
  const AttentionParams params = attention_params(i, mode);
  const AttentionTypes types = backend_.attention_types(params, cache.storage(), *w.output);
  TensorView x = workspace_.hidden(n_rows_);   // [T, E]: the residual stream
  TensorView q = workspace_.queries(n_rows_);  // [T, H, D], as are the sums over values:
  TensorView attended = workspace_.attended(n_rows_);
  q.dtype = types.q;
  attended.dtype = types.attended;
  TensorView heads_joined(attended.data, types.attended, {n_rows_, config_.q_size()});
  const TensorView angles = turns_locally(i) ? workspace_.local_angles(n_rows_) : workspace_.angles(n_rows_);
  const bool is_last = i + 1 == config_.n_layers;

  backend_.attention_input(q, x, w.attention, angles, cache.storage(), i);  // q, k, v = rope(norm(x) wqkv); k, v go to the cache
  if (is_last && wanted_.empty()) return;
  backend_.attention(attended, q, cache.storage(), i, params);  // softmax(scale q k^T) v
  if (is_last) keep_wanted_rows(x, heads_joined);
  backend_.attention_output(x, heads_joined, *w.output, w.post_attention_norm, config_.norm_eps);  // x += attended wo
  backend_.feed_forward(x, w.feed_forward);  // x += (act(h gate) * (h up)) down, h = norm(x)
}

/// Moves the wanted rows together, each matrix to memory that nobody reads any more. Where all are wanted, or rows are not float32 (what
/// gather_rows takes), everything stays as it is.
void Transformer::keep_wanted_rows(TensorView& x, TensorView& attended) {
  const int64_t n = static_cast<int64_t>(wanted_.size()), e = x.dim(1), k = attended.dim(1);
  if (n == n_rows_ || attended.dtype != Dtype::kF32 || n * e > n_rows_ * k || n * k > n_rows_ * e) return;
  const TensorView kept_x(workspace_.queries(n_rows_).data, Dtype::kF32, {n, e}), kept_attended(x.data, Dtype::kF32, {n, k});
  backend_.gather_rows(kept_x, x, wanted_);
  backend_.gather_rows(kept_attended, attended, wanted_);
  x = result_ = kept_x;
  attended = kept_attended;
}

TensorView Transformer::head(std::span<const int32_t> rows) {
  const TensorView logits = workspace_.logits(static_cast<int64_t>(rows.size()));
  head(rows, logits);
  return logits;
}

void Transformer::head(std::span<const int32_t> rows, TensorView logits) {
  if (result_.dim(0) != n_rows_) {  // The wanted rows alone.
    head_rows_.clear();
    for (const int32_t row : rows) {
      const auto found = std::ranges::lower_bound(wanted_, row);
      MINILLM_CHECK(found != wanted_.end() && *found == row, "row ", row, " was not wanted");
      head_rows_.push_back(static_cast<int32_t>(found - wanted_.begin()));
    }
    rows = head_rows_;
  }
  backend_.head(logits, result_, rows, weights_.final_norm, config_.norm_eps, weights_.head(), config_.logit_softcap);
}

}  // namespace minillm
