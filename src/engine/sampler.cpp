// sampler.cpp - truncation without sorting the vocabulary: only as many candidates are put in order as are kept.
// Cost: one pass over the logits to check them, one to select; top-p alone adds V exponentials.
#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "engine/philox.h"

namespace minillm {
namespace {

constexpr float kGreedyBelow = 1e-5f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The highest logit, or nothing for logits that cannot be sampled from.
std::optional<float> checked_max(std::span<const float> logits) {
  float max = -kInfinity;
  bool bad = false;
  for (float logit : logits) {
    bad |= !(logit < kInfinity);  // NaN or +inf.
    max = logit > max ? logit : max;
  }
  if (bad || max == -kInfinity) return std::nullopt;
  return max;
}

/// -inf stays; everything else stays finite.
float clamp_finite(float logit) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  return logit == -kInfinity ? logit : std::clamp(logit, -kLargest, kLargest);
}

bool comes_first(const Candidate& a, const Candidate& b) { return a.logit > b.logit || (a.logit == b.logit && a.id < b.id); }

float weight_of(float logit, float max, float temperature) { return std::exp((logit - max) / temperature); }

}  // namespace

Sampler::Sampler(int64_t vocab_size) : counts_(static_cast<size_t>(vocab_size)), candidates_(static_cast<size_t>(vocab_size)) {}

void Sampler::apply_penalties(std::span<float> logits, const History& history, const GenerationOptions& options) {
  const auto generated = history.tokens.subspan(static_cast<size_t>(history.n_prompt));
  if (options.repetition_penalty != 1.0f) {
    for (TokenId id : history.tokens) {
      if (counts_[static_cast<size_t>(id)]++ != 0) continue;  // Once for each different token.
      float& logit = logits[static_cast<size_t>(id)];
      logit = clamp_finite(logit > 0 ? logit / options.repetition_penalty : logit * options.repetition_penalty);
    }
    for (TokenId id : history.tokens) counts_[static_cast<size_t>(id)] = 0;
  }
  if (options.presence_penalty != 0.0f || options.frequency_penalty != 0.0f) {
    for (TokenId id : generated) ++counts_[static_cast<size_t>(id)];
    for (TokenId id : generated) {
      uint32_t& count = counts_[static_cast<size_t>(id)];
      if (count == 0) continue;
      float& logit = logits[static_cast<size_t>(id)];
      logit = clamp_finite(logit - options.frequency_penalty * static_cast<float>(count) - options.presence_penalty);
      count = 0;
    }
  }
}

/// The first `n` candidates, in order: a heap of n, so that most logits cost one comparison.
void Sampler::keep_top(std::span<const float> logits, int64_t n, float max, float temperature) {
  const auto begin = candidates_.begin();
  int64_t size = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (size == n && !(logits[i] > begin->logit)) continue;  // begin is the last of the kept; an equal logit has a higher id.
    if (size == n) std::pop_heap(begin, begin + size--, comes_first);
    begin[size++] = {static_cast<TokenId>(i), logits[i], 0};
    std::push_heap(begin, begin + size, comes_first);
  }
  std::sort_heap(begin, begin + size, comes_first);
  n_candidates_ = static_cast<size_t>(size);
  for (Candidate& candidate : std::span(candidates_).first(n_candidates_)) candidate.weight = weight_of(candidate.logit, max, temperature);
}

/// Puts ever more candidates in order until they hold the share p of all weight.
void Sampler::keep_top_p(std::span<const float> logits, float max, const GenerationOptions& options) {
  const int64_t n_logits = static_cast<int64_t>(logits.size());
  const bool top_k = options.top_k > 0 && options.top_k < n_logits;
  double total = 0;
  if (!top_k)
    for (float logit : logits) total += weight_of(logit, max, options.temperature);
  for (int64_t n = top_k ? options.top_k : std::min<int64_t>(n_logits, 64);; n = std::min(n_logits, 8 * n)) {
    keep_top(logits, n, max, options.temperature);
    const auto kept = std::span(candidates_).first(n_candidates_);
    if (top_k)
      for (const Candidate& candidate : kept) total += candidate.weight;
    double sum = 0;
    for (size_t i = 0; i < kept.size(); ++i) {
      sum += kept[i].weight;
      if (sum < options.top_p * total) continue;
      n_candidates_ = i + 1;
      return;
    }
    if (top_k || n == n_logits) return;  // Rounding kept the sum below p: all stay.
  }
}

/// Everything that min-p leaves, by id.
void Sampler::keep_all(std::span<const float> logits, float max, const GenerationOptions& options) {
  n_candidates_ = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float weight = weight_of(logits[i], max, options.temperature);
    if (weight > 0 && weight >= options.min_p) candidates_[n_candidates_++] = {static_cast<TokenId>(i), logits[i], weight};
  }
}

std::span<const Candidate> Sampler::candidates(std::span<float> logits, const History& history, const GenerationOptions& options) {
  MINILLM_CHECK(logits.size() == counts_.size(), logits.size(), " logits, expected ", counts_.size());
  n_candidates_ = 0;
  if (!checked_max(logits)) return {};
  apply_penalties(logits, history, options);
  const float max = *checked_max(logits);

  if (options.temperature < kGreedyBelow) {
    const auto best = std::ranges::find(logits, max);
    candidates_[0] = {static_cast<TokenId>(best - logits.begin()), max, 1.0f};
    n_candidates_ = 1;
  } else if (options.top_p < 1.0f) {
    keep_top_p(logits, max, options);
  } else if (options.top_k > 0 && options.top_k < static_cast<int64_t>(logits.size())) {
    keep_top(logits, options.top_k, max, options.temperature);
  } else {
    keep_all(logits, max, options);
  }
  const auto kept = std::span(candidates_).first(n_candidates_);
  if (options.min_p > 0.0f) {
    const auto dropped = std::remove_if(kept.begin(), kept.end(), [&](const Candidate& c) { return c.weight < options.min_p; });
    n_candidates_ = static_cast<size_t>(dropped - kept.begin());
  }
  return std::span(candidates_).first(n_candidates_);
}

std::optional<TokenId> Sampler::sample(std::span<float> logits, const History& history, const GenerationOptions& options) {
  const std::span<const Candidate> kept = candidates(logits, history, options);
  if (kept.empty()) return std::nullopt;
  if (kept.size() == 1) return kept[0].id;
  double total = 0;
  for (const Candidate& candidate : kept) total += candidate.weight;
  const double target = uniform_at(options.seed, history.tokens.size()) * total;
  double sum = 0;
  TokenId chosen = kept[0].id;
  for (const Candidate& candidate : kept) {
    if (candidate.weight > 0) chosen = candidate.id;  // A weight that underflowed to zero is never drawn.
    sum += candidate.weight;
    if (sum > target) break;
  }
  return chosen;
}

}  // namespace minillm
