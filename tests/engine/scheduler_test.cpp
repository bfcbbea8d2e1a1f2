// scheduler_test.cpp - thousands of random steps without a model: every sequence ends with the tokens it would have got alone, no
// page is lost or shared, the oldest always moves, and the pool is empty when all are done.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "backend/reference/reference_backend.h"
#include "support/random.h"

namespace minillm {
namespace {

constexpr int64_t kPage = 16;

/// The "model": the next token is a hash of all before it.
TokenId next_token(const std::vector<TokenId>& tokens) {
  uint32_t hash = 2166136261u;
  for (TokenId token : tokens) hash = (hash ^ static_cast<uint32_t>(token)) * 16777619u;
  return static_cast<TokenId>(hash % 1000);
}

struct Limits {
  int64_t max_batch, max_rows, n_pages, preempt_every;
};

class Harness {
 public:
  explicit Harness(const Limits& setup, std::shared_ptr<Backend> backend = make_backend({Device::Kind::kReference, 0}))
      : setup_(setup),
        backend_(std::move(backend)),
        cache_(backend_, KvShape{.n_layers = 1, .n_kv_heads = 1, .head_dim = 2, .page_tokens = kPage, .max_pages = setup.n_pages},
               setup.max_batch, false),
        scheduler_(cache_, {.max_batch = setup.max_batch, .max_step_rows = setup.max_rows, .preempt_every = setup.preempt_every}) {}

  Sequence& submit(int64_t n_prompt, int64_t n_new, uint64_t seed) {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = ++last_id_;
    sequence->n_prompt = n_prompt;
    sequence->options.max_new_tokens = n_new;
    test::Random random(seed);
    for (int64_t i = 0; i < n_prompt; ++i) sequence->tokens.push_back(static_cast<TokenId>(random.below(1000)));
    scheduler_.submit(*sequence);
    return *live_.emplace(sequence->id, std::move(sequence)).first->second;
  }

  /// One step; returns the ids that ended.
  std::vector<RequestId> step() {
    std::vector<RequestId> ended;
    const RequestId oldest = live_.empty() ? 0 : live_.begin()->first;
    const int64_t oldest_progress = live_.empty() ? 0 : progress(*live_.begin()->second);
    const auto shares = scheduler_.plan(batch_);
    check_plan(shares);
    scheduler_.advance();
    for (const auto& share : shares) {
      if (!share.wants_next_token) continue;
      Sequence& sequence = *share.sequence;
      sequence.tokens.push_back(next_token(sequence.tokens));
      if (sequence.n_generated() == sequence.options.max_new_tokens) ended.push_back(sequence.id);
    }
    for (const Scheduler::Ended& out : scheduler_.ended()) {
      EXPECT_TRUE(!out.error.empty() || shares.empty());
      (out.error.empty() ? at_capacity : out_of_memory).insert(out.sequence->id);
      ended.push_back(out.sequence->id);
    }
    if (oldest != 0 && setup_.preempt_every == 0 && !at_capacity.contains(oldest)) {
      EXPECT_GT(progress(*live_.at(oldest)), oldest_progress) << "the oldest stood still";
    }
    for (RequestId id : ended) {
      finished[id] = live_.at(id)->tokens;
      scheduler_.remove(*live_.at(id));
      live_.erase(id);
    }
    check_pages();
    return ended;
  }

  void cancel(RequestId id) {
    scheduler_.remove(*live_.at(id));
    live_.erase(id);
  }

  const std::map<RequestId, std::unique_ptr<Sequence>>& live() const { return live_; }
  Scheduler& scheduler() { return scheduler_; }
  const PagedCache& cache() const { return cache_; }
  const StepBatch& batch() const { return batch_; }

  std::map<RequestId, std::vector<TokenId>> finished;
  std::set<RequestId> at_capacity, out_of_memory;

 private:
  int64_t progress(const Sequence& sequence) const {
    return sequence.n_tokens() * 1000000 + (sequence.cache_row < 0 ? 0 : cache_.length(sequence.cache_row));
  }

