// narrow_attention_test.cpp - queries and attention outputs in the types that a backend asks for in large steps (attention_types):
// rotation, pages and attention against the oracle. Where a backend wants float32 there is nothing more to check than elsewhere.
#include "conformance/rig.h"

namespace minillm {
namespace {

using namespace test;

struct Case {
  const char* name;
  int64_t n_heads, n_kv_heads, dim;
  std::vector<Step::Row> rows;
  int64_t page_tokens;
  Dtype dtype, weight;  ///< Of the cache, and of the product that follows attention.
  bool extras = false;  ///< Bias, norms of q and k, rotation of neighbours.
};

const Case kCases[] = {
    {"one_sequence", 4, 2, 64, {{0, 130}}, 64, Dtype::kF16, Dtype::kBF16},
    {"whole_tiles", 2, 2, 128, {{128, 256}}, 64, Dtype::kBF16, Dtype::kQ4_0},
    {"ragged", 8, 2, 128, {{0, 130}, {500, 1}, {77, 0}, {300, 70}, {1023, 2}, {0, 64}}, 16, Dtype::kBF16, Dtype::kBF16, true},
    {"ragged_64", 6, 2, 64, {{3, 200}, {0, 1}, {1000, 129}}, 48, Dtype::kF16, Dtype::kF16, true},
    {"wide_pages", 4, 1, 64, {{700, 100}}, 1024, Dtype::kBF16, Dtype::kF16},
    {"wide_heads", 4, 1, 256, {{100, 80}, {0, 97}}, 64, Dtype::kF16, Dtype::kBF16},
    {"wide_heads_small_pages", 2, 2, 256, {{0, 300}}, 16, Dtype::kBF16, Dtype::kQ8_0, true},
    {"short_64", 4, 2, 64, {{0, 512}, {100, 33}}, 64, Dtype::kBF16, Dtype::kBF16},
    {"f8", 8, 2, 128, {{0, 130}, {500, 1}, {300, 70}}, 16, Dtype::kF8, Dtype::kBF16, true},
    {"f8_64", 4, 2, 64, {{3, 200}, {0, 1}, {1000, 129}}, 64, Dtype::kF8, Dtype::kF16},
    {"f8_wide", 4, 1, 256, {{100, 80}, {0, 97}}, 48, Dtype::kF8, Dtype::kBF16},
    {"many_groups", 12, 3, 64, {{0, 1500}}, 64, Dtype::kBF16, Dtype::kBF16},
};

/// A tensor of float values in a 16-bit type, in a backend's memory.
class NarrowArray {
 public:
  NarrowArray(Backend& backend, Dtype dtype, int64_t n) : backend_(backend), dtype_(dtype), bits_(static_cast<size_t>(n), 0x7FFF) {
    buffer_ = backend.allocate(bits_.size() * sizeof(uint16_t));
    backend.upload(buffer_.data(), bits_.data(), bits_.size() * sizeof(uint16_t));
  }
  TensorView view(int64_t a, int64_t b, int64_t c) const { return {buffer_.data(), dtype_, {a, b, c}}; }
  std::vector<float> host() {
    backend_.sync();
    backend_.download(bits_.data(), buffer_.data(), bits_.size() * sizeof(uint16_t));
    backend_.sync();
    std::vector<float> values;
    for (uint16_t bits : bits_) values.push_back(dtype_ == Dtype::kF16 ? half_to_float(bits) : bfloat16_to_float(bits));
    return values;
  }

 private:
  Backend& backend_;
  Dtype dtype_;
  std::vector<uint16_t> bits_;
  Buffer buffer_;
};

class NarrowAttention : public OnTarget {
 protected:
  static AttentionParams params_of(const Case& c) {
    AttentionParams params;
    params.n_heads = c.n_heads;
    params.n_kv_heads = c.n_kv_heads;
    params.head_dim = c.dim;
    params.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(c.dim)));
    return params;
  }
  static double ulp(Dtype dtype) { return dtype == Dtype::kBF16 ? 0x1p-8 : 0x1p-11; }

