// attention.cpp - rotary positions, the append to the cache, and attention as a two-pass softmax in double.
//   out[t, h] = sum_s p_s v_s,  p = softmax over the visible s of  cap tanh(scale q.k_s / cap) - slope distance(t, s).
//   A sink is one more score in the sum, with no value. Query head h reads key/value head h / (H / G).
// Row i of n rows over S keys stands at slot i + S - n (bottom-right aligned). It sees the slots s with s <= its own (causal) and
// its own - s < window (window > 0).
// Sources: Vaswani et al. 2017, arXiv:1706.03762; Su et al. 2021, arXiv:2104.09864 (rotation); Ainslie et al. 2023,
//          arXiv:2305.13245 (grouped heads); Press et al. 2021, arXiv:2108.12409 (ALiBi); Xiao et al. 2023, arXiv:2309.17453 (sinks).
// Edge:    a row that sees nothing gives zeros, and LSE -inf (or the sink); unseen slots are never read, whatever they hold.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/reference/kv_pages.h"
#include "backend/reference/reference_backend.h"

namespace minillm::reference {
namespace {

using Part = KvPages::Part;
constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

const KvPages& pages_of(const KvStorage& kv) {
  const auto* pages = dynamic_cast<const KvPages*>(&kv);
  if (pages == nullptr) throw Error(ErrorCode::kInvalidArgument, "reference: a key/value cache of another device");
  return *pages;
}

/// The keys and values of one head, [S, D] each, widened.
struct Head {
  std::vector<double> keys, values;
};

/// softmax(scores) over the keys that a row at `slot` sees. `q` and `out` are [D]; returns the LSE.
double attend(float* out, const float* q, const Head& head, int64_t n_keys, int64_t slot, int64_t query_head, const AttentionParams& p) {
  const int64_t dim = p.head_dim;
  const int64_t first = p.window > 0 ? std::clamp<int64_t>(slot - p.window + 1, 0, n_keys) : 0;
  const int64_t last = p.causal ? std::clamp<int64_t>(slot + 1, first, n_keys) : n_keys;
  const bool has_sink = !p.sinks.empty();
  const double cap = static_cast<double>(p.softcap);
  const double sink = has_sink ? static_cast<double>(p.sinks[static_cast<size_t>(query_head)]) : kMinusInfinity;

  std::vector<double> scores(static_cast<size_t>(last - first));
  double max = sink;
  bool sees_something = sink > kMinusInfinity;
  for (int64_t s = first; s < last; ++s) {
    double score = 0;
    for (int64_t d = 0; d < dim; ++d) score += static_cast<double>(q[d]) * head.keys[static_cast<size_t>(s * dim + d)];
    score *= static_cast<double>(p.scale);
    if (p.softcap != 0.0f) score = cap * std::tanh(score / cap);
    if (!p.alibi_slopes.empty())
      score -= static_cast<double>(p.alibi_slopes[static_cast<size_t>(query_head)]) * static_cast<double>(std::abs(slot - s));
    scores[static_cast<size_t>(s - first)] = score;
    max = std::fmax(max, score);
    sees_something |= score != kMinusInfinity;  // A NaN is something: it must show in the result.
  }
  std::fill_n(out, dim, 0.0f);
  if (!sees_something) return kMinusInfinity;

  double sum = has_sink ? std::exp(sink - max) : 0.0;
  std::vector<double> total(static_cast<size_t>(dim), 0.0);
  for (int64_t s = first; s < last; ++s) {
    const double weight = std::exp(scores[static_cast<size_t>(s - first)] - max);
    sum += weight;
    for (int64_t d = 0; d < dim; ++d) total[static_cast<size_t>(d)] += weight * head.values[static_cast<size_t>(s * dim + d)];
  }
  for (int64_t d = 0; d < dim; ++d) out[d] = static_cast<float>(total[static_cast<size_t>(d)] / sum);
  return max + std::log(sum);
}

/// x += bias; x = weight x / rms(x); each where the model has it.
void bias_and_norm(std::span<double> x, const float* bias, const float* weight, double eps) {
  if (bias != nullptr)
    for (size_t d = 0; d < x.size(); ++d) x[d] += static_cast<double>(bias[d]);
  if (weight == nullptr) return;
  double squares = 0;
  for (double value : x) squares += value * value;
  const double root = std::sqrt(squares / static_cast<double>(x.size()) + eps);
  for (size_t d = 0; d < x.size(); ++d) x[d] *= static_cast<double>(weight[d]) / root;
}

/// Rotates the first R elements in pairs: (a, b) becomes (a cos - b sin, a sin + b cos). `angles` is R/2 cosines, R/2 sines.
void rotate(std::span<double> x, const float* angles, int64_t rope_dim, RopeLayout layout) {
  const int64_t half = rope_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const bool interleaved = layout == RopeLayout::kInterleaved;
    double& a = x[static_cast<size_t>(interleaved ? 2 * i : i)];
    double& b = x[static_cast<size_t>(interleaved ? 2 * i + 1 : i + half)];
    const double c = static_cast<double>(angles[i]), s = static_cast<double>(angles[half + i]);
    const double rotated = a * c - b * s;
    b = a * s + b * c;
    a = rotated;
  }
}

void check_params(const AttentionParams& p) {
  MINILLM_CHECK(p.n_kv_heads > 0 && p.n_heads % p.n_kv_heads == 0, p.n_heads, " query heads over ", p.n_kv_heads, " key heads");
  for (const auto& per_head : {p.alibi_slopes, p.sinks})
    MINILLM_CHECK(per_head.empty() || static_cast<int64_t>(per_head.size()) == p.n_heads, per_head.size(), " values for ", p.n_heads,
                  " heads");
}

}  // namespace

