// composites_test.cpp - operations that a backend may fuse, against the same made of the small ones on that backend, and a whole
// step against the oracle.
#include "conformance/tiny_decoder.h"

namespace minillm {
namespace {

using namespace test;

class Composites : public OnTarget {
 protected:
  static constexpr int64_t kCounts[] = {0, 1, 2, 5, 40, 130};

  /// Float weights: rounding. Quantised ones: int8 activations, where a fused operation may use one term and its parts two. The
  /// noise of one term is max |x| / 127 / sqrt(12) of a unit, 0.7% of the output's spread here; 8 standard deviations. Where products
  /// of many rows have bfloat16 inputs, `narrow`, what stands between two products may be rounded to it: 2^-9 of each, and a sum that
  /// differs by float32 rounding may fall on the other side, 2^-8; again 8 standard deviations.
  static double tolerance(const TinyTypes& types, const Array& want, bool narrow = false) {
    double squares = 0;
    const std::vector<float> values = want.host();
    for (float x : values) squares += static_cast<double>(x) * static_cast<double>(x);
    const double rms = std::sqrt(squares / std::max<double>(1, static_cast<double>(values.size())));
    return rms * (is_quantised(types.qk) ? 0.06 : narrow ? 0.02 : 2e-5) + 1e-6;
  }
  static bool narrow(int64_t n_rows) { return GetParam().bf16_products != 0 && n_rows > 64; }
};

TEST_P(Composites, AttentionInputMatchesItsParts) {
  for (const TinyTypes& types : kTinyTypes)
    for (const bool extras : {false, true}) {
      TinyDecoder model(*backend_, types, extras);
      for (const int64_t t : kCounts) {
        const Step step({{19, t}}, 16, 3);
        const KvShape shape{.n_layers = 2,
                            .n_kv_heads = TinyDecoder::kKvHeads,
                            .head_dim = TinyDecoder::kDim,
                            .page_tokens = 16,
                            .max_pages = 0,
                            .dtype = Dtype::kF32};
        const auto fused_kv = make_storage(*backend_, shape, step.n_pages), plain_kv = make_storage(*backend_, shape, step.n_pages);
        const Array x(*backend_, {t, TinyDecoder::kHidden}, randn(1, t * TinyDecoder::kHidden)), angles(*backend_, {t, TinyDecoder::kDim});
        const Array fused(*backend_, {t, TinyDecoder::kHeads, TinyDecoder::kDim}),
            plain(*backend_, {t, TinyDecoder::kHeads, TinyDecoder::kDim});
        backend_->reserve_workspace(TinyDecoder::workspace(std::max<int64_t>(t, 1), 100, 1));
        backend_->begin_step(step.batch());
        backend_->rope_angles(angles, model.frequencies());
        backend_->attention_input(fused, x, model.attention_input(1), angles, *fused_kv, 1);
        backend_->Backend::attention_input(plain, x, model.attention_input(1), angles, *plain_kv, 1);
        expect_close(fused, plain, tolerance(types, plain, narrow(t)), std::string(types.name) + " q");
        for (int64_t slot = 19; slot < 19 + t; ++slot) {
          std::vector<float> k[2], v[2];
          for (int i = 0; i < 2; ++i) {
            k[i].resize(TinyDecoder::kKvHeads * TinyDecoder::kDim);
            v[i].resize(k[i].size());
            (i == 0 ? fused_kv : plain_kv)
                ->read(1, step.tables[0][static_cast<size_t>(slot / 16)], slot % 16,
                       {k[i].data(), Dtype::kF32, {1, TinyDecoder::kKvHeads, TinyDecoder::kDim}},
                       {v[i].data(), Dtype::kF32, {1, TinyDecoder::kKvHeads, TinyDecoder::kDim}});
          }
          const Shape kv_shape{TinyDecoder::kKvHeads, TinyDecoder::kDim};
          const Array want_k(*oracle_, kv_shape, k[1]), want_v(*oracle_, kv_shape, v[1]);
          expect_close(Array(*oracle_, kv_shape, k[0]), want_k, tolerance(types, want_k, narrow(t)), "k");
          expect_close(Array(*oracle_, kv_shape, v[0]), want_v, tolerance(types, want_v, narrow(t)), "v");
        }
      }
    }
}

/// A device may leave queries, keys and values to attention there; every bit of the result and of the cache stays the same.
TEST_P(Composites, AttentionInAWholeStepEqualsItsParts) {
  struct Shape4 {
    int64_t heads, kv_heads, dim, window;
    Dtype dtype;
    bool extras;
  };
  constexpr int64_t kHidden = 128;
  for (const Shape4& s :
       {Shape4{4, 2, 64, 0, Dtype::kF16, false}, Shape4{9, 3, 64, 40, Dtype::kBF16, true}, Shape4{8, 1, 128, 0, Dtype::kBF16, true},
        Shape4{4, 4, 96, 100, Dtype::kF16, true}, Shape4{4, 1, 256, 0, Dtype::kBF16, true}, Shape4{2, 2, 64, 0, Dtype::kF32, true},
        Shape4{8, 2, 128, 0, Dtype::kF8, true}, Shape4{9, 3, 64, 40, Dtype::kF8, false}, Shape4{12, 1, 80, 0, Dtype::kF8, true}}) {
    SCOPED_TRACE(testing::Message() << s.heads << "/" << s.kv_heads << " x " << s.dim);
    const int64_t columns = (s.heads + 2 * s.kv_heads) * s.dim;
    const auto weight = HostWeight(1, Dtype::kBF16, columns, kHidden).pack(*backend_);
    const Array norm(*backend_, {kHidden}, randn(2, kHidden)), bias(*backend_, {columns}, randn(3, columns)),
        head_norm(*backend_, {s.dim}, randn(4, s.dim));
    AttentionInput input;
    input.norm = norm;
    input.qkv = weight.get();
    if (s.extras) input.bias = bias, input.q_norm = input.k_norm = head_norm, input.rope_layout = RopeLayout::kInterleaved;
    input.n_heads = s.heads, input.n_kv_heads = s.kv_heads, input.head_dim = s.dim, input.rope_dim = s.extras ? s.dim / 2 : s.dim;
    AttentionParams params;
    params.n_heads = s.heads, params.n_kv_heads = s.kv_heads, params.head_dim = s.dim, params.scale = 0.125f;
    params.window = s.window, params.block_size = 64;
    const std::vector<float> frequencies(static_cast<size_t>(input.rope_dim / 2), 0.37f);
    for (const std::vector<Step::Row>& rows :
         {std::vector<Step::Row>{{0, 1}}, {{64, 1}}, {{255, 1}, {256, 1}, {3, 1}}, {{15, 1}, {1500, 1}, {16, 1}, {63, 1}, {700, 1}}}) {
      const Step step(rows, 16, 3);
      const int64_t t = step.n_rows();
      const KvShape shape{.n_layers = 2, .n_kv_heads = s.kv_heads, .head_dim = s.dim, .page_tokens = 16, .max_pages = 0, .dtype = s.dtype};
      const auto whole_kv = make_storage(*backend_, shape, step.n_pages), plain_kv = make_storage(*backend_, shape, step.n_pages);
      fill(*whole_kv, step, false);
      fill(*plain_kv, step, false);
      const Array x(*backend_, {t, kHidden}, randn(5, t * kHidden)), angles(*backend_, {t, input.rope_dim});
      const Array q(*backend_, {t, s.heads, s.dim}), whole(*backend_, {t, s.heads, s.dim}), plain(*backend_, {t, s.heads, s.dim});
      backend_->reserve_workspace(TinyDecoder::workspace(8, 2000, 8));
      backend_->begin_step(step.batch());
      backend_->rope_angles(angles, frequencies);
      backend_->attention_input(q, x, input, angles, *plain_kv, 1);
      backend_->attention(plain, q, *plain_kv, 1, params);
      const StepKey key{new_serial(), whole_kv->serial(), t, 64, true, Choice::kNone};
      for (int repeats = 0; repeats < 3; ++repeats)  // Run, recorded, replayed.
        backend_->repeat(key, [&] {
          backend_->attention_input(q, x, input, angles, *whole_kv, 1);
          backend_->attention(whole, q, *whole_kv, 1, params);
        });
      backend_->sync();
      EXPECT_EQ(whole.host(), plain.host());
      for (size_t b = 0; b < step.rows.size(); ++b) {
        std::vector<float> k[2], v[2];
        for (int i = 0; i < 2; ++i) {
          k[i].resize(static_cast<size_t>(s.kv_heads * s.dim));
          v[i].resize(k[i].size());
          const int64_t slot = step.rows[b].n_cached;
          (i == 0 ? whole_kv : plain_kv)
              ->read(1, step.tables[b][static_cast<size_t>(slot / 16)], slot % 16, {k[i].data(), Dtype::kF32, {1, s.kv_heads, s.dim}},
                     {v[i].data(), Dtype::kF32, {1, s.kv_heads, s.dim}});
        }
        EXPECT_EQ(k[0], k[1]) << "keys of sequence " << b;
        EXPECT_EQ(v[0], v[1]) << "values of sequence " << b;
      }
    }
  }
}

TEST_P(Composites, AttentionOutputAndFeedForwardMatchTheirParts) {
  for (const TinyTypes& types : kTinyTypes)
    for (const bool extras : {false, true}) {
      TinyDecoder model(*backend_, types, extras);
      for (const int64_t t : kCounts) {
        const Shape shape{t, TinyDecoder::kHidden};
        const std::vector<float> x = randn(2, t * TinyDecoder::kHidden);
        const Array attended(*backend_, {t, TinyDecoder::kHeads * TinyDecoder::kDim},
                             randn(3, t * TinyDecoder::kHeads * TinyDecoder::kDim));
        const Step step({{0, t}}, 16);
        backend_->reserve_workspace(TinyDecoder::workspace(std::max<int64_t>(t, 1), 100, 1));
        backend_->begin_step(step.batch());
        const Array fused(*backend_, shape, x), plain(*backend_, shape, x);
        backend_->attention_output(fused, attended, model.output(0), model.post_norm(0), 1e-5f);
        backend_->Backend::attention_output(plain, attended, model.output(0), model.post_norm(0), 1e-5f);
        expect_close(fused, plain, tolerance(types, plain, narrow(t)), std::string(types.name) + " attention_output");
        const Array fused_ffn(*backend_, shape, x), plain_ffn(*backend_, shape, x);
        backend_->feed_forward(fused_ffn, model.feed_forward(0));
        backend_->Backend::feed_forward(plain_ffn, model.feed_forward(0));
        expect_close(fused_ffn, plain_ffn, tolerance(types, plain_ffn, narrow(t)), std::string(types.name) + " feed_forward");
      }
    }
}

/// A device may join the products of a whole step, if they are large; every bit stays that of one after the other, here and on a second
/// backend beside it.
TEST_P(Composites, ProductsOfAWholeStepEqualThoseOneByOne) {
  struct Case {
    Dtype dtype;
    int64_t t, hidden, ffn;
  };
  std::vector<Case> cases;
  if (GetParam().device.kind == Device::Kind::kCuda) cases = {{Dtype::kBF16, 1, 1024, 8192}, {Dtype::kBF16, 3, 1024, 8192}};
  for (const Dtype dtype : {Dtype::kBF16, Dtype::kQ4_0, Dtype::kQ4_1, Dtype::kQ8_0, Dtype::kQ4_K, Dtype::kQ6_K, Dtype::kF16})
    for (const int64_t t : {1, 4, 11}) cases.push_back({dtype, t, 256, 4352});
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << name_of(c.dtype) << ", " << c.t << " rows of " << c.hidden);
    constexpr int64_t kVocab = 500;
    const Step step(std::vector<Step::Row>(static_cast<size_t>(c.t), Step::Row{0, 1}), 16);
    const HostWeight output(1, c.dtype, c.hidden, c.hidden), gate_up(2, c.dtype, 2 * c.ffn, c.hidden), down(3, c.dtype, c.hidden, c.ffn),
        head(4, c.dtype, kVocab, c.hidden);
    const auto second = make_target(GetParam());
    std::vector<std::vector<float>> results;
    for (Backend* const backend : {backend_.get(), backend_.get(), second.get()}) {
      const auto o = output.pack(*backend), g = gate_up.pack(*backend), d = down.pack(*backend), h = head.pack(*backend);
      const Array norm(*backend, {c.hidden}, randn(5, c.hidden)), x(*backend, {c.t, c.hidden}, randn(6, c.t * c.hidden)),
          attended(*backend, {c.t, c.hidden}, randn(7, c.t * c.hidden)), logits(*backend, {c.t, kVocab});
      FeedForward feed_forward;
      feed_forward.norm = norm, feed_forward.gate_up = g.get(), feed_forward.down = d.get();
      std::vector<int32_t> all(static_cast<size_t>(c.t));
      for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int32_t>(i);
      backend->reserve_workspace({c.t, c.t, c.hidden, 8, 8, 64, c.ffn, kVocab, 16, c.t});
      backend->begin_step(step.batch());
      const auto work = [&] {
        backend->attention_output(x, attended, *o, {}, 1e-5f);
        backend->feed_forward(x, feed_forward);
        backend->head(logits, x, all, norm, 1e-5f, *h, 0.0f);
      };
      const StepKey key{new_serial(), new_serial(), c.t, 64, true, Choice::kNone};
      for (int repeats = 0; repeats < 3; ++repeats) results.size() == 1 ? backend->repeat(key, work) : work();
      results.push_back(x.host());
      const std::vector<float> more = logits.host();
      results.back().insert(results.back().end(), more.begin(), more.end());
    }
    expect_same_bits(results[1], results[0], "in a whole step");
    expect_same_bits(results[2], results[0], "on a second backend");
  }
}

