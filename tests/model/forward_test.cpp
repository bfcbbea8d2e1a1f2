// forward_test.cpp - every family against the plain forward pass in double, and the equalities that must hold bitwise: in steps, in
// a batch, in chunks, after a fork.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kv/paged_cache.h"
#include "minillm/model.h"
#include "model/model_impl.h"
#include "support/random.h"
#include "support/same_bits.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

namespace minillm {
namespace {

using test::TinyModel;

struct Case {
  std::string family, device;
};
std::string name_of_case(const testing::TestParamInfo<Case>& test) { return test.param.family + "_" + test.param.device; }

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const std::string& family : test::tiny_families())
    for (const char* device : {"reference", "cpu"}) cases.push_back({family, device});
  return cases;
}

std::vector<TokenId> random_ids(uint64_t seed, int64_t n, int64_t vocab = 96) { return test::random_ids(seed, n, vocab); }

class Forward : public testing::TestWithParam<Case> {
 protected:
  MiniLLM load(Dtype kv_dtype) const {
    const test::TempFolder folder;
    LoadOptions options;
    options.device = parse_device(GetParam().device);
    options.n_threads = 2;
    options.kv_dtype = kv_dtype;
    return MiniLLM::load(folder.write("model.gguf", tiny_.writer().image().bytes), options);
  }
  KVCache make_cache(const MiniLLM& model, int64_t batch, int64_t page_tokens = 64) const {
    KVCacheOptions options;
    options.batch_size = batch;
    options.device = model.device();
    options.page_tokens = page_tokens;
    return KVCache(model.config(), options);
  }

  TinyModel tiny_ = test::tiny_model(GetParam().family);
};

/// Row `row` of logits [B, S, V] from column `first` on, as bits: equality of these is equality of every bit.
std::vector<float> logits_of(const Tensor& logits, int64_t row, int64_t first, int64_t n) {
  const int64_t vocab = logits.dim(2);
  const auto begin = logits.values<float>().begin() + (row * logits.dim(1) + first) * vocab;
  return {begin, begin + n * vocab};
}
void expect_same_bits(const std::vector<float>& got, const std::vector<float>& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0) << what;
}

Tensor one_row(const std::vector<TokenId>& ids) { return Tensor::from_ids({ids}); }

TEST_P(Forward, MatchesThePlainForwardInDouble) {
  MiniLLM model = load(Dtype::kF32);
  const std::vector<TokenId> ids = random_ids(3, 40);  // Longer than both windows.
  const Tensor logits = model.forward(one_row(ids));
  const std::vector<double> want = test::plain_forward(tiny_, ids);
  ASSERT_EQ(logits.n_elements(), static_cast<int64_t>(want.size()));
  double largest = 0;
  for (double w : want) largest = std::max(largest, std::abs(w));
  // Rounding to float at every stage of up to seven layers: about a hundred roundings of 2^-24, sixteen times the head-room.
  const double tolerance = largest * 1600 * 0x1p-24;
  const auto got = logits.values<float>();
  for (size_t i = 0; i < want.size(); ++i)
    ASSERT_NEAR(static_cast<double>(got[i]), want[i], tolerance) << "token " << i / 96 << ", id " << i % 96 << ", largest " << largest;
}

TEST_P(Forward, StandardAttentionAndEveryBlockSizeAgree) {
  MiniLLM model = load(Dtype::kF32);
  const Tensor ids = one_row(random_ids(4, 70));
  const Tensor want = model.forward(ids);
  ForwardOptions standard;
  standard.use_flash_attention = false;
  std::vector<std::pair<std::string, Tensor>> others{{"standard", model.forward(ids, standard)}};
  for (int64_t block : {16, 64, 1024}) {
    ForwardOptions options;
    options.flash_block_size = block;
    others.emplace_back("block " + std::to_string(block), model.forward(ids, options));
  }
  for (const auto& [name, got] : others)
    for (int64_t i = 0; i < want.n_elements(); ++i)
      ASSERT_NEAR(got.values<float>()[static_cast<size_t>(i)], want.values<float>()[static_cast<size_t>(i)], 1e-3f) << name << " at " << i;
}

TEST_P(Forward, InStepsIsBitwiseTheWhole) {
  const test::SameBitsInAnyStep same_bits;
  MiniLLM model = load(Dtype::kF16);
  const std::vector<TokenId> ids = random_ids(5, 90);
  const Tensor whole = model.forward(one_row(ids));
  for (const std::vector<int64_t>& steps : {std::vector<int64_t>{89, 1}, {1, 1, 1, 87}, {64, 26}, {17, 30, 43}}) {
    KVCache cache = make_cache(model, 1);
    ForwardOptions options;
    options.kv_cache = &cache;
    int64_t done = 0;
    for (int64_t n : steps) {
      const Tensor part = model.forward(one_row({ids.begin() + done, ids.begin() + done + n}), options);
      expect_same_bits(logits_of(part, 0, 0, n), logits_of(whole, 0, done, n), "after " + std::to_string(done));
      done += n;
    }
    EXPECT_EQ(cache.lengths(), std::vector<int64_t>{90});
  }
}