void ReferenceBackend::rotate_and_append(TensorView q, ConstTensorView qkv, const AttentionInput& w, ConstTensorView angles, KvStorage& kv,
                                         int64_t layer) {
  KvPages& pages = const_cast<KvPages&>(pages_of(kv));  // The storage itself came in mutable.
  const int64_t n_heads = w.n_heads, n_kv_heads = w.n_kv_heads, dim = w.head_dim, n_all = n_heads + 2 * n_kv_heads;
  MINILLM_CHECK(width(qkv) == n_all * dim && width(q) == n_heads * dim && q.dim(0) == qkv.dim(0), "rotate_and_append: [", qkv.dim(0), ", ",
                width(qkv), "] into [", q.dim(0), ", ", width(q), "] with ", n_heads, " + 2 * ", n_kv_heads, " heads of ", dim);
  MINILLM_CHECK(w.rope_dim <= dim && w.rope_dim % 2 == 0 && width(angles) == w.rope_dim, "rotate_and_append: ", w.rope_dim,
                " rotated elements of ", dim, ", angles of width ", width(angles));
  std::vector<double> x(static_cast<size_t>(dim));
  std::vector<float> rounded(static_cast<size_t>(dim));
  for (const SequenceSlice& sequence : batch_.sequences)
    for (int64_t i = 0; i < sequence.n_rows; ++i) {
      const int64_t t = sequence.first_row + i, slot = sequence.n_cached + i;
      const int32_t page = sequence.pages[slot / kv.shape().page_tokens];
      for (int64_t head = 0; head < n_all; ++head) {
        const bool is_query = head < n_heads, is_value = head >= n_heads + n_kv_heads;
        std::copy_n(qkv.f32() + (t * n_all + head) * dim, dim, x.begin());
        const ConstTensorView norm = is_query ? w.q_norm : is_value ? ConstTensorView() : w.k_norm;
        bias_and_norm(x, w.bias ? w.bias.f32() + head * dim : nullptr, norm ? norm.f32() : nullptr, static_cast<double>(w.norm_eps));
        if (!is_value) rotate(x, angles.f32() + t * w.rope_dim, w.rope_dim, w.rope_layout);
        std::ranges::transform(x, rounded.begin(), [](double value) { return static_cast<float>(value); });
        if (is_query)
          std::copy(rounded.begin(), rounded.end(), q.f32() + (t * n_heads + head) * dim);
        else if (is_value)
          pages.store(Part::kValues, layer, page, slot % kv.shape().page_tokens, head - n_heads - n_kv_heads, rounded.data());
        else
          pages.store(Part::kKeys, layer, page, slot % kv.shape().page_tokens, head - n_heads, rounded.data());
      }
    }
}

