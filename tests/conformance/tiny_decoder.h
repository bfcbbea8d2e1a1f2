// tiny_decoder.h - a two-layer decoder over Backend with random weights: small enough to run thousands of tokens in a second on the
// oracle, with everything in it through which one row could disturb another.
#pragma once

#include <span>
#include <vector>

#include "conformance/rig.h"
#include "kv/paged_cache.h"

namespace minillm::test {

/// Weight types of a TinyDecoder: q and k, v (stacked on them), output, gate, up (stacked on it), down, tied embedding.
struct TinyTypes {
  const char* name;
  Dtype qk, v, output, gate, up, down, embedding;
};
inline constexpr TinyTypes kTinyTypes[] = {
    {"f32", Dtype::kF32, Dtype::kF32, Dtype::kF32, Dtype::kF32, Dtype::kF32, Dtype::kF32, Dtype::kF32},
    {"f16", Dtype::kF16, Dtype::kF16, Dtype::kBF16, Dtype::kF16, Dtype::kF16, Dtype::kBF16, Dtype::kF16},
    {"q4_1", Dtype::kQ4_1, Dtype::kQ4_1, Dtype::kQ4_0, Dtype::kQ4_1, Dtype::kQ4_1, Dtype::kQ5_1, Dtype::kQ8_0},
    {"mixed", Dtype::kQ5_0, Dtype::kQ8_0, Dtype::kQ4_K, Dtype::kQ5_K, Dtype::kQ6_K, Dtype::kQ6_K, Dtype::kQ6_K},
};

class TinyDecoder {
 public:
  static constexpr int64_t kLayers = 2, kHidden = 256, kHeads = 4, kKvHeads = 2, kDim = 64, kFfn = 512, kVocab = 131;

