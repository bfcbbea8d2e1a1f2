// engine_impl.h - what is behind Engine.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "minillm/engine.h"
#include "model/model_impl.h"

namespace minillm {

/// A step that the device does and chooses tokens in. Where it is sure what follows, the next one is begun before the tokens of this
/// one are known to the host, so that the device does not wait for it.
struct WholeStep {
  std::vector<RequestId> requests;        ///< In the order of rows; some may have ended since. Empty: no step.
  std::unique_ptr<PendingTokens> tokens;  ///< Null where the host chooses.
  uint64_t number = 0;                    ///< Backend::n_steps() of it.
};

struct Engine::Impl {
  Impl(MiniLLM& model_in, const Tokenizer* tokenizer_in, const EngineOptions& options);

  RequestId submit(std::vector<TokenId> prompt, const GenerationOptions& options);
  std::vector<StepEvent> step();
  void cancel_requested(std::vector<StepEvent>& events);
  bool is_whole_step(std::span<const Scheduler::Share> shares) const;
  void begin_whole_step(WholeStep& step, size_t n_unknown);
  void end_whole_step(std::vector<StepEvent>& events);
  void choose_tokens(std::span<const Scheduler::Share> shares, std::vector<StepEvent>& events);
  std::optional<TokenId> sample(const Sequence& sequence, const float* device_logits);
  void take_token(Sequence& sequence, std::optional<TokenId> token, std::vector<StepEvent>& events);
  void end(Sequence& sequence, StepEvent event, std::vector<StepEvent>& events);
  void record_time(int64_t n_prefill, int64_t n_decode, double seconds);

  MiniLLM::Impl& model;
  const Tokenizer* tokenizer;
  AttentionMode mode;
  std::unique_ptr<PagedCache> cache;
  Scheduler scheduler;
  Sampler sampler;
  StepBatch batch;
  std::vector<int32_t> logit_rows;
  std::vector<float> logits;  ///< [V], of one sequence.
  std::vector<Draw> draws;    ///< For the device, and what it chose:
  std::vector<TokenId> chosen;
  WholeStep under_way, ahead;
  std::unordered_map<RequestId, std::unique_ptr<Sequence>> sequences;
  RequestId next_id = 1;
  Timings timings;

  std::mutex cancel_mutex;
  std::vector<RequestId> cancelled;  ///< Guarded by cancel_mutex.
};

}  // namespace minillm