  void check_plan(std::span<const Scheduler::Share> shares) const {
    const Batch batch = batch_.view();
    ASSERT_LE(static_cast<int64_t>(batch.tokens.size()), setup_.max_rows);
    ASSERT_EQ(shares.size(), batch.sequences.size());
    ASSERT_LE(static_cast<int64_t>(shares.size()), setup_.max_batch);
    int64_t row = 0;
    std::set<int64_t> cache_rows;
    for (size_t i = 0; i < shares.size(); ++i) {
      const auto& share = shares[i];
      const SequenceSlice& slice = batch.sequences[i];
      ASSERT_EQ(slice.first_row, row);
      ASSERT_EQ(slice.n_rows, share.n_tokens);
      ASSERT_GT(slice.n_rows, 0);
      ASSERT_EQ(slice.n_cached, cache_.length(share.sequence->cache_row));
      ASSERT_TRUE(cache_rows.insert(share.sequence->cache_row).second) << "two shares of one row";
      for (int64_t t = 0; t < slice.n_rows; ++t) {
        ASSERT_EQ(batch.tokens[static_cast<size_t>(row + t)], share.sequence->tokens[static_cast<size_t>(slice.n_cached + t)]);
        ASSERT_EQ(batch.positions[static_cast<size_t>(row + t)], slice.n_cached + t);
      }
      row += slice.n_rows;
      ASSERT_EQ(share.last_row, row - 1);
      ASSERT_EQ(share.wants_next_token, slice.n_cached + slice.n_rows == share.sequence->n_tokens());
    }
  }

  void check_pages() const {
    std::set<int32_t> pages;
    int64_t n_held = 0;
    for (const auto& [id, sequence] : live_) {
      if (sequence->cache_row < 0) continue;
      for (int32_t page : cache_.pages(sequence->cache_row)) ASSERT_TRUE(pages.insert(page).second) << "page " << page << " is held twice";
      n_held += static_cast<int64_t>(cache_.pages(sequence->cache_row).size());
    }
    ASSERT_EQ(cache_.pool().n_used(), n_held);
    ASSERT_EQ(cache_.pool().n_free() + n_held, setup_.n_pages);
  }

