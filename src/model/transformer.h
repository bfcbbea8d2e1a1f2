// transformer.h - the forward pass of every supported family, written once over Backend: no device, no dtype, no allocation.
// The maths is in docs/MODEL.md.
#pragma once

#include <span>
#include <vector>

#include "kv/paged_cache.h"
#include "model/weights.h"
#include "model/workspace.h"

namespace minillm {

/// How attention is computed; results agree within rounding.
struct AttentionMode {
  bool flash = true;
  int64_t block_size = 128;
};

class Transformer {
 public:
  /// All are borrowed for the transformer's life.
  Transformer(const ModelConfig& config, const Weights& weights, Backend& backend, Workspace& workspace);

  /// Runs `batch` through every layer and stores its keys and values in `cache`, where their slots must have been reserved.
  /// The result stays in the workspace for head(), which will be asked for the rows `wanted`, in ascending order: past the last layer's
  /// keys and values the others need not be computed. At most Workspace::limits().max_rows rows.
  void forward(const Batch& batch, PagedCache& cache, const AttentionMode& mode, std::span<const int32_t> wanted);
  /// Where the backend prefers whole steps: starts a step of one row a sequence; the token after each goes to `to`.
  /// At most Workspace::limits().max_logit_rows rows.
  void start_tokens(const Batch& batch, PagedCache& cache, const AttentionMode& mode, std::span<const Draw> draws, PendingTokens& to);
  /// On such a backend: a token for each row of what head() gave.
  void tokens_after(ConstTensorView logits, std::span<const Draw> draws, PendingTokens& to);
  /// Logits of these of the wanted rows of the last forward: view [n, V] of device memory, valid until the next call.
  /// At most Workspace::limits().max_logit_rows rows.
  TensorView head(std::span<const int32_t> rows);
  /// The same, written to `logits` [n, V], memory that the backend can use.
  void head(std::span<const int32_t> rows, TensorView logits);

 private:
  void begin_step(const Batch& batch);
  void want_all_rows();
  void layers(PagedCache& cache, const AttentionMode& mode);
  StepKey key(const PagedCache& cache, const AttentionMode& mode, Choice choice) const;
  void layer(int64_t i, PagedCache& cache, const AttentionMode& mode);
  void keep_wanted_rows(TensorView& x, TensorView& attended);
  AttentionParams attention_params(int64_t i, const AttentionMode& mode) const;
  bool turns_locally(int64_t i) const noexcept { return !local_frequencies_.empty() && config_.layer_slides(i); }

  const ModelConfig& config_;
  const Weights& weights_;
  Backend& backend_;
  Workspace& workspace_;
  std::vector<float> frequencies_, local_frequencies_;  ///< [R/2]; the second is empty where all layers share one base.
  float attention_scale_;
  int64_t n_rows_ = 0;                       ///< Of the last forward.
  std::vector<int32_t> wanted_, head_rows_;  ///< Rows of the last forward whose logits are wanted; and their places in result_.
  TensorView result_;                        ///< [n, E]: every row of the last forward, or the wanted ones alone.
};

}  // namespace minillm
