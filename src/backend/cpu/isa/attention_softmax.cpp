// attention_softmax.cpp - online softmax of one row: scores to probabilities, block by block, and the merge of runs.
//   m' = max(m, scores); p = 2^(score - m'); l' = l 2^(m - m') + sum p; o' = o 2^(m - m') (the values are added elsewhere).
// Source: Milakov & Gimelshein 2018, arXiv:1805.02867; Dao 2023, arXiv:2307.08691. A row without keys keeps m = -inf, l = 0, o = 0.
#include "backend/cpu/isa/attention_math.h"
#include "backend/cpu/isa/attention_tables.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

/// 2^(a - b) for a <= b; 1 where both are -inf.
MINILLM_INLINE float power_of_difference(float a, float b) {
  if (a == b) return 1.0f;
  float result[kWidth];
  store(result, exp2_nonpositive(broadcast(a - b)));
  return result[0];
}

constexpr int kUnrolled = kVecsPerPanel > 1 ? kVecsPerPanel : 4;  ///< Vectors of scores a step: what 2^x has registers for.

MINILLM_INLINE void scale(float* o, float factor, int64_t padded_width) {
  const Vec by = broadcast(factor);
  for (int64_t i = 0; i < padded_width; i += kWidth) store(o + i, mul(load(o + i), by));
}

}  // namespace

namespace {

/// Whether scores stay raw q.k in memory: their only change is a positive factor, which keeps the order, so that the largest
/// is the factor times the largest q.k, and which exponentials() applies in the same instruction as the maximum.
MINILLM_INLINE bool is_plain(const ScoreMap& map) { return map.cap == 0.0f && map.slope == 0.0f && map.scale > 0.0f; }

MINILLM_INLINE Vec map_vector(Vec x, Vec key, const ScoreMap& map) {
  x = mul(x, broadcast(map.scale));
  if (map.cap != 0.0f) x = mul(broadcast(map.cap), tanh(x));
  if (map.slope == 0.0f) return x;
  return fma(broadcast(map.slope), abs(sub(broadcast(static_cast<float>(map.distance)), key)), x);
}

/// One panel, mapped, with -inf outside `range`, stored; `largest_so_far` brought up to date.
MINILLM_INLINE void map_panel(float* scores, int64_t panel, KeyRange range, const ScoreMap& map, Vec& largest_so_far) {
  const Vec begin = broadcast(static_cast<float>(range.begin)), end = broadcast(static_cast<float>(range.end));
  const Vec hidden = broadcast(kMinusInfinity);
  unroll<kVecsPerPanel>([&](auto c) __attribute__((always_inline)) {
    float* at = scores + panel + c * kWidth;
    const Vec key = add(broadcast(static_cast<float>(panel + c * kWidth)), lane_indices());
    const Vec x = is_plain(map) ? load(at) : map_vector(load(at), key, map);
    const Vec seen = select_below(key, begin, hidden, select_below(key, end, x, hidden));
    largest_so_far = max(seen, largest_so_far);
    store(at, seen);
  });
}

/// The largest of the row's scores, before its factor if they stay raw, spread over lanes.
MINILLM_INLINE Vec map_range(float* scores, KeyRange range, const ScoreMap& map) {
  Vec largest_so_far = broadcast(kMinusInfinity);
  if (range.begin >= range.end) return largest_so_far;
  int64_t s = range.begin / kKeyPanel * kKeyPanel;
  if (!is_plain(map)) {
    for (; s < range.end; s += kKeyPanel) map_panel(scores, s, range, map, largest_so_far);
    return largest_so_far;
  }
  if (s < range.begin) map_panel(scores, s, range, map, largest_so_far), s += kKeyPanel;
  Vec others = largest_so_far;  // Two chains, several vectors a step: short loops end in a misprediction each.
  for (; s + kUnrolled * kWidth <= range.end; s += kUnrolled * kWidth) {
    unroll<kUnrolled / 2>([&](auto c) __attribute__((always_inline)) {
      largest_so_far = max(load(scores + s + 2 * c * kWidth), largest_so_far);
      others = max(load(scores + s + (2 * c + 1) * kWidth), others);
    });
  }
  largest_so_far = max(largest_so_far, others);
  for (; s + kKeyPanel <= range.end; s += kKeyPanel) {
    unroll<kVecsPerPanel>([&](auto c)
                              __attribute__((always_inline)) { largest_so_far = max(load(scores + s + c * kWidth), largest_so_far); });
  }
  if (s < range.end) map_panel(scores, s, range, map, largest_so_far);
  return largest_so_far;
}

MINILLM_INLINE float factor_of(const ScoreMap& map) { return is_plain(map) ? map.scale : 1.0f; }

MINILLM_INLINE void exponentials_of_range(float* scores, KeyRange range, const ScoreMap& map, float max_score, float* sum) {
  // All scores -inf (overflow of q.k): against 0 they become probabilities of 0, not NaN.
  const Vec lowered = broadcast(max_score == kMinusInfinity ? 0.0f : -max_score), factor = broadcast(factor_of(map));
  Vec sums[kVecsPerPanel];
  unroll<kVecsPerPanel>([&](auto c) __attribute__((always_inline)) { sums[c] = load(sum + c * kWidth); });
  const auto vector = [&](float* at, Vec& lanes) __attribute__((always_inline)) {
    const Vec p = exp2_nonpositive(fma(load(at), factor, lowered));
    lanes = add(lanes, p);
    store(at, p);
  };
  int64_t s = range.begin / kKeyPanel * kKeyPanel;
  for (; s + (kUnrolled - kVecsPerPanel) * kWidth < range.end; s += kUnrolled * kWidth)
    unroll<kUnrolled>([&](auto c) __attribute__((always_inline)) { vector(scores + s + c * kWidth, sums[c % kVecsPerPanel]); });
  for (; s < range.end; s += kKeyPanel)
    unroll<kVecsPerPanel>([&](auto c) __attribute__((always_inline)) { vector(scores + s + c * kWidth, sums[c]); });
  unroll<kVecsPerPanel>([&](auto c) __attribute__((always_inline)) { store(sum + c * kWidth, sums[c]); });
}

}  // namespace

