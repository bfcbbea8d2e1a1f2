// engine.cpp - Engine: plan a step, run it, tell what happened. How tokens are chosen is in engine_choice.cpp.
#include "minillm/engine.h"

#include <chrono>
#include <cstdlib>

#include "base/bytes.h"
#include "engine/engine_impl.h"

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
  for (WholeStep* step : {&under_way, &ahead}) {
    step->requests.reserve(static_cast<size_t>(options.max_batch));
    if (model.backend->prefers_whole_steps()) step->tokens = model.backend->make_pending_tokens(options.max_batch);
  }
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
  if (scheduler.idle()) {
    under_way.requests.clear();  // Begun for sequences that have ended.
    return events;
  }
  const Clock::time_point start = Clock::now();
  int64_t n_prefill = 0, n_decode = 0;
  if (under_way.requests.empty()) {
    const std::span<const Scheduler::Share> shares = scheduler.plan(batch);
    for (const Scheduler::Share& share : shares) (share.is_prefill ? n_prefill : n_decode) += share.n_tokens;
    events.reserve(events.size() + shares.size() + scheduler.ended().size());
    if (is_whole_step(shares)) {
      begin_whole_step(under_way, 0);
    } else if (!shares.empty()) {
      logit_rows.clear();
      for (const Scheduler::Share& share : shares)
        if (share.wants_next_token) logit_rows.push_back(share.last_row);
      model.transformer.forward(batch.view(), *cache, mode, logit_rows);
      scheduler.advance();
      choose_tokens(shares, events);
    }
    for (const Scheduler::Ended& ended : scheduler.ended()) {
      const FinishReason reason = ended.error.empty() ? FinishReason::kLength : FinishReason::kError;
      end(*ended.sequence, {.request = ended.sequence->id, .token = {}, .text = {}, .finish = reason, .error = ended.error}, events);
    }
  } else {
    n_decode = static_cast<int64_t>(under_way.requests.size());
    events.reserve(events.size() + under_way.requests.size());
  }
  if (!under_way.requests.empty()) end_whole_step(events);
  record_time(n_prefill, n_decode, std::chrono::duration<double>(Clock::now() - start).count());
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

/// Adds what text was held back, tells, and forgets the sequence.
void Engine::Impl::end(Sequence& sequence, StepEvent event, std::vector<StepEvent>& events) {
  sequence.flush(event.text);
  scheduler.remove(sequence);
  const RequestId id = sequence.id;
  events.push_back(std::move(event));
  sequences.erase(id);
}

/// A step's time is shared between prefill and decode by their rows.
void Engine::Impl::record_time(int64_t n_prefill, int64_t n_decode, double seconds) {
  if (n_prefill + n_decode == 0) return;
  const double part = static_cast<double>(n_prefill) / static_cast<double>(n_prefill + n_decode);
  timings.prefill_tokens += n_prefill;
  timings.decode_tokens += n_decode;
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
