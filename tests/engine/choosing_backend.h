// choosing_backend.h - the reference as a device that takes whole steps and chooses tokens itself, as GPUs do.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/reference/reference_backend.h"
#include "engine/sampler.h"
#include "io/tensor_source.h"
#include "model/config_reader.h"
#include "model/model_impl.h"
#include "support/sampling.h"

namespace minillm::test {

class ChoosingBackend : public reference::ReferenceBackend {
 public:
  /// What has happened, in order: 'b' for a step begun, 't' for tokens taken.
  std::string history;

  bool prefers_whole_steps() const override { return true; }
  void begin_step(const Batch& batch) override {
    history += 'b';
    tokens_.assign(batch.tokens.begin(), batch.tokens.end());
    if (batch.follows_choice)
      for (size_t i = 0; i < tokens_.size(); ++i) tokens_[i] = std::max(chosen_.at(i), 0);
    Batch known = batch;
    known.tokens = tokens_;
    ReferenceBackend::begin_step(known);
  }
  void begin_choice(std::span<const Draw> draws) override { draws_.assign(draws.begin(), draws.end()); }
  void choose(ConstTensorView logits, bool) override {
    const auto vocab = static_cast<size_t>(logits.dim(1));
    Sampler sampler(logits.dim(1));
    chosen_.clear();
    for (size_t row = 0; row < draws_.size(); ++row) {
      const float* first = static_cast<const float*>(logits.data) + row * vocab;
      std::vector<float> copy(first, first + vocab);
      const std::span<const Candidate> candidates =
          sampler.candidates(copy, {}, with(draws_[row].temperature, draws_[row].top_k, draws_[row].top_p, draws_[row].min_p));
      chosen_.push_back(candidates.empty() ? -1 : drawn_from(candidates, draws_[row].uniform));
    }
  }
  std::unique_ptr<PendingTokens> make_pending_tokens(int64_t) override { return std::make_unique<Sent>(history); }
  void send_chosen(PendingTokens& to) override { dynamic_cast<Sent&>(to).ids = chosen_; }

 private:
  struct Sent : PendingTokens {
    explicit Sent(std::string& history_in) : history(history_in) {}
    void take(std::span<TokenId> to) override {
      history += 't';
      std::ranges::copy(ids, to.begin());
    }
    std::string& history;
    std::vector<TokenId> ids;
  };

  std::vector<TokenId> tokens_, chosen_;
  std::vector<Draw> draws_;
};

/// A model file on such a backend, which the caller may look at.
inline MiniLLM load_choosing(const std::string& path, const std::shared_ptr<ChoosingBackend>& backend) {
  const std::unique_ptr<TensorSource> source = open_tensor_source(path);
  const ModelConfig config = read_config(*source);
  Weights weights = load_weights(config, *source, *backend, {});
  return MiniLLM(std::make_unique<MiniLLM::Impl>(config, backend, std::move(weights), 0));
}

}  // namespace minillm::test