  Limits setup_;
  std::shared_ptr<Backend> backend_;
  PagedCache cache_;
  Scheduler scheduler_;
  StepBatch batch_;
  std::map<RequestId, std::unique_ptr<Sequence>> live_;
  RequestId last_id_ = 0;
};

class RandomRun : public testing::TestWithParam<Limits> {};

TEST_P(RandomRun, GivesEachSequenceTheTokensItWouldGetAlone) {
  const Limits setup = GetParam();
  Harness harness(setup);
  test::Random random(99);
  const int64_t capacity = setup.n_pages * kPage;
  std::map<RequestId, std::pair<std::vector<TokenId>, int64_t>> asked;  // Prompt and new tokens.
  int64_t n_cancelled = 0;
  for (int step = 0; step < 1700 || !harness.live().empty(); ++step) {
    ASSERT_LT(step, 40000) << "no end in sight: " << harness.live().size() << " live";
    if (step < 1700 && random.below(4) == 0) {
      const int64_t n_prompt = 1 + random.below(std::min<int64_t>(capacity, 90)), n_new = 1 + random.below(40);
      const Sequence& sequence = harness.submit(n_prompt, n_new, random.bits());
      asked[sequence.id] = {sequence.tokens, n_new};
    }
    if (!harness.live().empty() && random.below(50) == 0) {
      auto victim = harness.live().begin();
      std::advance(victim, random.below(static_cast<int64_t>(harness.live().size())));
      asked.erase(victim->first);
      harness.cancel(victim->first);
      ++n_cancelled;
    }
    harness.step();
    if (HasFatalFailure()) return;
  }
  EXPECT_EQ(harness.cache().pool().n_used(), 0);
  EXPECT_TRUE(harness.scheduler().idle());
  EXPECT_GT(n_cancelled, 0);
  ASSERT_EQ(harness.finished.size(), asked.size());
  for (const auto& [id, prompt_and_new] : asked) {
    std::vector<TokenId> want = prompt_and_new.first;
    const std::vector<TokenId>& got = harness.finished.at(id);
    while (want.size() < got.size()) want.push_back(next_token(want));
    EXPECT_EQ(got, want) << "sequence " << id;
    if (harness.at_capacity.contains(id)) {
      EXPECT_GE(static_cast<int64_t>(got.size()), capacity);  // It ended because nothing more fits, not sooner.
    } else {
      EXPECT_EQ(static_cast<int64_t>(got.size() - prompt_and_new.first.size()), prompt_and_new.second);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Setups, RandomRun,
                         testing::Values(Limits{1, 1, 6, 0}, Limits{1, 64, 6, 0}, Limits{2, 2, 8, 0}, Limits{3, 512, 7, 0},
                                         Limits{4, 16, 10, 0}, Limits{4, 64, 6, 0}, Limits{8, 8, 20, 0}, Limits{8, 32, 1000, 0},
                                         Limits{16, 512, 12, 0}, Limits{16, 64, 40, 0}, Limits{4, 64, 1000, 7}, Limits{8, 512, 20, 7},
                                         Limits{16, 16, 40, 3}));

TEST(Scheduler, GivesDecodingRowsAPlaceBesideALongPrompt) {
  Harness harness({4, 32, 100, 0});
  Sequence& first = harness.submit(5, 20, 1);
  harness.step();
  harness.submit(100, 5, 2);
  for (int i = 0; i < 3; ++i) {
    harness.step();
    EXPECT_EQ(harness.batch().n_rows(), 32);  // One of the first, 31 of the prompt.
  }
  EXPECT_EQ(first.n_generated(), 4);
}

TEST(Scheduler, LetsWaitingSequencesInByAge) {
  Harness harness({2, 64, 100, 0});
  for (int i = 0; i < 5; ++i) harness.submit(4, 3, static_cast<uint64_t>(i));
  std::vector<RequestId> order;
  while (!harness.live().empty())
    for (RequestId id : harness.step()) order.push_back(id);
  EXPECT_EQ(order, (std::vector<RequestId>{1, 2, 3, 4, 5}));
}

TEST(Scheduler, EvictsTheNewestAndComputesItAgain) {
  Harness harness({2, 64, 4, 0});  // Two sequences of up to 64 tokens do not fit in 64 slots.
  Sequence& oldest = harness.submit(16, 40, 1);
  Sequence& newest = harness.submit(16, 30, 2);
  bool evicted = false;
  while (harness.live().contains(1)) {
    harness.step();
    if (!harness.live().contains(1)) break;
    EXPECT_GE(oldest.cache_row, 0);
    evicted |= harness.live().contains(2) && newest.cache_row < 0 && newest.n_generated() > 0;
  }
  while (!harness.live().empty()) harness.step();
  EXPECT_TRUE(evicted);
  EXPECT_EQ(harness.finished.at(1).size(), 56u);
  EXPECT_EQ(harness.finished.at(2).size(), 46u);
}

TEST(Scheduler, EndsASequenceThatFillsThePoolAlone) {
  Harness harness({2, 64, 2, 0});
  harness.submit(10, 100, 1);
  while (!harness.live().empty()) harness.step();
  EXPECT_EQ(harness.finished.at(1).size(), 33u);  // All 32 slots, and the token that comes out of the last.
  EXPECT_TRUE(harness.at_capacity.contains(1));
}

/// Gives out storage that can never hold more than three pages, whatever it says.
class ShortOfMemory final : public reference::ReferenceBackend {
 public:
  class Storage final : public KvStorage {
   public:
    explicit Storage(std::unique_ptr<KvStorage> storage) : KvStorage(storage->shape()), storage_(std::move(storage)) {}
    void commit(int64_t n_pages) override {
      if (n_pages > 3) throw Error(ErrorCode::kOutOfMemory, "no room for ", n_pages, " pages");
      storage_->commit(n_pages);
    }
    void copy_page(int32_t from, int32_t to) override { storage_->copy_page(from, to); }
    void write(int64_t layer, int32_t page, int64_t slot, ConstTensorView k, ConstTensorView v) override {
      storage_->write(layer, page, slot, k, v);
    }
    void read(int64_t layer, int32_t page, int64_t slot, TensorView k, TensorView v) const override {
      storage_->read(layer, page, slot, k, v);
    }
    int64_t bytes() const noexcept override { return storage_->bytes(); }

   private:
    std::unique_ptr<KvStorage> storage_;
  };
  std::unique_ptr<KvStorage> make_kv_storage(const KvShape& shape) override {
    return std::make_unique<Storage>(ReferenceBackend::make_kv_storage(shape));
  }
};

TEST(Scheduler, EndsOnlyTheSequenceForWhichThereIsNoMemory) {
  Harness harness({4, 64, 100, 0}, std::make_shared<ShortOfMemory>());
  harness.submit(10, 5, 1);
  harness.submit(30, 4, 2);  // Its third page would be the fourth.
  while (!harness.live().empty()) harness.step();
  EXPECT_EQ(harness.out_of_memory, std::set<RequestId>{2});
  EXPECT_EQ(harness.finished.at(1).size(), 15u);
  EXPECT_EQ(harness.cache().pool().n_used(), 0);
}

}  // namespace
}  // namespace minillm
