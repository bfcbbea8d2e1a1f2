// workspace.h - the activations of one step, allocated once for the largest step and reused.
// Letters: T rows, E hidden, H query heads, D head width, R rotated elements of a head, V vocabulary.
#pragma once

#include "backend/backend.h"
#include "minillm/config.h"

namespace minillm {

/// The largest step that will be asked for.
struct StepLimits {
  int64_t max_rows = 0;        ///< T
  int64_t max_logit_rows = 0;  ///< Rows of one head product; more rows are done in pieces.
  int64_t max_sequences = 0;
};

class Workspace {
 public:
  Workspace(const ModelConfig& config, Backend& backend) : config_(config), backend_(backend) {}

  /// Makes room for steps up to `limits`, here and in the backend; grows only. Throws Error{kOutOfMemory}.
  void reserve(const StepLimits& limits);
  const StepLimits& limits() const noexcept { return limits_; }
  uint64_t serial() const noexcept { return serial_; }  ///< Changes whenever memory moves.

  TensorView hidden(int64_t n_rows) const;        ///< [T, E]
  TensorView queries(int64_t n_rows) const;       ///< [T, H, D]
  TensorView attended(int64_t n_rows) const;      ///< [T, H, D]
  TensorView angles(int64_t n_rows) const;        ///< [T, R], of global layers
  TensorView local_angles(int64_t n_rows) const;  ///< [T, R], of sliding layers with their own rope base
  TensorView logits(int64_t n_rows) const;        ///< [n, V]

 private:
  TensorView view(const Buffer& buffer, int64_t limit, int64_t n_rows, int64_t dim1, int64_t dim2 = 0) const;
  int64_t rope_dim() const noexcept { return config_.rope_dim == 0 ? config_.head_dim : config_.rope_dim; }

  const ModelConfig& config_;
  Backend& backend_;
  StepLimits limits_;
  uint64_t serial_ = new_serial();
  Buffer hidden_, queries_, attended_, angles_, local_angles_, logits_;
};

/// Rows of logits made at a time where all are wanted: 64 MiB of them, at least 16 and at most `max_rows`.
int64_t logit_rows_at_once(const ModelConfig& config, int64_t max_rows) noexcept;
/// Bytes of a workspace of `limits`, the backend's own scratch not counted.
int64_t workspace_bytes(const ModelConfig& config, const StepLimits& limits) noexcept;

}  // namespace minillm
