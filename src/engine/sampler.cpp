// sampler.cpp - truncation without sorting the vocabulary: only as many candidates are put in order as are kept.
// Cost: one pass over the logits to check them, one to select; top-p alone adds V exponentials.
#include "engine/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "engine/philox.h"

namespace minillm {
namespace {

constexpr float kGreedyBelow = 1e-5f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The highest logit, or nothing for logits that cannot be sampled from. Sixteen lanes, so that the compiler can use vectors.
std::optional<float> checked_max(std::span<const float> logits) {
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> max;
  std::array<uint32_t, kLanes> bad{};  // Not below +inf: that, or NaN.
  max.fill(-kInfinity);
  const size_t n_whole = logits.size() / kLanes * kLanes;
  for (size_t i = 0; i < n_whole; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float logit = logits[i + lane];
      max[lane] = logit > max[lane] ? logit : max[lane];
      bad[lane] |= logit < kInfinity ? 0u : 1u;
    }
  for (size_t i = n_whole; i < logits.size(); ++i) {
    max[0] = std::max(max[0], logits[i]);
    bad[0] |= logits[i] < kInfinity ? 0u : 1u;
  }
  const float highest = *std::ranges::max_element(max);
  if (highest == -kInfinity || std::ranges::any_of(bad, [](uint32_t b) { return b != 0; })) return std::nullopt;
  return highest;
}

/// -inf stays; everything else stays finite.
float clamp_finite(float logit) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  return logit == -kInfinity ? logit : std::clamp(logit, -kLargest, kLargest);
}

bool comes_first(const Candidate& a, const Candidate& b) { return a.logit > b.logit || (a.logit == b.logit && a.id < b.id); }

float weight_of(float logit, float max, float temperature) { return std::exp((logit - max) / temperature); }

}  // namespace

bool penalises(const GenerationOptions& options) noexcept {
  return options.repetition_penalty != 1.0f || options.presence_penalty != 0.0f || options.frequency_penalty != 0.0f;
}

Draw device_draw(const GenerationOptions& options, size_t position) noexcept {
  if (options.temperature < kGreedyBelow) return Draw{};
  return Draw{.uniform = uniform_at(options.seed, position),
              .temperature = options.temperature,
              .top_p = options.top_p,
              .min_p = options.min_p,
              .top_k = static_cast<int32_t>(options.top_k)};
}

Sampler::Sampler(int64_t vocab_size)
    : counts_(static_cast<size_t>(vocab_size)), weights_(static_cast<size_t>(vocab_size)), candidates_(static_cast<size_t>(vocab_size)) {}

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
  total_ = 0;
  for (Candidate& candidate : std::span(candidates_).first(n_candidates_))
    total_ += candidate.weight = weight_of(candidate.logit, max, temperature);
}

/// All tokens that can be among the first p of the weight, in order. Those below (1 - p) total / V hold less than 1 - p together, so
/// they are not; half of that leaves room for rounding. What stays is a small part of a vocabulary, so that sorting it is cheap.
void Sampler::keep_likely(std::span<const float> logits, float max, const GenerationOptions& options) {
  double total = 0;
  for (size_t i = 0; i < logits.size(); ++i) total += weights_[i] = weight_of(logits[i], max, options.temperature);
  total_ = total;
  const double least = 0.5 * (1.0 - static_cast<double>(options.top_p)) * total / static_cast<double>(logits.size());
  n_candidates_ = 0;
  for (size_t i = 0; i < logits.size(); ++i)
    if (weights_[i] >= least) candidates_[n_candidates_++] = {static_cast<TokenId>(i), logits[i], weights_[i]};
  const auto begin = candidates_.begin(), end = begin + static_cast<ptrdiff_t>(n_candidates_);
  auto ordered = begin;
  for (ptrdiff_t n = 256; ordered != end; n *= 4) {  // Only as many are sorted as hold the share p, and a trifle for rounding.
    ordered = n < end - begin ? begin + n : end;
    std::nth_element(begin, ordered, end, comes_first);
    double sum = 0;
    for (auto candidate = begin; candidate != ordered; ++candidate) sum += candidate->weight;
    if (sum > static_cast<double>(options.top_p) * total * (1.0 + 1e-9)) break;
  }
  std::sort(begin, ordered, comes_first);
  n_candidates_ = static_cast<size_t>(ordered - begin);
}

/// The shortest prefix of the candidates that holds the share p of `total_`; all, if rounding keeps the sum below it.
void Sampler::cut_at_top_p(float top_p) {
  double sum = 0;
  for (size_t i = 0; i < n_candidates_; ++i) {
    sum += candidates_[i].weight;
    if (sum < static_cast<double>(top_p) * total_) continue;
    n_candidates_ = i + 1;
    return;
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
  const std::optional<float> max_before = checked_max(logits);
  if (!max_before) return {};
  const bool penalised = penalises(options);
  if (penalised) apply_penalties(logits, history, options);
  const float max = penalised ? *checked_max(logits) : *max_before;

  if (options.temperature < kGreedyBelow) {
    const auto best = std::ranges::find(logits, max);
    candidates_[0] = {static_cast<TokenId>(best - logits.begin()), max, 1.0f};
    n_candidates_ = 1;
  } else if (options.top_k > 0 && options.top_k < static_cast<int64_t>(logits.size())) {
    keep_top(logits, options.top_k, max, options.temperature);
    if (options.top_p < 1.0f) cut_at_top_p(options.top_p);
  } else if (options.top_p < 1.0f) {
    keep_likely(logits, max, options);
    cut_at_top_p(options.top_p);
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

TokenId drawn_from(std::span<const Candidate> candidates, double uniform) noexcept {
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  const double target = uniform * total;
  double sum = 0;
  TokenId chosen = candidates[0].id;
  for (const Candidate& candidate : candidates) {
    if (candidate.weight > 0) chosen = candidate.id;  // A weight that underflowed to zero is never drawn.
    sum += candidate.weight;
    if (sum > target) break;
  }
  return chosen;
}

std::optional<TokenId> Sampler::sample(std::span<float> logits, const History& history, const GenerationOptions& options) {
  const std::span<const Candidate> kept = candidates(logits, history, options);
  if (kept.empty()) return std::nullopt;
  if (kept.size() == 1) return kept[0].id;
  return drawn_from(kept, uniform_at(options.seed, history.tokens.size()));
}

}  // namespace minillm