  /// With `extras`: biases, q/k norms and post norms, a window in layer 1, a softcap.
  TinyDecoder(Backend& backend, const TinyTypes& types, bool extras = true) : backend_(backend), extras_(extras) {
    embedding_ = HostWeight(1, types.embedding, kVocab, kHidden).pack(backend, WeightRole::kBoth);
    for (uint64_t i = 0; i < kLayers; ++i) {
      const HostWeight q(10 + i, types.qk, kHeads * kDim, kHidden), k(20 + i, types.qk, kKvHeads * kDim, kHidden),
          v(30 + i, types.v, kKvHeads * kDim, kHidden);
      const HostWeight gate(40 + i, types.gate, kFfn, kHidden), up(50 + i, types.up, kFfn, kHidden);
      const ConstTensorView qkv[] = {q.view(), k.view(), v.view()}, gate_up[] = {gate.view(), up.view()};
      layers_.push_back({backend.pack(qkv, WeightRole::kProduct),
                         HostWeight(60 + i, types.output, kHidden, kHeads * kDim).pack(backend),
                         backend.pack(gate_up, WeightRole::kProduct),
                         HostWeight(70 + i, types.down, kHidden, kFfn).pack(backend),
                         {backend, {kHidden}, randn(80 + i, kHidden)},
                         {backend, {(kHeads + 2 * kKvHeads) * kDim}, randn(90 + i, (kHeads + 2 * kKvHeads) * kDim)},
                         {backend, {kDim}, randn(100 + i, kDim)},
                         {backend, {kHidden}, randn(110 + i, kHidden)}});
    }
    for (int i = 0; i < kDim / 2; ++i) frequencies_.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / kDim)));
  }

  AttentionInput attention_input(int64_t i) const {
    const Layer& layer = layers_[static_cast<size_t>(i)];
    AttentionInput input;
    input.norm = layer.norm;
    input.qkv = layer.qkv.get();
    if (extras_) input.bias = layer.bias, input.q_norm = input.k_norm = layer.head_norm;
    input.n_heads = kHeads;
    input.n_kv_heads = kKvHeads;
    input.head_dim = kDim;
    input.rope_dim = kDim;
    return input;
  }
  FeedForward feed_forward(int64_t i) const {
    const Layer& layer = layers_[static_cast<size_t>(i)];
    FeedForward ffn;
    ffn.norm = layer.norm;
    ffn.gate_up = layer.gate_up.get();
    ffn.down = layer.down.get();
    if (extras_) ffn.post_norm = layer.post_norm, ffn.activation = Activation::kGeluTanh;
    return ffn;
  }
  ConstTensorView post_norm(int64_t i) const {
    return extras_ ? ConstTensorView(layers_[static_cast<size_t>(i)].post_norm) : ConstTensorView();
  }
  ConstTensorView norm(int64_t i) const { return layers_[static_cast<size_t>(i)].norm; }
  const PackedWeight& output(int64_t i) const { return *layers_[static_cast<size_t>(i)].output; }
  const PackedWeight& embedding() const { return *embedding_; }
  std::span<const float> frequencies() const { return frequencies_; }

  static AttentionParams attention_params(int64_t i, bool extras) {
    AttentionParams params;
    params.n_heads = kHeads;
    params.n_kv_heads = kKvHeads;
    params.head_dim = kDim;
    params.scale = 0.125f;
    params.window = extras && i == 1 ? 50 : 0;
    params.softcap = extras ? 20.0f : 0.0f;
    params.block_size = 64;
    return params;
  }
  static WorkspaceShape workspace(int64_t max_rows, int64_t max_context, int64_t max_sequences) {
    return {.max_rows = max_rows,
            .max_logit_rows = max_rows,
            .hidden = kHidden,
            .n_heads = kHeads,
            .n_kv_heads = kKvHeads,
            .head_dim = kDim,
            .ffn = kFfn,
            .vocab = kVocab,
            .max_context = max_context,
            .max_sequences = max_sequences};
  }

  /// Logits [T, V] of every row of the batch; keys and values go to `kv`.
  std::vector<float> forward(const Batch& batch, KvStorage& kv) {
    const int64_t t = static_cast<int64_t>(batch.tokens.size());
    const Array x(backend_, {t, kHidden}), q(backend_, {t, kHeads, kDim}), attended(backend_, {t, kHeads * kDim});
    const Array angles(backend_, {t, kDim}), logits(backend_, {t, kVocab});
    backend_.begin_step(batch);
    backend_.embed(x, *embedding_, 4.0f);
    backend_.rope_angles(angles, frequencies_);
    for (int64_t i = 0; i < kLayers; ++i) {
      const TensorView view = attended;
      const TensorView heads(view.data, Dtype::kF32, {t, kHeads, kDim});
      backend_.attention_input(q, x, attention_input(i), angles, kv, i);
      backend_.attention(heads, q, kv, i, attention_params(i, extras_));
      backend_.attention_output(x, attended, output(i), post_norm(i), 1e-5f);
      backend_.feed_forward(x, feed_forward(i));
    }
    std::vector<int32_t> rows(static_cast<size_t>(t));
    std::iota(rows.begin(), rows.end(), 0);
    backend_.head(logits, x, rows, norm(0), 1e-5f, *embedding_, extras_ ? 30.0f : 0.0f);
    return logits.host();
  }

 private:
  struct Layer {
    std::unique_ptr<PackedWeight> qkv, output, gate_up, down;
    Array norm, bias, head_norm, post_norm;
  };
  Backend& backend_;
  bool extras_;
  std::unique_ptr<PackedWeight> embedding_;
  std::vector<Layer> layers_;
  std::vector<float> frequencies_;
};

/// A TinyDecoder with a cache: appends tokens to rows and returns their logits.
class TinySession {
 public:
  using Tokens = std::vector<TokenId>;
  struct Part {
    int64_t row;
    Tokens tokens;
  };

  TinySession(std::shared_ptr<Backend> backend, const TinyTypes& types, int64_t n_rows, Dtype dtype = Dtype::kF16, int64_t page_tokens = 16,
              int64_t max_pages = 200, int64_t max_step_rows = 0)
      : backend_(std::move(backend)),
        max_step_rows_(max_step_rows),
        model_(*backend_, types),
        cache_(backend_,
               {.n_layers = TinyDecoder::kLayers,
                .n_kv_heads = TinyDecoder::kKvHeads,
                .head_dim = TinyDecoder::kDim,
                .page_tokens = page_tokens,
                .max_pages = max_pages,
                .dtype = dtype},
               n_rows, true) {
    poison(cache_.storage(), max_pages);
  }
  PagedCache& cache() { return cache_; }

