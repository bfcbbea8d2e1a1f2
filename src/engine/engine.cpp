// engine.cpp - Engine: plan a step, run it, choose tokens, tell what happened.
#include "minillm/engine.h"

#include <chrono>
#include <cstdlib>
#include <mutex>
#include <unordered_map>

#include "base/bytes.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "model/model_impl.h"

namespace minillm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMaxBatch = 1024;
constexpr int64_t kMaxChunk = 1 << 16;
constexpr int64_t kTokensAhead = 4096;  // Room for this many generated tokens is taken at submit.

void check_options(const EngineOptions& options) {
  const auto refuse = [](std::string_view field, int64_t value, std::string_view range) {
    throw Error(ErrorCode::kInvalidArgument, field, " is ", value, ", expected ", range);
  };
  if (options.max_batch < 1 || options.max_batch > kMaxBatch) refuse("max_batch", options.max_batch, "1 to 1024");
  if (options.prefill_chunk < 0 || options.prefill_chunk > kMaxChunk)
    refuse("prefill_chunk", options.prefill_chunk, "0 (what suits the device) to 65536");
  if (options.max_cache_tokens < 0) refuse("max_cache_tokens", options.max_cache_tokens, "0 (max_batch times the context) or more");
}

/// Every n-th step evicts the newest sequence: the whole suite can be run with recomputation.
int64_t preempt_every_from_environment() {
  const char* value = std::getenv("MINILLM_TEST_PREEMPT_EVERY");
  return value == nullptr ? 0 : std::strtol(value, nullptr, 10);
}

std::optional<TokenId> token_or_none(TokenId chosen) { return chosen < 0 ? std::optional<TokenId>() : chosen; }

}  // namespace

struct Engine::Impl {
  Impl(MiniLLM& model_in, const Tokenizer* tokenizer_in, const EngineOptions& options);

  RequestId submit(std::vector<TokenId> prompt, const GenerationOptions& options);
  std::vector<StepEvent> step();
  void cancel_requested(std::vector<StepEvent>& events);
  bool is_whole_step(std::span<const Scheduler::Share> shares) const;
  void whole_step(std::span<const Scheduler::Share> shares, std::vector<StepEvent>& events);
  void choose_tokens(std::span<const Scheduler::Share> shares, std::vector<StepEvent>& events);
  std::optional<TokenId> sample(const Sequence& sequence, const float* device_logits);
  void take_token(Sequence& sequence, std::optional<TokenId> token, std::vector<StepEvent>& events);
  void end(Sequence& sequence, StepEvent event, std::vector<StepEvent>& events);
  void record_time(std::span<const Scheduler::Share> shares, double seconds);

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
  std::unordered_map<RequestId, std::unique_ptr<Sequence>> sequences;
  RequestId next_id = 1;
  Timings timings;

  std::mutex cancel_mutex;
  std::vector<RequestId> cancelled;  ///< Guarded by cancel_mutex.
};

namespace {

std::unique_ptr<PagedCache> make_cache(const MiniLLM::Impl& model, const EngineOptions& options) {
  check_options(options);
  const int64_t row_pages = ceil_div(model.config.context_length, kPageTokens);
  const int64_t n_pages = options.max_cache_tokens > 0 ? ceil_div(options.max_cache_tokens, kPageTokens) : options.max_batch * row_pages;
  return model.make_cache(options.max_batch, n_pages, options.kv_dtype.value_or(model.config.kv_dtype));
}

}  // namespace

Engine::Impl::Impl(MiniLLM& model_in, const Tokenizer* tokenizer_in, const EngineOptions& options)
    : model(model_in.impl()),
      tokenizer(tokenizer_in),
      mode(model.attention_mode(options.use_flash_attention, options.flash_block_size)),
      cache(make_cache(model, options)),
      scheduler(*cache, {.max_batch = options.max_batch,
                         .max_step_rows = std::max(model.step_rows(options.prefill_chunk), options.max_batch),
                         .preempt_every = preempt_every_from_environment()}),
      sampler(model.config.vocab_size),
      logits(static_cast<size_t>(model.config.vocab_size)) {
  const int64_t max_rows = std::max(model.step_rows(options.prefill_chunk), options.max_batch);
  const int64_t logit_rows_at_most = std::min(options.max_batch, logit_rows_at_once(model.config, max_rows));
  model.workspace.reserve({.max_rows = max_rows, .max_logit_rows = logit_rows_at_most, .max_sequences = options.max_batch});
  batch.reserve(max_rows, options.max_batch);
  logit_rows.reserve(static_cast<size_t>(options.max_batch));
  draws.reserve(static_cast<size_t>(options.max_batch));
  chosen.reserve(static_cast<size_t>(options.max_batch));
}

RequestId Engine::Impl::submit(std::vector<TokenId> prompt, const GenerationOptions& options) {
  check_request("", prompt, options, tokenizer, model.config);
  const auto n_prompt = static_cast<int64_t>(prompt.size());
  const int64_t cache_tokens = cache->pool().max_pages() * kPageTokens;
  if (n_prompt > cache_tokens) throw Error(ErrorCode::kCapacity, "prompt has ", n_prompt, " tokens, the cache room for ", cache_tokens);

  auto sequence = std::make_unique<Sequence>();
  sequence->id = next_id++;
  sequence->begin(std::move(prompt), options, tokenizer);
  const int64_t most = std::min(options.max_new_tokens, model.config.context_length + 1 - n_prompt);
  sequence->tokens.reserve(static_cast<size_t>(n_prompt + std::min(most, kTokensAhead)));
  const RequestId id = sequence->id;
  scheduler.submit(*sequence);
  sequences.emplace(id, std::move(sequence));
  return id;
}

