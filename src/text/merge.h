// merge.h - joins neighbouring symbols, best pair first, until no pair can be joined: the loop of byte-pair encoding.
//   A symbol is a run of positions (bytes): the one at `at` has an id in ids[at] and its length in spans[at] and, so that its
//   right neighbour finds it, in spans[last position]. Inside a symbol ids is kInside. The best pair has the lowest
//   priority; of equals the leftmost goes first.
// Source:  Sennrich et al. 2016, arXiv:1508.07909, with ranks as priorities; SentencePiece's BPE (Kudo & Richardson 2018,
//          arXiv:1808.06226) with scores.
// Cost:    up to kShortRun symbols: a scan a join, on the stack. Above: a heap, O(n log n) time, 18 bytes a position.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "minillm/types.h"
#include "text/word_cache.h"

namespace minillm {

inline constexpr TokenId kInside = -2;  ///< No symbol starts here.
inline constexpr uint32_t kNoMerge = UINT32_MAX;
inline constexpr uint32_t kShortRun = 32;  ///< Above this a heap beats the scan.

struct Merge {
  uint32_t priority = kNoMerge;
  TokenId id = kInside;  ///< Of the joined symbol.
};

struct SymbolRun {
  std::vector<TokenId> ids;
  std::vector<uint32_t> spans;

  void clear() noexcept { ids.clear(), spans.clear(); }
  /// A symbol of `size` positions.
  void add(TokenId id, uint32_t size) {
    ids.push_back(id);
    ids.insert(ids.end(), size - 1, kInside);
    spans.insert(spans.end(), size, size);
  }
  /// Joins the symbol at `at` with the one after it.
  void join(uint32_t at, TokenId id) noexcept {
    const uint32_t right = at + spans[at], size = spans[at] + spans[right];
    ids[right] = kInside;
    ids[at] = id;
    spans[at] = spans[at + size - 1] = size;
  }
};

/// What one encode() call keeps between words.
struct EncodeScratch {
  SymbolRun run;
  std::vector<uint64_t> heap;
  WordCache cache;
};

/// The joins of few symbols: `priorities[i]` belongs to the pair (i, i + 1).
/// `lookup(at, left_id, left_size, right_id, right_size)` gives the Merge of a pair.
template <typename Lookup>
void merge_short(SymbolRun& run, const Lookup& lookup) {
  constexpr size_t kRoom = kShortRun;
  uint32_t starts[kRoom + 1];
  Merge pairs[kRoom];
  uint32_t n = 0;
  for (uint32_t at = 0; at < run.ids.size(); at += run.spans[at]) starts[n++] = at;
  const auto look = [&](uint32_t i) {
    const uint32_t a = starts[i], b = starts[i + 1];
    return lookup(a, run.ids[a], run.spans[a], run.ids[b], run.spans[b]);
  };
  for (uint32_t i = 0; i + 1 < n; ++i) pairs[i] = look(i);
  while (n > 1) {
    uint32_t best = 0;
    for (uint32_t i = 1; i + 1 < n; ++i)
      if (pairs[i].priority < pairs[best].priority) best = i;
    if (pairs[best].priority == kNoMerge) break;
    run.join(starts[best], pairs[best].id);
    --n;
    std::memmove(starts + best + 1, starts + best + 2, (n - best - 1) * sizeof(starts[0]));
    if (best + 1 < n) std::memmove(pairs + best, pairs + best + 1, (n - best - 1) * sizeof(pairs[0]));
    if (best + 1 < n) pairs[best] = look(best);
    if (best > 0) pairs[best - 1] = look(best - 1);
  }
}

/// The joins of many symbols. A heap entry is (priority, position) in one number; an entry whose pair has changed since is
/// found out by looking the pair up again: the same priority is the same join. Stale entries are dropped when the heap is full.
template <typename Lookup>
void merge_long(SymbolRun& run, std::vector<uint64_t>& heap, const Lookup& lookup) {
  const uint32_t end = static_cast<uint32_t>(run.ids.size());
  const auto pair_at = [&](uint32_t at) -> Merge {
    const uint32_t right = at + run.spans[at];
    if (right >= end) return {};
    return lookup(at, run.ids[at], run.spans[at], run.ids[right], run.spans[right]);
  };
  const auto key = [](uint32_t priority, uint32_t at) { return (uint64_t{priority} << 32) | at; };
  const auto fresh = [&](uint64_t entry) -> Merge {
    const uint32_t at = static_cast<uint32_t>(entry);
    if (run.ids[at] == kInside) return {};
    const Merge merge = pair_at(at);
    return merge.priority == entry >> 32 ? merge : Merge{};
  };
  const auto later = std::greater<uint64_t>();
  heap.clear();
  heap.reserve(end + end / 4 + 2);
  for (uint32_t at = 0; at < end; at += run.spans[at]) {
    const Merge merge = pair_at(at);
    if (merge.priority != kNoMerge) heap.push_back(key(merge.priority, at));
  }
  std::make_heap(heap.begin(), heap.end(), later);
  const auto push = [&](uint32_t at) {
    const Merge merge = pair_at(at);
    if (merge.priority == kNoMerge) return;
    if (heap.size() == heap.capacity()) {
      std::sort(heap.begin(), heap.end());
      heap.erase(std::unique(heap.begin(), heap.end()), heap.end());
      heap.erase(std::remove_if(heap.begin(), heap.end(), [&](uint64_t entry) { return fresh(entry).priority == kNoMerge; }), heap.end());
      // A sorted range is a heap, and each live pair has one entry: fewer than there are symbols, so there is room again.
    }
    heap.push_back(key(merge.priority, at));
    std::push_heap(heap.begin(), heap.end(), later);
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const uint64_t entry = heap.back();
    heap.pop_back();
    const Merge merge = fresh(entry);
    if (merge.priority == kNoMerge) continue;
    const uint32_t at = static_cast<uint32_t>(entry);
    run.join(at, merge.id);
    push(at);
    if (at > 0) push(at - run.spans[at - 1]);
  }
}

/// Joins what can be joined in scratch.run.
template <typename Lookup>
void merge_symbols(EncodeScratch& scratch, uint32_t n_symbols, const Lookup& lookup) {
  if (n_symbols < 2) return;
  if (n_symbols <= kShortRun)
    merge_short(scratch.run, lookup);
  else
    merge_long(scratch.run, scratch.heap, lookup);
}

}  // namespace minillm