TEST_P(Composites, HeadMatchesItsParts) {
  for (const TinyTypes& types : kTinyTypes) {
    TinyDecoder model(*backend_, types);
    for (const float cap : {0.0f, 30.0f}) {
      const Array x(*backend_, {9, TinyDecoder::kHidden}, randn(4, 9 * TinyDecoder::kHidden));
      for (const std::vector<int32_t>& rows : {std::vector<int32_t>{}, {8}, {0, 8, 3, 3, 7}}) {
        const int64_t n = static_cast<int64_t>(rows.size());
        const Array fused(*backend_, {n, TinyDecoder::kVocab}), plain(*backend_, {n, TinyDecoder::kVocab});
        const Step step({{0, 9}}, 16);
        backend_->reserve_workspace(TinyDecoder::workspace(9, 100, 1));
        backend_->begin_step(step.batch());
        backend_->head(fused, x, rows, model.norm(0), 1e-5f, model.embedding(), cap);
        backend_->Backend::head(plain, x, rows, model.norm(0), 1e-5f, model.embedding(), cap);
        expect_close(fused, plain, tolerance(types, plain), std::string(types.name) + " head");
      }
    }
  }
}

TEST_P(Composites, WholeStepMatchesTheOracle) {
  for (const TinyTypes& types : kTinyTypes) {
    const auto tokens = random_tokens(5, 60);
    TinySession got(make_target(GetParam()), types, 1, Dtype::kF32), want(make_reference_backend(), types, 1, Dtype::kF32);
    const std::vector<float> x = got.append(0, tokens, 50), y = want.append(0, tokens);
    double error = 0, power = 0, worst = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      const double difference = static_cast<double>(x[i]) - static_cast<double>(y[i]);
      error += difference * difference;
      power += static_cast<double>(y[i]) * static_cast<double>(y[i]);
      worst = std::max(worst, std::abs(difference));
    }
    // Float weights agree to rounding. With int8 activations each of 9 products adds noise of about 1/127/sqrt(12) of its input's
    // largest values: 1% of the output each at random weights, so 3% together; 8% leaves room for the softmax to amplify it.
    const double limit = is_quantised(types.qk) ? 0.08 : GetParam().bf16_products != 0 ? 0.03 : 1e-5;
    EXPECT_LT(std::sqrt(error / power), limit) << types.name << ", largest difference " << worst;
  }
}

MINILLM_ON_EVERY_TARGET(Composites);

}  // namespace
}  // namespace minillm