std::vector<StepEvent> Engine::Impl::step() {
  std::vector<StepEvent> events;
  cancel_requested(events);
  if (scheduler.idle()) return events;
  const Clock::time_point start = Clock::now();
  const std::span<const Scheduler::Share> shares = scheduler.plan(batch);
  events.reserve(events.size() + shares.size() + scheduler.ended().size());
  if (!shares.empty()) {
    if (is_whole_step(shares)) {
      whole_step(shares, events);
    } else {
      model.transformer.forward(batch.view(), *cache, mode);
      scheduler.advance();
      choose_tokens(shares, events);
    }
  }
  for (const Scheduler::Ended& ended : scheduler.ended()) {
    const FinishReason reason = ended.error.empty() ? FinishReason::kLength : FinishReason::kError;
    end(*ended.sequence, {.request = ended.sequence->id, .token = {}, .text = {}, .finish = reason, .error = ended.error}, events);
  }
  record_time(shares, std::chrono::duration<double>(Clock::now() - start).count());
  return events;
}

void Engine::Impl::cancel_requested(std::vector<StepEvent>& events) {
  const std::lock_guard lock(cancel_mutex);
  for (RequestId id : cancelled) {
    const auto found = sequences.find(id);
    if (found == sequences.end()) continue;
    end(*found->second, {.request = id, .token = {}, .text = {}, .finish = FinishReason::kCancelled, .error = {}}, events);
  }
  cancelled.clear();
}

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
      draws.push_back(device_draw(sequence.options, sequence.tokens.size()).value_or(Draw{}));
    }
    if (!logit_rows.empty()) {
      const TensorView logits_of_rows = model.transformer.head(logit_rows);
      chosen.resize(logit_rows.size());
      if (on_device) model.transformer.tokens_after(logits_of_rows, draws, chosen);
      size_t row = 0;
      for (const Scheduler::Share& share : shares.subspan(first, last - first)) {
        if (!share.wants_next_token) continue;
        Sequence& sequence = *share.sequence;
        const auto* device_logits = static_cast<const float*>(logits_of_rows.data) + row * logits.size();
        if (on_device && device_draw(sequence.options, 0))
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
  if (!model.backend->prefers_whole_steps() || static_cast<int64_t>(shares.size()) > model.workspace.limits().max_logit_rows) return false;
  return std::ranges::all_of(shares, [](const Scheduler::Share& share) {
    return share.n_tokens == 1 && share.wants_next_token && device_draw(share.sequence->options, 0);
  });
}

void Engine::Impl::whole_step(std::span<const Scheduler::Share> shares, std::vector<StepEvent>& events) {
  draws.clear();
  for (const Scheduler::Share& share : shares) draws.push_back(*device_draw(share.sequence->options, share.sequence->tokens.size()));
  chosen.resize(shares.size());
  model.transformer.next_tokens(batch.view(), *cache, mode, draws, chosen);
  scheduler.advance();
  for (size_t i = 0; i < shares.size(); ++i) take_token(*shares[i].sequence, token_or_none(chosen[i]), events);
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

/// Adds what text was held back, tells, and forgets the sequence.
void Engine::Impl::end(Sequence& sequence, StepEvent event, std::vector<StepEvent>& events) {
  sequence.flush(event.text);
  scheduler.remove(sequence);
  const RequestId id = sequence.id;
  events.push_back(std::move(event));
  sequences.erase(id);
}

/// A step's time is shared between prefill and decode by their rows.
void Engine::Impl::record_time(std::span<const Scheduler::Share> shares, double seconds) {
  int64_t prefill = 0, decode = 0;
  for (const Scheduler::Share& share : shares) (share.is_prefill ? prefill : decode) += share.n_tokens;
  if (prefill + decode == 0) return;
  const double part = static_cast<double>(prefill) / static_cast<double>(prefill + decode);
  timings.prefill_tokens += prefill;
  timings.decode_tokens += decode;
  timings.prefill_seconds += seconds * part;
  timings.decode_seconds += seconds * (1.0 - part);
}

Engine::Engine(MiniLLM& model, const Tokenizer* tokenizer, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(model, tokenizer, options)) {}
Engine::~Engine() = default;

RequestId Engine::submit(std::vector<TokenId> prompt, const GenerationOptions& options) {
  return impl_->submit(std::move(prompt), options);
}

std::vector<StepEvent> Engine::step() { return impl_->step(); }

void Engine::cancel(RequestId request) {
  const std::lock_guard lock(impl_->cancel_mutex);
  impl_->cancelled.push_back(request);
}

bool Engine::idle() const { return impl_->scheduler.idle(); }
Timings Engine::timings() const { return impl_->timings; }
int64_t Engine::cache_bytes() const { return impl_->cache->storage().bytes(); }

}  // namespace minillm