void ReferenceBackend::attention(TensorView out, ConstTensorView q, const KvStorage& kv, int64_t layer, const AttentionParams& params,
                                 TensorView lse) {
  check_params(params);
  const KvPages& pages = pages_of(kv);
  const int64_t dim = params.head_dim, group = params.n_heads / params.n_kv_heads, page_tokens = kv.shape().page_tokens;
  Head head;
  std::vector<float> row(static_cast<size_t>(dim));
  for (const SequenceSlice& sequence : batch_.sequences) {
    const int64_t n_keys = sequence.n_cached + sequence.n_rows;
    head.keys.resize(static_cast<size_t>(n_keys * dim));
    head.values.resize(static_cast<size_t>(n_keys * dim));
    for (int64_t g = 0; g < params.n_kv_heads && sequence.n_rows > 0; ++g) {
      for (int64_t s = 0; s < n_keys; ++s) {
        const int32_t page = sequence.pages[s / page_tokens];
        pages.load(Part::kKeys, layer, page, s % page_tokens, g, row.data());
        std::ranges::copy(row, head.keys.begin() + s * dim);
        pages.load(Part::kValues, layer, page, s % page_tokens, g, row.data());
        std::ranges::copy(row, head.values.begin() + s * dim);
      }
      for (int64_t i = 0; i < sequence.n_rows; ++i)
        for (int64_t h = g * group; h < (g + 1) * group; ++h) {
          const int64_t at = (sequence.first_row + i) * params.n_heads + h;
          const double log_sum = attend(out.f32() + at * dim, q.f32() + at * dim, head, n_keys, sequence.n_cached + i, h, params);
          if (lse) lse.f32()[at] = static_cast<float>(log_sum);
        }
    }
  }
}

void ReferenceBackend::dense_attention(TensorView out, ConstTensorView q, ConstTensorView k, ConstTensorView v,
                                       const AttentionParams& params, TensorView lse) {
  check_params(params);
  const int64_t n_batch = q.dim(0), n_rows = q.dim(1), n_keys = k.dim(1);
  const int64_t dim = params.head_dim, group = params.n_heads / params.n_kv_heads;
  Head head;
  head.keys.resize(static_cast<size_t>(n_keys * dim));
  head.values.resize(static_cast<size_t>(n_keys * dim));
  std::vector<float> query(static_cast<size_t>(dim));
  for (int64_t b = 0; b < n_batch; ++b)
    for (int64_t g = 0; g < params.n_kv_heads; ++g) {
      for (int64_t s = 0; s < n_keys; ++s)
        for (int64_t d = 0; d < dim; ++d) {
          const int64_t from = ((b * n_keys + s) * params.n_kv_heads + g) * dim + d;
          head.keys[static_cast<size_t>(s * dim + d)] = load(k, from);
          head.values[static_cast<size_t>(s * dim + d)] = load(v, from);
        }
      for (int64_t i = 0; i < n_rows; ++i)
        for (int64_t h = g * group; h < (g + 1) * group; ++h) {
          const int64_t at = (b * n_rows + i) * params.n_heads + h;
          for (int64_t d = 0; d < dim; ++d) query[static_cast<size_t>(d)] = static_cast<float>(load(q, at * dim + d));
          const double log_sum = attend(out.f32() + at * dim, query.data(), head, n_keys, i + n_keys - n_rows, h, params);
          if (lse) lse.f32()[at] = static_cast<float>(log_sum);
        }
    }
}

}  // namespace minillm::reference
