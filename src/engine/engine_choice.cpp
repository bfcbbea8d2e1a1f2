// engine_choice.cpp - the tokens of a step: chosen by the device, a step ahead of the host where it can be, or sampled by the host.
#include <algorithm>

#include "engine/engine_impl.h"

namespace minillm {

/// Logits come in pieces of at most max_logit_rows. A device that takes whole steps chooses, so that a request gets the same tokens in
/// steps of any kind; the host samples for others, and where there are penalties.
void Engine::Impl::choose_tokens(std::span<const Scheduler::Share> shares, std::vector<StepEvent>& events) {
  const size_t at_once = static_cast<size_t>(model.workspace.limits().max_logit_rows);
  const bool on_device = model.backend->prefers_whole_steps();
  for (size_t first = 0; first < shares.size();) {
    logit_rows.clear();
    draws.clear();
    size_t last = first;
    for (; last < shares.size() && logit_rows.size() < at_once; ++last) {
      if (!shares[last].wants_next_token) continue;
      const Sequence& sequence = *shares[last].sequence;
      logit_rows.push_back(shares[last].last_row);
      draws.push_back(penalises(sequence.options) ? Draw{} : device_draw(sequence.options, sequence.tokens.size()));
    }
    if (!logit_rows.empty()) {
      const TensorView logits_of_rows = model.transformer.head(logit_rows);
      chosen.resize(logit_rows.size());
      if (on_device) {
        model.transformer.tokens_after(logits_of_rows, draws, *under_way.tokens);
        under_way.tokens->take(chosen);
      }
      size_t row = 0;
      for (const Scheduler::Share& share : shares.subspan(first, last - first)) {
        if (!share.wants_next_token) continue;
        Sequence& sequence = *share.sequence;
        const auto* device_logits = static_cast<const float*>(logits_of_rows.data) + row * logits.size();
        if (on_device && !penalises(sequence.options))
          take_token(sequence, token_or_none(chosen[row]), events);
        else
          take_token(sequence, sample(sequence, device_logits), events);
        ++row;
      }
    }
    first = last;
  }
}

std::optional<TokenId> Engine::Impl::sample(const Sequence& sequence, const float* device_logits) {
  model.backend->download(logits.data(), device_logits, logits.size() * sizeof(float));
  model.backend->sync();
  return sampler.sample(logits, {sequence.tokens, sequence.n_prompt}, sequence.options);
}

/// Whether the device can do the step and choose its tokens in one go: every sequence needs just its next token, without penalties.
bool Engine::Impl::is_whole_step(std::span<const Scheduler::Share> shares) const {
  const auto n = static_cast<int64_t>(shares.size());
  if (!model.backend->prefers_whole_steps() || n == 0 || n > model.workspace.limits().max_logit_rows) return false;
  return std::ranges::all_of(shares, [](const Scheduler::Share& share) {
    return share.n_tokens == 1 && share.wants_next_token && !penalises(share.sequence->options);
  });
}

/// Begins what the scheduler has planned, `n_unknown` tokens behind the last known ones.
void Engine::Impl::begin_whole_step(WholeStep& step, size_t n_unknown) {
  draws.clear();
  step.requests.clear();
  for (const Scheduler::Share& share : scheduler.shares()) {
    draws.push_back(device_draw(share.sequence->options, share.sequence->tokens.size() + n_unknown));
    step.requests.push_back(share.sequence->id);
  }
  model.transformer.start_tokens(batch.view(), *cache, mode, draws, *step.tokens);
  step.number = model.backend->n_steps();
  scheduler.advance();
}

/// Takes the tokens of the step under way, after beginning the one behind it where that is possible: not after another user's step on
/// the same device, which takes the place of what was chosen.
void Engine::Impl::end_whole_step(std::vector<StepEvent>& events) {
  if (model.backend->n_steps() == under_way.number && scheduler.plan_ahead(batch, model.config.context_length)) begin_whole_step(ahead, 1);
  chosen.resize(under_way.requests.size());
  under_way.tokens->take(chosen);
  std::swap(under_way, ahead);
  for (size_t i = 0; i < ahead.requests.size(); ++i)
    if (const auto found = sequences.find(ahead.requests[i]); found != sequences.end())
      take_token(*found->second, token_or_none(chosen[i]), events);
  ahead.requests.clear();
}

void Engine::Impl::take_token(Sequence& sequence, std::optional<TokenId> token, std::vector<StepEvent>& events) {
  StepEvent event{.request = sequence.id, .token = token, .text = {}, .finish = FinishReason::kNone, .error = {}};
  if (!token) {
    event.finish = FinishReason::kError;
    event.error = "non-finite logits at position " + std::to_string(sequence.n_tokens() - 1);
    return end(sequence, std::move(event), events);
  }
  sequence.take(*token, model.config.context_length, event);
  if (event.finish != FinishReason::kNone) return end(sequence, std::move(event), events);
  events.push_back(std::move(event));
}

}  // namespace minillm