float map_scores(float* scores, KeyRange range, const ScoreMap& map) { return largest(map_range(scores, range, map)) * factor_of(map); }

void exponentials(float* scores, KeyRange range, const ScoreMap& map, float max_score, float* sum) {
  exponentials_of_range(scores, range, map, max_score, sum);
}

void softmax_rows(const SoftmaxTile& tile) {
  // Rows in groups, each step for all of a group: what one row waits for (its maximum across lanes, the change of its maximum)
  // is hidden behind the others.
  constexpr int64_t kGroup = 16;
  for (int64_t row = 0; row < tile.n_rows; row += kGroup) {
    const int64_t n = tile.n_rows - row < kGroup ? tile.n_rows - row : kGroup;
    float lanes[kGroup * kWidth], found[kGroup], before[kGroup], now[kGroup], keep[kGroup];
    for (int64_t i = 0; i < kGroup; ++i) before[i] = kMinusInfinity;
    for (int64_t i = 0; i < n; ++i)
      store(lanes + i * kWidth, map_range(tile.scores + (row + i) * tile.score_stride, tile.ranges[row + i], tile.maps[row + i]));
    for (int64_t i = n; i < kGroup; ++i) store(lanes + i * kWidth, broadcast(kMinusInfinity));
    row_maxima(lanes, found);
    for (int64_t i = 0; i < n; ++i) {
      before[i] = tile.max[row + i];
      found[i] *= factor_of(tile.maps[row + i]);
    }
    for (int64_t i = 0; i < kGroup; i += kWidth) {
      const Vec old = load(before + i), block = load(found + i);
      store(now + i, select_below(old, block, block, old));
      store(keep + i, select_below(old, block, exp2_nonpositive(sub(old, block)), broadcast(1.0f)));
    }
    for (int64_t i = 0; i < n; ++i) {
      if (keep[i] == 1.0f) continue;
      scale(tile.sums + (row + i) * kKeyPanel, keep[i], kKeyPanel);
      scale(tile.o + (row + i) * tile.o_stride, keep[i], tile.padded_width);
    }
    for (int64_t i = 0; i < n; ++i) {
      tile.max[row + i] = now[i];
      exponentials_of_range(tile.scores + (row + i) * tile.score_stride, tile.ranges[row + i], tile.maps[row + i], now[i],
                            tile.sums + (row + i) * kKeyPanel);
    }
  }
}

float sum_lanes(const float* sum) { return sum_tree(sum); }

void merge(float* total_o, RowTotal& total, const float* o, RowTotal part, int64_t padded_width) {
  const float new_max = part.max > total.max ? part.max : total.max;
  const float keep = power_of_difference(total.max, new_max), take = power_of_difference(part.max, new_max);
  const Vec keep_all = broadcast(keep), take_all = broadcast(take);
  for (int64_t i = 0; i < padded_width; i += kWidth) store(total_o + i, fma(load(o + i), take_all, mul(load(total_o + i), keep_all)));
  total.sum = total.sum * keep;
  total.sum += part.sum * take;
  total.max = new_max;
}

void divide(float* out, const float* o, float sum, int64_t head_dim) {
  if (sum == 0.0f) {
    for (int64_t i = 0; i < head_dim; ++i) out[i] = 0.0f;
    return;
  }
  const float inverse = 1.0f / sum;
  const Vec by = broadcast(inverse);
  int64_t i = 0;
  for (; i + kWidth <= head_dim; i += kWidth) store(out + i, mul(load(o + i), by));
  for (; i < head_dim; ++i) out[i] = o[i] * inverse;
}

}  // namespace minillm::cpu::MINILLM_ISA
