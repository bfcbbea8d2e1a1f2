// attention_scores.cpp - q . k for a tile of rows and whole panels of 16 keys: lanes are keys, so nothing is summed across lanes.
// Register tile: kRows rows x kPanels panels; each step of d loads kPanels panel rows and broadcasts kRows elements of q,
// for kRows * kPanels (in 16-lane units) multiply-adds: 24 of them on 10 loads with AVX-512.
// Order of each sum: d ascending, one chain, whatever the tile.
#include "backend/cpu/isa/attention_math.h"
#include "backend/cpu/isa/attention_tables.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kRows = 6, kPanels = 4, kMostRows = 8;  // Up to kMostRows rows in one pass, where the rows are no more than that.
#elif defined(__AVX2__)
constexpr int kRows = 6, kPanels = 1, kMostRows = 6;
#else
constexpr int kRows = 3, kPanels = 1, kMostRows = 3;
#endif

/// Panels beside `rows` rows: as many as leave the accumulators in registers, where widening 8 bits takes some of its own.
template <typename Element>
constexpr int panels_for(int rows) {
  return rows <= (sizeof(Element) == 1 && kPanels > 1 ? 3 : kRows) ? kPanels : kPanels / 2;
}

template <typename Element, int Rows, int Panels, bool Prefetch>
void score_block(const ScoreTile& tile, int64_t row, int64_t panel) {
  constexpr int kVecs = Panels * kVecsPerPanel;
  constexpr int kStep = Prefetch ? 2 : 1;  // Two steps of a 16-bit panel are one cache line.
  // With prefetch q is transposed: one address for all rows, since those of the panels and of what is fetched fill the registers.
  const float* q = Prefetch ? tile.q + row : tile.q + row * tile.q_stride;
  const Element* k[Panels];
  const char* later[Panels];
  unroll<Panels>([&](auto j) __attribute__((always_inline)) {
    k[j] = static_cast<const Element*>(tile.k_panels[panel + j]);
    if constexpr (Prefetch) later[j] = static_cast<const char*>(tile.prefetch[panel + j]);
  });
  Vec sum[Rows][kVecs];
  unroll<Rows>([&](auto r)
                   __attribute__((always_inline)) { unroll<kVecs>([&](auto c) __attribute__((always_inline)) { sum[r][c] = zero(); }); });
  for (int64_t at = 0; at < tile.head_dim; at += kStep) {
    if constexpr (Prefetch) {
      constexpr int kBytes = kStep * static_cast<int>(kKeyPanel * static_cast<int64_t>(sizeof(Element)));
      if (kBytes >= 64 || at % (2 * kStep) == 0)
        unroll<Panels>([&](auto j)
                           __attribute__((always_inline)) { prefetch<(kBytes < 64 ? 64 : kBytes)>(later[j] + at / kStep * kBytes); });
    }
    unroll<kStep>([&](auto step) __attribute__((always_inline)) {
      const int64_t d = at + step;
      Vec keys[kVecs];
      unroll<kVecs>([&](auto c) __attribute__((always_inline)) {
        keys[c] = load(k[c / kVecsPerPanel] + d * kKeyPanel + (c % kVecsPerPanel) * kWidth);
      });
      unroll<Rows>([&](auto r) __attribute__((always_inline)) {
        const Vec element = broadcast(Prefetch ? q[r] : q[r * tile.q_stride + d]);
        unroll<kVecs>([&](auto c) __attribute__((always_inline)) { sum[r][c] = fma(element, keys[c], sum[r][c]); });
      });
      if constexpr (Prefetch) q += tile.q_stride;
    });
  }
  float* scores = tile.scores + row * tile.score_stride + panel * kKeyPanel;
  unroll<Rows>([&](auto r) __attribute__((always_inline)) {
    unroll<kVecs>([&](auto c) __attribute__((always_inline)) { store(scores + r * tile.score_stride + c * kWidth, sum[r][c]); });
  });
}

template <typename Element, int Rows, bool Prefetch>
void score_rows(const ScoreTile& tile, int64_t row, int64_t panel, int64_t end) {
  constexpr int kStep = panels_for<Element>(Rows);
  for (; panel + kStep <= end; panel += kStep) score_block<Element, Rows, kStep, Prefetch>(tile, row, panel);
  if constexpr (kStep == 4 && !Prefetch)
    for (; panel + 2 <= end; panel += 2) score_block<Element, Rows, 2, Prefetch>(tile, row, panel);
  if constexpr (kStep > 1)
    for (; panel < end; ++panel) score_block<Element, Rows, 1, Prefetch>(tile, row, panel);
}

template <typename Element, bool Prefetch, int... Rows>
void score_group(const ScoreTile& tile, int64_t row, int64_t n_rows, int64_t panel, int64_t end, std::integer_sequence<int, Rows...>) {
  using Group = void (*)(const ScoreTile&, int64_t, int64_t, int64_t);
  static constexpr Group kGroups[] = {score_rows<Element, Rows + 1, Prefetch>...};
  kGroups[n_rows - 1](tile, row, panel, end);
}

template <typename Element>
void scores(const ScoreTile& tile) {
  constexpr auto kRowCounts = std::make_integer_sequence<int, kMostRows>{};
  if (tile.prefetch != nullptr) {
    for (int64_t row = 0, n = 0; row < tile.n_rows; row += n) {
      n = tile.n_rows - row <= kMostRows ? tile.n_rows - row : kRows;
      score_group<Element, true>(tile, row, n, 0, tile.n_panels, kRowCounts);
    }
    return;
  }
  // Panels outside, so that kPanels of them stay in L1 while all rows go past.
  for (int64_t panel = 0; panel < tile.n_panels; panel += kPanels) {
    const int64_t end = panel + kPanels < tile.n_panels ? panel + kPanels : tile.n_panels;
    for (int64_t row = 0, n = 0; row < tile.n_rows; row += n) {
      const int64_t left = tile.n_rows - row;
      n = left <= kMostRows ? left : kRows;
      const int64_t first = (tile.ranges[row].begin - tile.first_key) / kKeyPanel;
      const int64_t last = (tile.ranges[row + n - 1].end - tile.first_key + kKeyPanel - 1) / kKeyPanel;
      score_group<Element, false>(tile, row, n, panel > first ? panel : first, end < last ? end : last, kRowCounts);
    }
  }
}

}  // namespace

ScoresFunction scores_function(KvElement element) noexcept {
  switch (element) {
    case KvElement::kF32:
      return scores<float>;
    case KvElement::kF16:
      return scores<F16>;
    case KvElement::kBF16:
      return scores<BF16>;
    case KvElement::kF8:
      return scores<F8>;
  }
  return nullptr;
}

}  // namespace minillm::cpu::MINILLM_ISA
