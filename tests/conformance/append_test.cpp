// append_test.cpp - rotate_and_append on every backend: bias, norm and rotation of q and k, and where k and v land.
#include "conformance/rig.h"

namespace minillm {
namespace {

using namespace test;

struct Case {
  const char* name;
  int64_t n_heads, n_kv_heads, dim, rope_dim;
  RopeLayout layout;
  bool bias, norm;
  Dtype dtype;
  int64_t page_tokens;
};
constexpr Case kCases[] = {
    {"plain", 4, 4, 64, 64, RopeLayout::kHalves, false, false, Dtype::kF32, 16},
    {"interleaved_grouped", 6, 2, 32, 32, RopeLayout::kInterleaved, false, false, Dtype::kF16, 64},
    {"bias", 4, 1, 40, 40, RopeLayout::kHalves, true, false, Dtype::kBF16, 32},
    {"norm", 4, 1, 256, 256, RopeLayout::kHalves, false, true, Dtype::kF16, 16},
    {"bias_norm_partial", 3, 3, 80, 20, RopeLayout::kHalves, true, true, Dtype::kF32, 48},
    {"interleaved_partial", 8, 2, 96, 50, RopeLayout::kInterleaved, true, true, Dtype::kF16, 1024},
    {"f8", 8, 2, 128, 128, RopeLayout::kHalves, true, true, Dtype::kF8, 64},
    {"f8_interleaved", 3, 1, 40, 26, RopeLayout::kInterleaved, false, false, Dtype::kF8, 16},
    {"narrow", 2, 2, 2, 2, RopeLayout::kHalves, false, false, Dtype::kF32, 16},
    {"no_rotation", 2, 1, 16, 0, RopeLayout::kHalves, true, false, Dtype::kF32, 16},
};

class Append : public OnTarget {};

/// q and the whole content of the cache after a step.
struct Result {
  std::vector<float> q, k, v;
};

Result run(Backend& backend, const Case& c, const Step& step) {
  const int64_t t = step.n_rows(), columns = (c.n_heads + 2 * c.n_kv_heads) * c.dim;
  const auto storage = make_storage(
      backend,
      {.n_layers = 2, .n_kv_heads = c.n_kv_heads, .head_dim = c.dim, .page_tokens = c.page_tokens, .max_pages = 0, .dtype = c.dtype},
      step.n_pages);
  fill(*storage, step, false);
  const Array qkv(backend, {t, columns}, randn(1, t * columns)), bias(backend, {columns}, randn(2, columns));
  const Array q_norm(backend, {c.dim}, randn(3, c.dim)), k_norm(backend, {c.dim}, randn(4, c.dim));
  const Array angles(backend, {t, c.rope_dim}, some_angles(t, c.rope_dim)), q(backend, {t, c.n_heads, c.dim});
  AttentionInput input;
  input.n_heads = c.n_heads;
  input.n_kv_heads = c.n_kv_heads;
  input.head_dim = c.dim;
  input.rope_layout = c.layout;
  input.rope_dim = c.rope_dim;
  input.norm_eps = 1e-6f;
  if (c.bias) input.bias = bias;
  if (c.norm) input.q_norm = q_norm, input.k_norm = k_norm;
  backend.begin_step(step.batch());
  backend.rotate_and_append(q, qkv, input, angles, *storage, 1);
  backend.sync();

  Result result{q.host(), {}, {}};
  for (size_t b = 0; b < step.rows.size(); ++b)
    for (int64_t slot = 0; slot < step.rows[b].n_cached + step.rows[b].n_rows; ++slot)
      for (const int64_t layer : {0, 1}) {
        if (layer == 0 && slot >= step.rows[b].n_cached) continue;  // Nothing was written there.
        std::vector<float> k(static_cast<size_t>(c.n_kv_heads * c.dim)), v(k.size());
        storage->read(layer, step.tables[b][static_cast<size_t>(slot / c.page_tokens)], slot % c.page_tokens,
                      {k.data(), Dtype::kF32, {1, c.n_kv_heads, c.dim}}, {v.data(), Dtype::kF32, {1, c.n_kv_heads, c.dim}});
        result.k.insert(result.k.end(), k.begin(), k.end());
        result.v.insert(result.v.end(), v.begin(), v.end());
      }
  return result;
}

TEST_P(Append, MatchesTheOracle) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const Step step({{0, 5}, {15, 1}, {7, 0}, {31, 40}, {64, 1}}, c.page_tokens, 5);
    const Result got = run(*backend_, c, step), want = run(*oracle_, c, step);
    // Float32: the norm's sum, a rotation of two products. Then at most one step of the storage type where that rounding flips.
    const double f32 = (8 + std::sqrt(static_cast<double>(c.dim))) * 0x1p-24 * 4;
    const double stored = c.dtype == Dtype::kF32 ? 0 : c.dtype == Dtype::kF16 ? 0x1p-10 : c.dtype == Dtype::kBF16 ? 0x1p-7 : 0x1p-3;
    const double least = c.dtype == Dtype::kF8 ? 0x1p-9 : 0;  // The step of its subnormals.
    const auto compare = [&](const std::vector<float>& x, const std::vector<float>& y, double step_size, const char* what) {
      ASSERT_EQ(x.size(), y.size());
      for (size_t i = 0; i < y.size(); ++i)
        ASSERT_NEAR(x[i], y[i], f32 + (step_size > 0 ? least : 0) + (f32 + step_size) * std::abs(static_cast<double>(y[i])))
            << what << " at " << i;
    };
    compare(got.q, want.q, 0, "q");
    compare(got.k, want.k, stored, "k");
    compare(got.v, want.v, stored, "v");
  }
}

