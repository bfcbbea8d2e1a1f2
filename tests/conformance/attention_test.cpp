// attention_test.cpp - attention over pages on every backend, flash and standard, against the oracle's two-pass softmax.
#include "conformance/rig.h"

namespace minillm {
namespace {

using namespace test;

struct Case {
  const char* name;
  int64_t n_heads, n_kv_heads, dim;
  std::vector<Step::Row> rows;
  int64_t page_tokens;
  Dtype dtype;
  int64_t block_size = 128;
  bool causal = true;
  int64_t window = 0;
  float softcap = 0;
  bool alibi = false, sinks = false;
  double spread = 1;  ///< Of q and k: 100 makes scores of 1e4 and more.
};

// Pairwise: every two of (group 1 3 4 8, width, lengths, page, dtype, block, causal, window, softcap, ALiBi, sinks) meet.
const Case kCases[] = {
    {"one_token", 1, 1, 64, {{0, 1}}, 16, Dtype::kF32},
    {"decode_short", 4, 4, 64, {{1, 1}}, 16, Dtype::kF16, 16},
    {"decode_odd", 9, 3, 64, {{338, 1}}, 64, Dtype::kF16, 128},
    {"decode_long", 8, 2, 128, {{4100, 1}}, 128, Dtype::kBF16, 64},
    {"decode_window", 4, 1, 256, {{1300, 1}}, 64, Dtype::kF16, 128, true, 512},
    {"decode_batch", 8, 1, 80, {{5, 1}, {0, 1}, {511, 1}, {512, 1}, {513, 1}, {97, 1}}, 32, Dtype::kF32, 32, true, 0, 30},
    {"decode_alibi_sinks", 8, 8, 40, {{700, 1}, {15, 1}}, 48, Dtype::kBF16, 1024, true, 0, 0, true, true},
    {"prefill_square", 3, 3, 64, {{0, 97}}, 64, Dtype::kF32, 64},
    {"prefill_long", 3, 1, 64, {{0, 1025}}, 256, Dtype::kF16, 128},
    {"prefill_chunk", 4, 4, 96, {{203, 113}}, 16, Dtype::kF16, 16, true, 0, 50},
    {"prefill_window", 8, 2, 32, {{64, 300}}, 32, Dtype::kBF16, 256, true, 37, 0, true},
    {"prefill_everything", 6, 2, 64, {{33, 70}}, 48, Dtype::kF16, 64, true, 29, 20, true, true},
    {"not_causal", 4, 1, 112, {{100, 27}}, 64, Dtype::kF32, 512, false},
    {"not_causal_window", 4, 2, 64, {{10, 130}}, 16, Dtype::kF16, 32, false, 40, 0, false, true},
    {"ragged", 8, 2, 64, {{0, 33}, {500, 1}, {77, 0}, {0, 1}, {12, 5}, {1023, 2}}, 64, Dtype::kF16, 128},
    {"ragged_everything", 3, 1, 128, {{40, 9}, {0, 64}, {511, 3}}, 16, Dtype::kBF16, 32, true, 100, 15, true, true},
    {"wide_pages", 2, 2, 192, {{900, 20}, {3, 2}}, 1024, Dtype::kF32, 1024},
    {"narrow_head", 4, 2, 16, {{0, 50}, {200, 1}}, 16, Dtype::kF16, 16, true, 1},
    {"huge_scores", 4, 2, 64, {{600, 3}, {0, 20}}, 64, Dtype::kF32, 64, true, 0, 0, false, false, 100},
    {"huge_scores_capped", 4, 2, 64, {{600, 3}}, 64, Dtype::kF16, 64, true, 0, 30, false, true, 60},
    {"prefill_80", 4, 2, 80, {{70, 66}, {300, 1}}, 16, Dtype::kF16},
    {"prefill_192", 4, 4, 192, {{10, 70}}, 64, Dtype::kBF16, 128, true, 0, 0, true},
    {"prefill_256", 4, 1, 256, {{100, 80}}, 32, Dtype::kF16, 64, true, 50},
    {"decode_80", 4, 2, 80, {{130, 1}}, 16, Dtype::kBF16},
    {"decode_192", 8, 2, 192, {{1500, 1}, {20, 2}}, 48, Dtype::kF16},
    {"f8_decode", 32, 8, 128, {{4100, 1}, {0, 1}, {63, 1}, {1000, 1}}, 64, Dtype::kF8},
    {"f8_decode_64", 9, 3, 64, {{338, 1}, {17, 1}}, 16, Dtype::kF8, 64},
    {"f8_decode_80", 12, 1, 80, {{130, 1}, {1300, 1}}, 48, Dtype::kF8, 128, true, 512},
    {"f8_decode_96", 4, 2, 96, {{700, 2}}, 32, Dtype::kF8, 128, true, 0, 0, true, true},
    {"f8_decode_192", 8, 2, 192, {{1500, 1}}, 64, Dtype::kF8},
    {"f8_decode_256", 16, 1, 256, {{600, 3}}, 64, Dtype::kF8},
    {"f8_prefill", 4, 2, 128, {{0, 200}, {70, 66}}, 64, Dtype::kF8},
    {"f8_prefill_64", 6, 2, 64, {{33, 170}, {5, 1}}, 48, Dtype::kF8, 64, true, 29, 20, true, true},
    {"f8_prefill_80", 4, 2, 80, {{70, 66}, {300, 1}}, 16, Dtype::kF8},
    {"f8_prefill_96", 4, 1, 96, {{100, 80}}, 16, Dtype::kF8, 64, false},
    {"f8_prefill_256", 4, 1, 256, {{100, 80}}, 32, Dtype::kF8, 64, true, 50},
    {"f8_narrow_head", 4, 2, 40, {{0, 70}, {200, 1}}, 16, Dtype::kF8},
    {"multi_run", 4, 4, 32, {{2000, 70}}, 64, Dtype::kF16, 512, true, 0, 0, false, true},
};

class Attention : public OnTarget {
 protected:
  static AttentionParams params_of(const Case& c, const std::vector<float>& slopes, const std::vector<float>& sinks) {
    AttentionParams params;
    params.n_heads = c.n_heads;
    params.n_kv_heads = c.n_kv_heads;
    params.head_dim = c.dim;
    params.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(c.dim)));
    params.causal = c.causal;
    params.window = c.window;
    params.softcap = c.softcap;
    params.block_size = c.block_size;
    if (c.alibi) params.alibi_slopes = slopes;
    if (c.sinks) params.sinks = sinks;
    return params;
  }
  static WorkspaceShape workspace_of(const Case& c, const Step& step) {
    WorkspaceShape shape;
    shape.max_rows = std::max<int64_t>(step.n_rows(), 1);
    shape.hidden = shape.ffn = 16;
    shape.n_heads = c.n_heads;
    shape.n_kv_heads = c.n_kv_heads;
    shape.head_dim = c.dim;
    shape.max_sequences = static_cast<int64_t>(step.rows.size());
    for (const Step::Row& row : step.rows) shape.max_context = std::max(shape.max_context, row.n_cached + row.n_rows);
    return shape;
  }
  struct Result {
    Array out, lse;
  };
  static Result run(Backend& backend, const Case& c, const Step& step, bool flash) {
    const int64_t t = step.n_rows();
    const auto storage = make_storage(
        backend,
        {.n_layers = 1, .n_kv_heads = c.n_kv_heads, .head_dim = c.dim, .page_tokens = c.page_tokens, .max_pages = 0, .dtype = c.dtype},
        step.n_pages);
    fill(*storage, step, true, c.spread);
    std::vector<float> slopes, sinks;
    for (int64_t h = 0; h < c.n_heads; ++h) {
      slopes.push_back(static_cast<float>(std::exp2(-8.0 * static_cast<double>(h + 1) / static_cast<double>(c.n_heads))));
      sinks.push_back(static_cast<float>(h - 1));
    }
    AttentionParams params = params_of(c, slopes, sinks);
    params.flash = flash;
    const Array q(backend, {t, c.n_heads, c.dim}, randn(7, t * c.n_heads * c.dim, c.spread));
    Result result{Array(backend, {t, c.n_heads, c.dim}), Array(backend, {t, c.n_heads})};
    backend.reserve_workspace(workspace_of(c, step));
    backend.begin_step(step.batch());
    backend.attention(result.out, q, *storage, 0, params, result.lse);
    const Array without_lse(backend, {t, c.n_heads, c.dim});
    backend.attention(without_lse, q, *storage, 0, params);
    expect_same_bits(without_lse.host(), result.out.host(), "without LSE");
    return result;
  }
};

