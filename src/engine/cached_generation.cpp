// cached_generation.cpp - TextGenerator::generate_cached: one sequence whose cache outlives the call.
// The same steps as Engine's for a sequence alone, so the same tokens: a row's result does not depend on how it was cut into calls.
#include <algorithm>
#include <chrono>

#include "engine/generator_impl.h"
#include "engine/sampler.h"
#include "engine/sequence.h"
#include "minillm/error.h"
#include "model/model_impl.h"

namespace minillm {
namespace {

constexpr char kWhere[] = "generate_cached: ";

void check(const CachedText& text, const TextGeneratorOptions& own) {
  const auto refuse = [](const auto&... parts) { throw Error(ErrorCode::kInvalidArgument, kWhere, parts...); };
  if (own.prefill_chunk < 0) refuse("prefill_chunk is ", own.prefill_chunk, ", expected 0 (what suits the device) or more");
  if (text.cache.batch_size() != 1) refuse("the cache has ", text.cache.batch_size(), " rows, expected one");
  if (text.cache.lengths()[0] != static_cast<int64_t>(text.tokens.size()))
    refuse("the cache holds ", text.cache.lengths()[0], " tokens, the text ", text.tokens.size());
}

/// One call: what it has made so far, and how it goes on.
class CachedRun {
 public:
  CachedRun(MiniLLM& model, const TextGeneratorOptions& own, CachedText& text, const TextGenerator::Callback& callback)
      : model_(model), own_(own), text_(text), callback_(callback), sampler_(model.config().vocab_size) {}

  Generation run(const std::vector<TokenId>& prompt, const GenerationOptions& options, Timings& timings) {
    keep_common(prompt);
    sequence_.begin(prompt, options, own_.tokenizer);
    const auto start = std::chrono::steady_clock::now();
    auto prefilled = start;
    const size_t n_kept = text_.tokens.size();
    while (feed() && choose()) {
      if (sequence_.n_generated() == 1) prefilled = std::chrono::steady_clock::now();
    }
    const auto end = std::chrono::steady_clock::now();
    const auto n_fed = static_cast<int64_t>(text_.tokens.size() - n_kept);
    timings.prefill_tokens = std::min(n_fed, sequence_.n_prompt - static_cast<int64_t>(n_kept));
    timings.decode_tokens = n_fed - timings.prefill_tokens;
    if (timings.decode_tokens == 0) prefilled = end;
    timings.prefill_seconds = std::chrono::duration<double>(prefilled - start).count();
    timings.decode_seconds = std::chrono::duration<double>(end - prefilled).count();
    return std::move(generation_);
  }

 private:
  /// Of the cached tokens those that the prompt begins with.
  void keep_common(const std::vector<TokenId>& prompt) {
    const auto differs = std::ranges::mismatch(text_.tokens, prompt).in1;
    // The last token of the prompt is computed in any case: its logits are wanted.
    const size_t n_same = std::min(static_cast<size_t>(differs - text_.tokens.begin()), prompt.size() - 1);
    text_.cache.crop(static_cast<int64_t>(n_same));
    text_.tokens.resize(n_same);
  }

  /// Computes every known token that the cache does not hold, a chunk at a time. False if the callback ended it.
  bool feed() {
    while (text_.tokens.size() < sequence_.tokens.size()) {
      const size_t at = text_.tokens.size(), left = sequence_.tokens.size() - at;
      const size_t n = std::min(left, static_cast<size_t>(model_.impl().step_rows(own_.prefill_chunk)));
      if (left > 1 && callback_ && !callback_(0, StepEvent{})) {
        generation_.finish_reason = FinishReason::kCancelled;
        return false;
      }
      Tensor ids({1, static_cast<int64_t>(n)}, Dtype::kI32);
      std::copy_n(sequence_.tokens.begin() + static_cast<ptrdiff_t>(at), n, ids.values<int32_t>().begin());
      advance(ids, n == left);
      text_.tokens.insert(text_.tokens.end(), ids.values<int32_t>().begin(), ids.values<int32_t>().end());
    }
    return true;
  }

  /// Computes `ids`, and after the last of the known tokens the next one: on the device, if it does and there are no penalties.
  void advance(const Tensor& ids, bool is_last) {
    const ForwardOptions options{.kv_cache = &text_.cache,
                                 .use_flash_attention = own_.use_flash_attention,
                                 .flash_block_size = own_.flash_block_size,
                                 .last_logits_only = true};
    if (is_last && !penalises(sequence_.options) && model_.impl().backend->prefers_whole_steps()) {
      next_ = token_or_none(model_.impl().next_token(ids, options, device_draw(sequence_.options, sequence_.tokens.size())));
      return;
    }
    Tensor logits = model_.forward(ids, options);
    if (is_last) next_ = sampler_.sample(logits.values<float>(), {sequence_.tokens, sequence_.n_prompt}, sequence_.options);
  }

  /// What the next token means. False at the end.
  bool choose() {
    StepEvent event;
    event.token = next_;
    if (!event.token) {
      event.finish = FinishReason::kError;
      event.error = "non-finite logits at position " + std::to_string(sequence_.n_tokens() - 1);
    } else {
      sequence_.take(*event.token, capacity(), event);
      generation_.ids.push_back(*event.token);
    }
    if (event.finish != FinishReason::kNone) sequence_.flush(event.text);
    generation_.text += event.text;
    generation_.finish_reason = event.finish;
    generation_.error = event.error;
    const bool goes_on = !callback_ || callback_(0, event);
    if (event.finish != FinishReason::kNone) return false;
    if (goes_on) return true;
    generation_.finish_reason = FinishReason::kCancelled;
    sequence_.flush(generation_.text);
    return false;
  }

  int64_t capacity() const {
    const int64_t own = text_.cache.capacity(), context = model_.config().context_length;
    return own >= 0 ? std::min(own, context) : context;
  }

  MiniLLM& model_;
  const TextGeneratorOptions& own_;
  CachedText& text_;
  const TextGenerator::Callback& callback_;
  Sampler sampler_;
  Sequence sequence_;
  std::optional<TokenId> next_;
  Generation generation_;
};

}  // namespace

Generation TextGenerator::generate_cached(CachedText& text, const std::vector<TokenId>& prompt_ids, const GenerationOptions& options,
                                          const Callback& callback) {
  check_request(kWhere, prompt_ids, options, impl_->options.tokenizer, impl_->model->config());
  check(text, impl_->options);
  impl_->timings = {};
  return CachedRun(*impl_->model, impl_->options, text, callback).run(prompt_ids, options, impl_->timings);
}

}  // namespace minillm