  /// Rotates and appends `qkv`, then attends; queries and output as float32.
  struct Result {
    std::vector<float> q, out, lse;
    std::vector<float> pages[2];  ///< What attention read.
  };
  /// Calls f(page, keys, values) with views of each page's part of result.pages.
  template <typename F>
  static void for_pages(Result& result, const KvShape& s, int64_t n_pages, F&& f) {
    const int64_t n = s.page_tokens * s.n_kv_heads * s.head_dim;
    for (auto& part : result.pages) part.resize(static_cast<size_t>(n_pages * n));
    for (int32_t page = 0; page < n_pages; ++page)
      f(page, TensorView(result.pages[0].data() + page * n, Dtype::kF32, {s.page_tokens, s.n_kv_heads, s.head_dim}),
        TensorView(result.pages[1].data() + page * n, Dtype::kF32, {s.page_tokens, s.n_kv_heads, s.head_dim}));
  }
  /// `like`: attends over the pages of that result instead of its own. A key in 8 bits is far from its neighbour, to which it flips where
  /// float32 rounds differently; append_test.cpp allows for that, and here it would hide everything else.
  static Result run(Backend& backend, const Case& c, const Step& step, AttentionTypes types, Result* like = nullptr) {
    const int64_t t = step.n_rows(), columns = (c.n_heads + 2 * c.n_kv_heads) * c.dim;
    const auto storage = make_storage(
        backend,
        {.n_layers = 2, .n_kv_heads = c.n_kv_heads, .head_dim = c.dim, .page_tokens = c.page_tokens, .max_pages = 0, .dtype = c.dtype},
        step.n_pages);
    fill(*storage, step, false);
    const Array qkv(backend, {t, columns}, randn(1, t * columns)), bias(backend, {columns}, randn(2, columns));
    const Array q_norm(backend, {c.dim}, randn(3, c.dim)), k_norm(backend, {c.dim}, randn(4, c.dim));
    const Array angles(backend, {t, c.dim}, some_angles(t, c.dim));
    AttentionInput input;
    input.n_heads = c.n_heads;
    input.n_kv_heads = c.n_kv_heads;
    input.head_dim = input.rope_dim = c.dim;
    if (c.extras) input.rope_layout = RopeLayout::kInterleaved, input.bias = bias, input.q_norm = q_norm, input.k_norm = k_norm;
    WorkspaceShape shape;
    shape.max_rows = t;
    shape.hidden = shape.ffn = 16;
    shape.n_heads = c.n_heads;
    shape.n_kv_heads = c.n_kv_heads;
    shape.head_dim = c.dim;
    shape.max_sequences = static_cast<int64_t>(step.rows.size());
    shape.max_context = 2048;
    backend.reserve_workspace(shape);
    backend.begin_step(step.batch());
    const Array lse(backend, {t, c.n_heads});
    Result result;
    const auto compute = [&](TensorView q, TensorView out) {
      backend.rotate_and_append(q, qkv, input, angles, *storage, 1);
      backend.sync();
      if (like != nullptr)
        for_pages(*like, storage->shape(), step.n_pages,
                  [&](int32_t page, TensorView k, TensorView v) { storage->write(1, page, 0, k, v); });
      for_pages(result, storage->shape(), step.n_pages, [&](int32_t page, TensorView k, TensorView v) { storage->read(1, page, 0, k, v); });
      backend.attention(out, q, *storage, 1, params_of(c), lse);
    };
    if (types.q == Dtype::kF32) {
      const Array q(backend, {t, c.n_heads, c.dim}), out(backend, {t, c.n_heads, c.dim});
      compute(q, out);
      result.q = q.host(), result.out = out.host(), result.lse = lse.host();
      return result;
    }
    NarrowArray q(backend, types.q, t * c.n_heads * c.dim), out(backend, types.attended, t * c.n_heads * c.dim);
    compute(q.view(t, c.n_heads, c.dim), out.view(t, c.n_heads, c.dim));
    result.q = q.host(), result.out = out.host(), result.lse = lse.host();
    return result;
  }
  /// What the backend asks for in this step.
  AttentionTypes types_of(const Case& c, const Step& step) {
    const auto weight = HostWeight(5, c.weight, 16, c.n_heads * c.dim).pack(*backend_);
    const auto storage = make_storage(
        *backend_,
        {.n_layers = 1, .n_kv_heads = c.n_kv_heads, .head_dim = c.dim, .page_tokens = c.page_tokens, .max_pages = 0, .dtype = c.dtype}, 1);
    backend_->begin_step(step.batch());
    return backend_->attention_types(params_of(c), *storage, *weight);
  }
};

TEST_P(NarrowAttention, MatchesTheOracle) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const Step step(c.rows, c.page_tokens, 21);
    const AttentionTypes types = types_of(c, step);
    if (types.q == Dtype::kF32) continue;  // attention_test.cpp covers it.
    Result got = run(*backend_, c, step, types);
    const Result want = run(*oracle_, c, step, {}, c.dtype == Dtype::kF8 ? &got : nullptr);
    // One rounding of each query, and the same of keys, values and weights; a score of q.k / sqrt(D), here up to about 8 with norms
    // that scale, carries those of its products, and e^x turns that into a relative error that the sum over keys averages.
    const double in = ulp(c.dtype), out = ulp(types.attended);
    const double score = in * (c.extras ? 24 : 8);
    for (size_t i = 0; i < want.q.size(); ++i)
      ASSERT_NEAR(got.q[i], want.q[i], 1e-5 + 1.01 * in * std::abs(static_cast<double>(want.q[i]))) << "q at " << i;
    double squares = 0, errors = 0;
    for (size_t i = 0; i < want.out.size(); ++i) {
      const double y = want.out[i], error = static_cast<double>(got.out[i]) - y;
      ASSERT_LE(std::abs(error), 3 * score + (4 * in + out) * (1 + std::abs(y))) << "out at " << i << ", want " << y;
      squares += y * y;
      errors += error * error;
    }
    EXPECT_LT(std::sqrt(errors / squares), 2 * in + out + score / 4);
    for (size_t i = 0; i < want.lse.size(); ++i) ASSERT_NEAR(got.lse[i], want.lse[i], 2 * score) << "LSE at " << i;
  }
}

TEST_P(NarrowAttention, BitsDoNotDependOnWherePagesLie) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const Step scattered(c.rows, c.page_tokens, 13), in_order(c.rows, c.page_tokens, 0);
    const AttentionTypes types = types_of(c, scattered);
    const std::vector<float> once = run(*backend_, c, scattered, types).out;
    expect_same_bits(run(*backend_, c, in_order, types).out, once, "pages in order");
    expect_same_bits(run(*backend_, c, scattered, types).out, once, "again");
  }
}

MINILLM_ON_EVERY_TARGET(NarrowAttention);

}  // namespace
}  // namespace minillm