TEST_P(Forward, InARaggedBatchIsBitwiseAlone) {
  MiniLLM model = load(Dtype::kF16);
  const std::vector<int64_t> lengths{33, 1, 0, 64, 7, 65, 16, 90, 2, 48, 31, 32, 5, 80, 3, 17};
  Tensor ids({16, 90}, Dtype::kI32);
  std::fill(ids.values<int32_t>().begin(), ids.values<int32_t>().end(), -7);  // Padding is never looked at.
  std::vector<std::vector<TokenId>> rows;
  for (size_t row = 0; row < lengths.size(); ++row) {
    rows.push_back(random_ids(row + 10, lengths[row]));
    std::copy(rows[row].begin(), rows[row].end(), ids.values<int32_t>().begin() + static_cast<ptrdiff_t>(row * 90));
  }
  ForwardOptions options;
  options.lengths = lengths;
  const Tensor together = model.forward(ids, options);
  options.last_logits_only = true;
  const Tensor last = model.forward(ids, options);
  ASSERT_EQ(last.dim(1), 1);
  for (size_t row = 0; row < lengths.size(); ++row) {
    const int64_t i = static_cast<int64_t>(row), n = lengths[row];
    for (float padding : logits_of(together, i, n, 90 - n)) ASSERT_EQ(padding, 0.0f);
    if (n == 0) continue;
    const Tensor alone = model.forward(one_row(rows[row]));
    expect_same_bits(logits_of(together, i, 0, n), logits_of(alone, 0, 0, n), "row " + std::to_string(row));
    expect_same_bits(logits_of(last, i, 0, 1), logits_of(alone, 0, n - 1, 1), "last of row " + std::to_string(row));
  }
}

TEST_P(Forward, GoesOnFromRowsOfDifferentLengths) {
  const test::SameBitsInAnyStep same_bits;
  MiniLLM model = load(Dtype::kF16);
  KVCache cache = make_cache(model, 2, 16);  // Another page size gives the same bits.
  const std::vector<TokenId> a = random_ids(21, 40), b = random_ids(22, 40);
  ForwardOptions options;
  options.kv_cache = &cache;
  options.lengths = {30, 11};
  model.forward(Tensor::from_ids({{a.begin(), a.begin() + 30}, {b.begin(), b.begin() + 30}}), options);
  EXPECT_EQ(cache.lengths(), (std::vector<int64_t>{30, 11}));
  options.lengths = {};
  const Tensor next = model.forward(Tensor::from_ids({{a.begin() + 30, a.end()}, {b.begin() + 11, b.begin() + 21}}), options);
  expect_same_bits(logits_of(next, 0, 0, 10), logits_of(model.forward(one_row(a)), 0, 30, 10), "row 0");
  expect_same_bits(logits_of(next, 1, 0, 10), logits_of(model.forward(one_row(b)), 0, 11, 10), "row 1");
}

TEST_P(Forward, InAForkIsBitwiseTheSameAsUnforked) {
  const test::SameBitsInAnyStep same_bits;
  MiniLLM model = load(Dtype::kF16);
  const std::vector<TokenId> ids = random_ids(23, 50);
  KVCache cache = make_cache(model, 2);
  ForwardOptions options;
  options.kv_cache = &cache;
  options.lengths = {40, 0};
  model.forward(Tensor::from_ids({{ids.begin(), ids.begin() + 40}, {ids.begin(), ids.begin() + 40}}), options);
  cache.paged().fork(0, 1);
  options.lengths = {};
  const Tensor next = model.forward(Tensor::from_ids({std::vector<TokenId>(10, 5), {ids.begin() + 40, ids.end()}}), options);
  expect_same_bits(logits_of(next, 1, 0, 10), logits_of(model.forward(one_row(ids)), 0, 40, 10), "fork");
}

INSTANTIATE_TEST_SUITE_P(Families, Forward, testing::ValuesIn(all_cases()), name_of_case);

class LongForward : public testing::TestWithParam<std::string> {};

TEST_P(LongForward, IsCutIntoStepsWithoutChangingABit) {
  ModelConfig config = test::tiny_model("llama").config;
  config.context_length = 2048;
  LoadOptions load;
  load.device = parse_device(GetParam());
  MiniLLM model(config, load);
  const std::vector<TokenId> a = random_ids(31, kStepRows + 77), b = random_ids(32, kStepRows + 77);
  const Tensor both = model.forward(Tensor::from_ids({a, b}));  // Three steps; the second holds the end of a and the start of b.
  const Tensor alone = model.forward(one_row(b));
  const int64_t n = static_cast<int64_t>(a.size());
  expect_same_bits(logits_of(both, 1, 0, n), logits_of(alone, 0, 0, n), "second row");
  EXPECT_LE(model.impl().workspace.limits().max_rows, kStepRows);
}
INSTANTIATE_TEST_SUITE_P(Devices, LongForward, testing::Values("reference", "cpu"), [](const auto& test) { return test.param; });

}  // namespace
}  // namespace minillm
