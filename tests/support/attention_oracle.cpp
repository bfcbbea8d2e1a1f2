// attention_oracle.cpp - two passes over the keys of each row, no tricks.
#include "support/attention_oracle.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "base/half.h"
#include "support/random.h"

namespace minillm::test {
namespace {

template <typename T>
struct Row {
  std::vector<T> scores;
  int64_t begin = 0, end = 0;
};

/// What a plain implementation keeps of a number that it writes to memory.
template <typename T>
T kept(T value, bool bf16) {
  return bf16 ? static_cast<T>(bfloat16_to_float(float_to_bfloat16(static_cast<float>(value)))) : value;
}

template <typename T>
Row<T> scores_of(const AttentionCase& c, int64_t i, int64_t h, bool bf16) {
  const AttentionParams& p = c.params;
  const int64_t width = p.head_dim, g = h / (p.n_heads / p.n_kv_heads), position = i + c.n_keys - c.n_queries;
  Row<T> row;
  row.begin = p.window > 0 ? std::max<int64_t>(0, position + 1 - p.window) : 0;
  row.end = p.causal ? std::min(c.n_keys, position + 1) : c.n_keys;
  for (int64_t s = row.begin; s < row.end; ++s) {
    T dot = 0;
    for (int64_t d = 0; d < width; ++d)
      dot += static_cast<T>(c.q[static_cast<size_t>((i * p.n_heads + h) * width + d)]) *
             static_cast<T>(c.k[static_cast<size_t>((s * p.n_kv_heads + g) * width + d)]);
    T score = dot * static_cast<T>(p.scale);
    if (p.softcap != 0.0f) score = static_cast<T>(p.softcap) * std::tanh(score / static_cast<T>(p.softcap));
    if (!p.alibi_slopes.empty()) score -= static_cast<T>(p.alibi_slopes[static_cast<size_t>(h)]) * static_cast<T>(std::abs(position - s));
    row.scores.push_back(kept(score, bf16));
  }
  return row;
}

template <typename T>
AttentionAnswer<T> attend(const AttentionCase& c, bool bf16 = false) {
  const AttentionParams& p = c.params;
  const int64_t width = p.head_dim, group = p.n_heads / p.n_kv_heads;
  AttentionAnswer<T> answer;
  answer.out.assign(static_cast<size_t>(c.n_queries * p.n_heads * width), T(0));
  answer.lse.assign(static_cast<size_t>(c.n_queries * p.n_heads), -std::numeric_limits<T>::infinity());
  for (int64_t i = 0; i < c.n_queries; ++i)
    for (int64_t h = 0; h < p.n_heads; ++h) {
      const Row<T> row = scores_of<T>(c, i, h, bf16);
      T max = -std::numeric_limits<T>::infinity(), sum = 0;
      if (!p.sinks.empty()) max = static_cast<T>(p.sinks[static_cast<size_t>(h)]);
      for (const T score : row.scores) max = std::max(max, score);
      if (row.scores.empty() && p.sinks.empty()) continue;
      if (!p.sinks.empty()) sum = std::exp(static_cast<T>(p.sinks[static_cast<size_t>(h)]) - max);
      std::vector<T> total(static_cast<size_t>(width), T(0));
      for (size_t j = 0; j < row.scores.size(); ++j) {
        const T weight = kept(std::exp(row.scores[j] - max), bf16);
        sum += weight;
        const int64_t s = row.begin + static_cast<int64_t>(j);
        for (int64_t d = 0; d < width; ++d)
          total[static_cast<size_t>(d)] += weight * static_cast<T>(c.v[static_cast<size_t>((s * p.n_kv_heads + h / group) * width + d)]);
      }
      const int64_t at = i * p.n_heads + h;
      for (int64_t d = 0; d < width; ++d) answer.out[static_cast<size_t>(at * width + d)] = total[static_cast<size_t>(d)] / sum;
      answer.lse[static_cast<size_t>(at)] = max + std::log(sum);
    }
  return answer;
}

/// First element of `got` further from `want` than the rule allows; `plain` sets the yardstick.
std::string first_excess(const char* what, std::span<const float> got, std::span<const double> want, std::span<const float> plain) {
  double plain_error = 0;
  for (size_t i = 0; i < want.size(); ++i)
    if (std::isfinite(want[i])) plain_error = std::max(plain_error, std::abs(static_cast<double>(plain[i]) - want[i]));
  const double tolerance = 2 * plain_error + 1e-5;
  for (size_t i = 0; i < want.size(); ++i) {
    const double value = static_cast<double>(got[i]);
    const bool good = std::isfinite(want[i]) ? std::abs(value - want[i]) <= tolerance : value == want[i];
    if (good) continue;
    std::ostringstream text;
    text << what << "[" << i << "] = " << value << ", expected " << want[i] << " within " << tolerance;
    return text.str();
  }
  return {};
}

}  // namespace

AttentionAnswer<double> attention_in_double(const AttentionCase& c) { return attend<double>(c); }
AttentionAnswer<float> attention_in_float(const AttentionCase& c) { return attend<float>(c); }
AttentionAnswer<float> attention_in_bf16(const AttentionCase& c) {
  AttentionCase rounded = c;
  for (std::vector<float>* part : {&rounded.q, &rounded.k, &rounded.v}) round_to(Dtype::kBF16, *part);
  return attend<float>(rounded, true);
}

AttentionCase random_case(const AttentionParams& params, int64_t n_queries, int64_t n_keys, Dtype dtype, uint64_t seed, double spread) {
  AttentionCase c{params, n_queries, n_keys, {}, {}, {}};
  c.q = randn(3 * seed, n_queries * params.n_heads * params.head_dim, spread);
  c.k = randn(3 * seed + 1, n_keys * params.n_kv_heads * params.head_dim);
  c.v = randn(3 * seed + 2, n_keys * params.n_kv_heads * params.head_dim);
  round_to(dtype, c.k);
  round_to(dtype, c.v);
  return c;
}

void round_to(Dtype dtype, std::span<float> values) {
  for (float& value : values) {
    if (dtype == Dtype::kF16) value = half_to_float(float_to_half(value));
    if (dtype == Dtype::kBF16) value = bfloat16_to_float(float_to_bfloat16(value));
    if (dtype == Dtype::kF8) value = f8_to_float(float_to_f8(value));
  }
}

std::string compare_attention(const AttentionCase& c, std::span<const float> out, std::span<const float> lse, Dtype yardstick) {
  const AttentionAnswer<double> want = attention_in_double(c);
  const AttentionAnswer<float> plain = yardstick == Dtype::kBF16 ? attention_in_bf16(c) : attention_in_float(c);
  if (out.size() != want.out.size()) return "out has " + std::to_string(out.size()) + " elements";
  std::string excess = first_excess("out", out, want.out, plain.out);
  if (excess.empty() && !lse.empty()) excess = first_excess("lse", lse, want.lse, plain.lse);
  return excess;
}

std::vector<float> alibi_slopes(int64_t n_heads) {
  std::vector<float> slopes;
  for (int64_t i = 1; i <= n_heads; ++i) slopes.push_back(std::exp2(-8.0f * static_cast<float>(i) / static_cast<float>(n_heads)));
  return slopes;
}

}  // namespace minillm::test