TEST_P(Append, RowsDoNotDependOnTheRowsBesideThem) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const int64_t width = c.n_heads * c.dim;
    // The content of a row depends on its index in the step alone, so the first rows of a longer step are the shorter step.
    const Step few({{20, 3}}, c.page_tokens, 2), many({{20, 3}, {0, 17}, {50, 2}}, c.page_tokens, 3);
    const Result a = run(*backend_, c, few), b = run(*backend_, c, many);
    expect_same_bits({b.q.begin(), b.q.begin() + 3 * width}, a.q, "q");
    expect_same_bits({b.k.begin(), b.k.begin() + static_cast<ptrdiff_t>(a.k.size())}, a.k, "k");
    expect_same_bits({b.v.begin(), b.v.begin() + static_cast<ptrdiff_t>(a.v.size())}, a.v, "v");
  }
}

TEST_P(Append, StorageGivesBackWhatWasWrittenAndCopiesPages) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16, Dtype::kF8})
    for (const int64_t dim : {2, 16, 40, 64, 80, 256}) {
      const KvShape shape{.n_layers = 3, .n_kv_heads = 2, .head_dim = dim, .page_tokens = 48, .max_pages = 3, .dtype = dtype};
      const auto storage = make_storage(*backend_, shape, 3);
      const int64_t page_bytes = storage->bytes() / 3;  // A backend may pad narrow heads, not others.
      EXPECT_GE(page_bytes, shape.page_bytes());
      if (dim % 16 == 0) {
        EXPECT_EQ(page_bytes, shape.page_bytes());
      }
      const std::vector<float> k = randn(1, 11 * 2 * dim), v = randn(2, 11 * 2 * dim);
      storage->write(1, 2, 13, {k.data(), Dtype::kF32, {11, 2, dim}}, {v.data(), Dtype::kF32, {11, 2, dim}});
      storage->copy_page(2, 0);
      const auto rounded = [dtype](float x) {
        if (dtype == Dtype::kF8) return f8_to_float(float_to_f8(x));
        return dtype == Dtype::kF32 ? x : dtype == Dtype::kF16 ? half_to_float(float_to_half(x)) : bfloat16_to_float(float_to_bfloat16(x));
      };
      for (const int32_t page : {2, 0}) {
        std::vector<float> got_k(k.size()), got_v(v.size());
        storage->read(1, page, 13, {got_k.data(), Dtype::kF32, {11, 2, dim}}, {got_v.data(), Dtype::kF32, {11, 2, dim}});
        for (size_t i = 0; i < k.size(); ++i) {
          ASSERT_EQ(got_k[i], rounded(k[i])) << name_of(dtype) << " D=" << dim << " page " << page << " at " << i;
          ASSERT_EQ(got_v[i], rounded(v[i])) << name_of(dtype) << " D=" << dim << " page " << page << " at " << i;
        }
        storage->read(1, page, 12, {got_k.data(), Dtype::kF32, {1, 2, dim}}, {got_v.data(), Dtype::kF32, {1, 2, dim}});
        EXPECT_TRUE(std::isnan(got_k[0]) && std::isnan(got_v[0])) << "the slot before was touched";
      }
      storage->commit(1);
      EXPECT_EQ(storage->bytes(), page_bytes);
    }
}

TEST_P(Append, StorageRefusesPagesItCannotHold) {
  const KvShape good{.n_layers = 1, .n_kv_heads = 1, .head_dim = 16, .page_tokens = 16, .max_pages = 1, .dtype = Dtype::kF16};
  for (const int64_t page_tokens : {-16, 0, 8, 24, 2048}) {
    KvShape bad = good;
    bad.page_tokens = page_tokens;
    EXPECT_THROW(backend_->make_kv_storage(bad), Error) << page_tokens;
  }
  KvShape bad = good;
  bad.dtype = Dtype::kQ8_0;
  EXPECT_THROW(backend_->make_kv_storage(bad), Error);
}

MINILLM_ON_EVERY_TARGET(Append);

}  // namespace
}  // namespace minillm
