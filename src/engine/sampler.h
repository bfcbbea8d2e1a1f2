// sampler.h - from logits to the next token: penalties, temperature, top-k, top-p, min-p, then the draw.
// Rules, exactly (candidates are ordered by logit, highest first, equal ones by id):
//   penalties    repetition r over prompt and generated tokens: l > 0 ? l / r : l r; then, over generated tokens only,
//                l - frequency * count - presence. Same order as Hugging Face and vLLM.
//   temperature  w = exp((l - max l) / t). Below 1e-5 the choice is greedy: the highest logit, the lowest id of equals.
//   top-k        the first k candidates.
//   top-p        of those, the shortest prefix whose share of their weight is at least p; never empty.
//   min-p        of those, the ones with w >= min_p (the highest has w = 1).
//   draw         u from Philox with key = seed and counter = position, so that a token depends on nothing but its own sequence.
// Memory: scratch for one row of logits, taken by the constructor; sampling allocates nothing.
// Threads: one caller at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "backend/draw.h"
#include "minillm/engine.h"

namespace minillm {

/// Whether the text before a token changes its logits.
bool penalises(const GenerationOptions& options) noexcept;
/// How a device takes the token for `position`, where nothing is penalised.
Draw device_draw(const GenerationOptions& options, size_t position) noexcept;
/// What a device chose; nothing where the row could not be drawn from.
inline std::optional<TokenId> token_or_none(TokenId chosen) { return chosen < 0 ? std::optional<TokenId>() : chosen; }

/// A token that may be drawn, and its weight relative to the most likely one.
struct Candidate {
  TokenId id = 0;
  float logit = 0;
  float weight = 0;
};

/// The candidate, one of at least one, at which the share `uniform`, in [0, 1), of their weight is reached.
TokenId drawn_from(std::span<const Candidate> candidates, double uniform) noexcept;

/// What has been seen before the token that is chosen.
struct History {
  std::span<const TokenId> tokens;  ///< Prompt, then generated.
  int64_t n_prompt = 0;
};

class Sampler {
 public:
  explicit Sampler(int64_t vocab_size);

  /// The token for position tokens.size(). `logits` [V] are changed by the penalties.
  /// Nothing if a logit is NaN or +inf, or all are -inf. `options` must have been validated.
  std::optional<TokenId> sample(std::span<float> logits, const History& history, const GenerationOptions& options);

  /// The candidates that are left after penalties and truncation, as sample() draws from them. Valid until the next call.
  /// Empty for logits that sample() refuses.
  std::span<const Candidate> candidates(std::span<float> logits, const History& history, const GenerationOptions& options);

 private:
  void apply_penalties(std::span<float> logits, const History& history, const GenerationOptions& options);
  void keep_top(std::span<const float> logits, int64_t n, float max, float temperature);
  void keep_likely(std::span<const float> logits, float max, const GenerationOptions& options);
  void cut_at_top_p(float top_p);
  void keep_all(std::span<const float> logits, float max, const GenerationOptions& options);

  std::vector<uint32_t> counts_;       ///< [V], zero between calls.
  std::vector<float> weights_;         ///< [V]
  std::vector<Candidate> candidates_;  ///< [V]
  double total_ = 0;                   ///< Weight that top-p is a share of.
  size_t n_candidates_ = 0;
};

}  // namespace minillm