/// A score of size |scale q.k| <= 6 spread^2 is wrong by a few of its own roundings, ALiBi's product by one of its distance; e^x turns
/// that into a relative error of each probability, which averages over values of about 2. Sums add a few roundings of their own.
double tolerance_of(const Case& c, bool bf16) {
  const double raw = 6 * c.spread * c.spread, score = c.softcap > 0 ? std::min<double>(c.softcap, raw) : raw;
  const double score_error = 0x1p-23 * (score + 1) + (c.alibi ? 0x1p-23 * 16 : 0);
  return 2 * score_error + 0x1p-24 * 8 + (bf16 ? 0x1p-6 * (1 + score) : 0);
}

TEST_P(Attention, MatchesTheOracleFlashAndStandard) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const Step step(c.rows, c.page_tokens, 11);
    const Result want = run(*oracle_, c, step, true);
    const double tolerance = tolerance_of(c, GetParam().bf16_products != 0);
    const std::vector<float> lse = want.lse.host();
    for (const bool flash : {true, false}) {
      const Result got = run(*backend_, c, step, flash);
      expect_close(got.out, want.out, tolerance, flash ? "flash" : "standard");
      expect_close(
          got.lse, want.lse, [&](int64_t i) { return tolerance + 0x1p-22 * std::abs(static_cast<double>(lse[static_cast<size_t>(i)])); },
          flash ? "flash LSE" : "standard LSE");
    }
  }
}

TEST_P(Attention, BlockSizeChangesRoundingOnly) {
  Case c{"blocks", 6, 2, 64, {{700, 40}, {1500, 1}}, 64, Dtype::kF16};
  const Step step(c.rows, c.page_tokens, 12);
  const Result want = run(*oracle_, c, step, true);
  for (c.block_size = 16; c.block_size <= 1024; c.block_size *= 2) {
    SCOPED_TRACE(c.block_size);
    expect_close(run(*backend_, c, step, true).out, want.out, tolerance_of(c, GetParam().bf16_products != 0), "block size");
  }
}

TEST_P(Attention, BitsDoNotDependOnBatchChunksPagesOrThreads) {
  for (const Case& base : kCases) {
    if (base.rows.size() < 2) continue;
    SCOPED_TRACE(base.name);
    const Step together(base.rows, base.page_tokens, 13);
    const std::vector<float> all = run(*backend_, base, together, true).out.host();
    expect_same_bits(run(*backend_, base, Step(base.rows, base.page_tokens, 0), true).out.host(), all, "pages in order");
    for (const int n_threads : {1, 3}) {
      const auto other = make_target(GetParam(), n_threads);
      expect_same_bits(run(*other, base, together, true).out.host(), all, std::to_string(n_threads) + " threads");
    }
  }
}

MINILLM_ON_EVERY_TARGET(Attention);

}  // namespace
}  // namespace minillm