  /// One step over several rows, or as many as max_step_rows asks for; the logits of every token, part by part, each [n, V].
  std::vector<std::vector<float>> append(const std::vector<Part>& parts) {
    if (max_step_rows_ == 0) return step(parts);
    std::vector<std::vector<float>> logits(parts.size());
    std::vector<Part> some;
    std::vector<size_t> places;
    int64_t n_rows = 0;
    const auto flush = [&] {
      const auto done = step(some);
      for (size_t i = 0; i < done.size(); ++i) logits[places[i]].insert(logits[places[i]].end(), done[i].begin(), done[i].end());
      some.clear();
      places.clear();
      n_rows = 0;
    };
    for (size_t i = 0; i < parts.size(); ++i)
      for (size_t at = 0; at < parts[i].tokens.size();) {
        const size_t n = std::min(parts[i].tokens.size() - at, static_cast<size_t>(max_step_rows_ - n_rows));
        const auto from = parts[i].tokens.begin() + static_cast<ptrdiff_t>(at);
        some.push_back({parts[i].row, Tokens(from, from + static_cast<ptrdiff_t>(n))});
        places.push_back(i);
        at += n;
        n_rows += static_cast<int64_t>(n);
        if (n_rows == max_step_rows_) flush();
      }
    if (n_rows > 0) flush();
    return logits;
  }
  /// The same for one row, in chunks.
  std::vector<float> append(int64_t row, const Tokens& tokens, int64_t chunk = 1 << 20) {
    std::vector<float> logits;
    for (size_t i = 0; i < tokens.size(); i += static_cast<size_t>(chunk)) {
      const size_t n = std::min(static_cast<size_t>(chunk), tokens.size() - i);
      const auto part =
          append({{row, Tokens(tokens.begin() + static_cast<ptrdiff_t>(i), tokens.begin() + static_cast<ptrdiff_t>(i + n))}})[0];
      logits.insert(logits.end(), part.begin(), part.end());
    }
    return logits;
  }

 private:
  std::vector<std::vector<float>> step(const std::vector<Part>& parts) {
    std::vector<TokenId> tokens;
    std::vector<int32_t> positions;
    std::vector<SequenceSlice> slices;
    int64_t longest = 1;
    for (const Part& part : parts) {
      const int64_t n = static_cast<int64_t>(part.tokens.size()), length = cache_.length(part.row);
      cache_.reserve(part.row, length + n);
      slices.push_back({static_cast<int64_t>(tokens.size()), n, length, cache_.pages(part.row).data()});
      for (int64_t i = 0; i < n; ++i) positions.push_back(static_cast<int32_t>(length + i));
      tokens.insert(tokens.end(), part.tokens.begin(), part.tokens.end());
      longest = std::max(longest, length + n);
    }
    backend_->reserve_workspace(
        TinyDecoder::workspace(std::max<int64_t>(static_cast<int64_t>(tokens.size()), 1), longest, static_cast<int64_t>(parts.size())));
    const std::vector<float> all = model_.forward({tokens, positions, slices}, cache_.storage());
    std::vector<std::vector<float>> logits;
    for (size_t i = 0; i < parts.size(); ++i) {
      cache_.advance(parts[i].row, slices[i].n_rows);
      const auto first = all.begin() + slices[i].first_row * TinyDecoder::kVocab;
      logits.emplace_back(first, first + slices[i].n_rows * TinyDecoder::kVocab);
    }
    return logits;
  }
  std::shared_ptr<Backend> backend_;
  int64_t max_step_rows_;
  TinyDecoder model_;
  PagedCache cache_;
};

inline TinySession::Tokens random_tokens(uint64_t seed, int64_t n) {
  Random random(seed);
  TinySession::Tokens tokens;
  for (int64_t i = 0; i < n; ++i) tokens.push_back(static_cast<TokenId>(random.below(TinyDecoder::kVocab)));
  return tokens;
}

}  // namespace minillm::test
