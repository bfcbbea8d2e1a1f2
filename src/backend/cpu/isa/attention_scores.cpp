// attention_scores.cpp - q . k for a tile of rows and whole panels of 16 keys: lanes are keys, so nothing is summed across lanes.
// Register tile: kRows rows x kPanels panels; each step of d loads kPanels panel rows and broadcasts kRows elements of q,
// for kRows * kPanels (in 16-lane units) multiply-adds: 24 of them on 10 loads with AVX-512.
// Order of each sum: d ascending, one chain, whatever the tile.
#include "backend/cpu/isa/attention_math.h"
#include "backend/cpu/isa/attention_tables.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kRows = 6, kPanels = 4;
#elif defined(__AVX2__)
constexpr int kRows = 6, kPanels = 1;
#else
constexpr int kRows = 3, kPanels = 1;
#endif

template <typename Element, int Rows, int Panels>
void score_block(const ScoreTile& tile, int64_t row, int64_t panel) {
  constexpr int kVecs = Panels * kVecsPerPanel;
  const float* q = tile.q + row * tile.q_stride;
  const Element* k[Panels];
  unroll<Panels>([&](auto j) __attribute__((always_inline)) { k[j] = static_cast<const Element*>(tile.k_panels[panel + j]); });
  Vec sum[Rows][kVecs];
  unroll<Rows>([&](auto r)
                   __attribute__((always_inline)) { unroll<kVecs>([&](auto c) __attribute__((always_inline)) { sum[r][c] = zero(); }); });
  for (int64_t d = 0; d < tile.head_dim; ++d) {
    Vec keys[kVecs];
    unroll<kVecs>([&](auto c) __attribute__((always_inline)) {
      keys[c] = load(k[c / kVecsPerPanel] + d * kKeyPanel + (c % kVecsPerPanel) * kWidth);
    });
    unroll<Rows>([&](auto r) __attribute__((always_inline)) {
      const Vec element = broadcast(q[r * tile.q_stride + d]);
      unroll<kVecs>([&](auto c) __attribute__((always_inline)) { sum[r][c] = fma(element, keys[c], sum[r][c]); });
    });
  }
  float* scores = tile.scores + row * tile.score_stride + panel * kKeyPanel;
  unroll<Rows>([&](auto r) __attribute__((always_inline)) {
    unroll<kVecs>([&](auto c) __attribute__((always_inline)) { store(scores + r * tile.score_stride + c * kWidth, sum[r][c]); });
  });
}

template <typename Element, int Panels, int... Rows>
void score_rows(const ScoreTile& tile, int64_t panel, std::integer_sequence<int, Rows...>) {
  using Block = void (*)(const ScoreTile&, int64_t, int64_t);
  static constexpr Block kBlocks[] = {score_block<Element, Rows + 1, Panels>...};
  for (int64_t row = 0; row < tile.n_rows; row += kRows) {
    const int64_t left = tile.n_rows - row;
    kBlocks[(left < kRows ? left : kRows) - 1](tile, row, panel);
  }
}

template <typename Element>
void scores(const ScoreTile& tile) {
  constexpr auto kRowCounts = std::make_integer_sequence<int, kRows>{};
  int64_t panel = 0;
  for (; panel + kPanels <= tile.n_panels; panel += kPanels) score_rows<Element, kPanels>(tile, panel, kRowCounts);
  for (; panel < tile.n_panels; ++panel) score_rows<Element, 1>(tile, panel, kRowCounts);
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
  }
  return nullptr;
}

}  // namespace minillm::cpu::MINILLM_ISA
