// equalities_test.cpp - what must be bitwise equal on every backend (in steps of the size for which it promises that): the logits of a
// sequence do not depend on its company, on how its tokens were cut into steps, on forks, on which pages it got, on threads, or on what
// unused slots hold. Every session starts with NaN in every slot of every page, so each test also shows that unused slots are never used.
#include "conformance/tiny_decoder.h"

namespace minillm {
namespace {

using namespace test;
using Tokens = TinySession::Tokens;

class Equalities : public OnTarget {
 protected:
  void SetUp() override {
    OnTarget::SetUp();
    shared_ = std::move(backend_);
  }
  TinySession session(const TinyTypes& types, int64_t n_rows, Dtype dtype = Dtype::kF16, int64_t page_tokens = 16) {
    return TinySession(shared_, types, n_rows, dtype, page_tokens, 200, GetParam().same_bits_up_to);
  }
  /// The oracle turns every type into float32 as it packs: one is enough there.
  static std::span<const TinyTypes> types_under_test() {
    return std::span(kTinyTypes).first(GetParam().device.kind == Device::Kind::kReference ? 1 : std::size(kTinyTypes));
  }
  static void expect_finite(const std::vector<float>& logits) {
    for (float x : logits) ASSERT_TRUE(std::isfinite(x));
  }
  std::shared_ptr<Backend> shared_;
};

TEST_P(Equalities, SequenceAloneIsTheSameInABatchOf16) {
  for (const TinyTypes& types : types_under_test()) {
    SCOPED_TRACE(types.name);
    const Tokens prompt = random_tokens(1, 75), more = random_tokens(2, 6);
    TinySession alone = session(types, 1);
    const std::vector<float> want = alone.append(0, prompt);
    expect_finite(want);

    TinySession crowd = session(types, 16);
    std::vector<TinySession::Part> parts;
    for (int64_t row = 0; row < 16; ++row)
      parts.push_back({row, row == 11 ? prompt : random_tokens(static_cast<uint64_t>(100 + row), row * 13 % 97)});
    expect_same_bits(crowd.append(parts)[11], want, "prefill");
    for (size_t i = 0; i < more.size(); ++i) {
      for (auto& part : parts) part.tokens = {part.row == 11 ? more[i] : static_cast<TokenId>(part.row)};
      expect_same_bits(crowd.append(parts)[11], alone.append(0, {more[i]}), "decode step " + std::to_string(i));
    }
  }
}

TEST_P(Equalities, ChunksOfAnySizeGiveTheSame) {
  for (const TinyTypes& types : types_under_test()) {
    SCOPED_TRACE(types.name);
    const Tokens prompt = random_tokens(3, 50);
    TinySession whole = session(types, 1);
    const std::vector<float> want = whole.append(0, prompt);
    for (const int64_t chunk : {1, 2, 7, 16, 33}) {
      TinySession chunked = session(types, 1);
      expect_same_bits(chunked.append(0, prompt, chunk), want, "chunks of " + std::to_string(chunk));
    }
  }
}

TEST_P(Equalities, LongSequencesInChunksGiveTheSame) {
  // Past 512 keys attention merges partial results; they must fall at the same places in prefill and decode.
  const Tokens prompt = random_tokens(4, 1100);
  TinySession whole = session(kTinyTypes[0], 2, Dtype::kBF16, 64), chunked = session(kTinyTypes[0], 2, Dtype::kBF16, 64);
  const std::vector<float> want = whole.append(0, prompt);
  expect_finite(want);
  chunked.append(1, random_tokens(5, 30));
  std::vector<float> got = chunked.append(0, {prompt.begin(), prompt.begin() + 1090}, 333);
  for (size_t i = 1090; i < prompt.size(); ++i) {
    const auto logits = chunked.append({{1, {7}}, {0, {prompt[i]}}})[1];
    got.insert(got.end(), logits.begin(), logits.end());
  }
  expect_same_bits(got, want, "chunks of 333, then one by one");
}

TEST_P(Equalities, ForkedCacheIsTheSameAsAnUnforkedOne) {
  for (const TinyTypes& types : types_under_test()) {
    SCOPED_TRACE(types.name);
    const Tokens prompt = random_tokens(6, 41), left = random_tokens(7, 20), right = random_tokens(8, 20);
    TinySession plain = session(types, 2), forked = session(types, 2);
    plain.append(0, prompt);
    plain.append(1, prompt);
    forked.append(0, prompt);
    forked.cache().fork(0, 1);
    ASSERT_EQ(forked.cache().pool().n_used(), 3);
    for (size_t i = 0; i < left.size(); ++i) {
      const auto want = plain.append({{0, {left[i]}}, {1, {right[i]}}}), got = forked.append({{0, {left[i]}}, {1, {right[i]}}});
      expect_same_bits(got[0], want[0], "original, step " + std::to_string(i));
      expect_same_bits(got[1], want[1], "fork, step " + std::to_string(i));
    }
    forked.cache().truncate(1, 41);
    plain.cache().truncate(1, 41);
    expect_same_bits(forked.append(1, left), plain.append(1, left), "after truncation");
  }
}

TEST_P(Equalities, ScatteredPagesAreTheSameAsPagesInOrder) {
  for (const TinyTypes& types : types_under_test()) {
    SCOPED_TRACE(types.name);
    const Tokens prompt = random_tokens(9, 90);
    TinySession in_order = session(types, 1), scattered = session(types, 40);
    const std::vector<float> want = in_order.append(0, prompt);
    for (int64_t row = 1; row < 40; ++row) scattered.cache().reserve(row, 16);
    for (int64_t row = 1; row < 40; row += 3) scattered.cache().truncate(row, 0);  // Holes, which row 0 fills as it grows.
    std::vector<float> got;
    Random random(10);
    for (size_t i = 0; i < prompt.size();) {
      const size_t n = std::min<size_t>(prompt.size() - i, 1 + static_cast<size_t>(random.below(20)));
      const auto part = scattered.append(0, {prompt.begin() + static_cast<ptrdiff_t>(i), prompt.begin() + static_cast<ptrdiff_t>(i + n)});
      got.insert(got.end(), part.begin(), part.end());
      i += n;
    }
    const auto pages = scattered.cache().pages(0);
    ASSERT_NE(pages[0] + 1, pages[1]) << "the pages were to be scattered";
    expect_same_bits(got, want, "scattered pages");
  }
}

TEST_P(Equalities, PageSizeChangesNothing) {
  const Tokens prompt = random_tokens(11, 150);
  TinySession first = session(kTinyTypes[2], 1, Dtype::kF32, 16);
  const std::vector<float> want = first.append(0, prompt);
  for (const int64_t page_tokens : {32, 48, 64, 256, 1024}) {
    TinySession other(shared_, kTinyTypes[2], 1, Dtype::kF32, page_tokens, 10, GetParam().same_bits_up_to);
    expect_same_bits(other.append(0, prompt, 40), want, "pages of " + std::to_string(page_tokens));
  }
}

TEST_P(Equalities, NumberOfThreadsChangesNothing) {
  for (const TinyTypes& types : types_under_test()) {
    SCOPED_TRACE(types.name);
    const Tokens prompt = random_tokens(12, 60);
    TinySession two = session(types, 1);
    const std::vector<float> want = two.append(0, prompt), next = two.append(0, {5});
    for (const int n_threads : {1, 3, 4}) {
      TinySession other(make_target(GetParam(), n_threads), types, 1, Dtype::kF16, 16, 200, GetParam().same_bits_up_to);
      expect_same_bits(other.append(0, prompt), want, std::to_string(n_threads) + " threads, prefill");
      expect_same_bits(other.append(0, {5}), next, std::to_string(n_threads) + " threads, decode");
    }
  }
}

TEST_P(Equalities, CacheOfAnotherInstanceOfTheBackendWorks) {
  // KVCache makes its pages through an instance of its own.
  const std::shared_ptr<Backend> other = make_target(GetParam(), 1);
  TinyDecoder model(*shared_, kTinyTypes[0]);
  const Step step({{0, 20}}, 16);
  const KvShape shape{.n_layers = 2,
                      .n_kv_heads = TinyDecoder::kKvHeads,
                      .head_dim = TinyDecoder::kDim,
                      .page_tokens = 16,
                      .max_pages = 2,
                      .dtype = Dtype::kF16};
  const auto own = make_storage(*shared_, shape, 2), foreign = make_storage(*other, shape, 2);
  shared_->reserve_workspace(TinyDecoder::workspace(20, 20, 1));
  expect_same_bits(model.forward(step.batch(), *foreign), model.forward(step.batch(), *own), "foreign pages");
}

MINILLM_ON_EVERY_TARGET(Equalities);

}  // namespace
}  // namespace minillm
