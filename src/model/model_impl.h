// model_impl.h - what is behind MiniLLM, for the layers of this library.
#pragma once

#include <memory>

#include "minillm/model.h"
#include "model/step_batch.h"
#include "model/transformer.h"

namespace minillm {

/// Members in order of dependence; each borrows from those above it, so an Impl never moves.
struct MiniLLM::Impl {
  Impl(const ModelConfig& config_in, std::shared_ptr<Backend> backend_in, Weights weights_in, int64_t block_size_in);

  ModelConfig config;
  std::shared_ptr<Backend> backend;
  Weights weights;
  Workspace workspace;
  Transformer transformer;
  Device device;
  int64_t block_size;  ///< What flash_block_size 0 means.
  std::string fingerprint;
  StepBatch batch;                         ///< Of forward().
  std::unique_ptr<PendingTokens> pending;  ///< Of next_token().

  /// Most rows of a step, where nothing else is `wanted`.
  int64_t step_rows(int64_t wanted = 0) const;
  Tensor forward(const Tensor& input_ids, const ForwardOptions& options);
  /// The token after input_ids [1, S], where the backend prefers whole steps: as PendingTokens gives it.
  TokenId next_token(const Tensor& input_ids, const ForwardOptions& options, const Draw& draw);
  /// A cache for this model on its own backend. `max_pages` bounds all rows together.
  std::unique_ptr<PagedCache> make_cache(int64_t n_rows, int64_t max_pages, Dtype dtype) const;
  /// Throws Error{kInvalidArgument} unless 0 or a power of two from 16 to 1024; 0 gives the model's choice.
  AttentionMode attention_mode(bool flash, int64_t flash_block_size) const;
};

inline constexpr int64_t kPageTokens = 64;  ///< Of caches that the library makes for itself.
inline constexpr int64_t kStepRows = 512;   ///< What every model has room for from the beginning.
/// Most rows of a step on this kind of device: where long inputs are fastest without taking much memory, up to the longest there can be.
int64_t default_step_rows(Device::Kind kind, int64_t context_length);

}  // namespace minillm
