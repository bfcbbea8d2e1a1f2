// attention_values.cpp - o += p v for a tile of rows: lanes are elements of the head, one chain over the keys in order.
// Register tile: kRows rows x kVecs vectors of o; each key loads kVecs vectors of v and broadcasts kRows probabilities.
// The rows of a tile see different keys at the edges of a causal or sliding mask. Keys that all of them see go through the
// register tile; those at either edge are added row by row, so that no row ever multiplies a key it does not see.
#include "backend/cpu/isa/attention_math.h"
#include "backend/cpu/isa/attention_tables.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kRows = 6, kVecs = 4, kMostRows = 8;  // Up to kMostRows rows in one pass, where the rows are no more than that.
#elif defined(__AVX2__)
constexpr int kRows = 6, kVecs = 2, kMostRows = 6;
#else
constexpr int kRows = 3, kVecs = 4, kMostRows = 3;
#endif

/// Vectors of o beside `rows` rows: as many as leave the accumulators in registers.
template <typename Element>
constexpr int vecs_for(int rows) {
  return rows <= (sizeof(Element) == 1 && kVecs > 2 && kRows > 3 ? 3 : kRows) ? kVecs : kVecs / 2;  // Widening 8 bits takes registers.
}

template <typename Element>
MINILLM_INLINE const char* address_of(const void* panel, int64_t column) {
  return reinterpret_cast<const char*>(static_cast<const Element*>(panel) + column);
}

/// Keys [range) of the block into `Rows` rows, `Vecs` vectors of o from element `column`.
template <typename Element, int Rows, int Vecs, bool Prefetch>
void value_block(const ValueTile& tile, int64_t row, int64_t column, KeyRange range) {
  float* o = tile.o + row * tile.o_stride + column;
  const float* p = tile.p + row * tile.p_stride;
  Vec sum[Rows][Vecs];
  unroll<Rows>([&](auto r) __attribute__((always_inline)) {
    unroll<Vecs>([&](auto c) __attribute__((always_inline)) { sum[r][c] = load(o + r * tile.o_stride + c * kWidth); });
  });
  for (int64_t key = range.begin; key < range.end;) {
    const int64_t in_tile = key - tile.first_key, slot = in_tile % kKeyPanel;
    int64_t panel = in_tile / kKeyPanel, end = key - slot + kKeyPanel;
    const Element* v = static_cast<const Element*>(tile.v_panels[panel]) + slot * tile.v_stride + column;
    const char* later = nullptr;
    if constexpr (Prefetch) later = address_of<Element>(tile.prefetch[panel], slot * tile.v_stride);
    // Panels that follow each other in memory are one loop: an inner loop of 16 steps would often end in a misprediction.
    const int64_t left_bytes = (kKeyPanel - slot) * tile.v_stride * static_cast<int64_t>(sizeof(Element));
    const int64_t panel_bytes = kKeyPanel * tile.v_stride * static_cast<int64_t>(sizeof(Element));
    for (int64_t at = left_bytes; end < range.end; end += kKeyPanel, at += panel_bytes) {
      ++panel;
      if (address_of<Element>(tile.v_panels[panel], column) != reinterpret_cast<const char*>(v) + at) break;
      if constexpr (Prefetch)
        if (address_of<Element>(tile.prefetch[panel], 0) != later + at) break;
    }
    if (end > range.end) end = range.end;
    // The passes over the columns fetch one part of these keys' rows after the other, each part in kLines streams.
    constexpr int kLines = Vecs * kWidth * static_cast<int>(sizeof(Element)) / 64;
    const int64_t stream = (end - key) * 64;
    if constexpr (Prefetch) later += column / (Vecs * kWidth) * kLines * stream;
    for (; key < end; ++key, v += tile.v_stride) {
      if constexpr (Prefetch) {
        unroll<kLines>([&](auto line) __attribute__((always_inline)) { __builtin_prefetch(later + line * stream, 0, 2); });
        later += 64;
      }
      Vec values[Vecs];
      unroll<Vecs>([&](auto c) __attribute__((always_inline)) { values[c] = load(v + c * kWidth); });
      unroll<Rows>([&](auto r) __attribute__((always_inline)) {
        const Vec weight = broadcast(p[r * tile.p_stride + key]);
        unroll<Vecs>([&](auto c) __attribute__((always_inline)) { sum[r][c] = fma(weight, values[c], sum[r][c]); });
      });
    }
  }
  unroll<Rows>([&](auto r) __attribute__((always_inline)) {
    unroll<Vecs>([&](auto c) __attribute__((always_inline)) { store(o + r * tile.o_stride + c * kWidth, sum[r][c]); });
  });
}

template <typename Element, int Rows, bool Prefetch>
void value_rows(const ValueTile& tile, int64_t row, KeyRange range) {
  if (range.begin >= range.end) return;
  constexpr int64_t kStep = vecs_for<Element>(Rows) * kWidth;
  int64_t column = 0;
  for (; column + kStep <= tile.padded_width; column += kStep)
    value_block<Element, Rows, vecs_for<Element>(Rows), Prefetch>(tile, row, column, range);
  for (; column < tile.padded_width; column += kKeyPanel) value_block<Element, Rows, kVecsPerPanel, false>(tile, row, column, range);
}

template <typename Element, bool Prefetch, int... Rows>
void value_group(const ValueTile& tile, int64_t row, int64_t n_rows, KeyRange range, std::integer_sequence<int, Rows...>) {
  using Group = void (*)(const ValueTile&, int64_t, KeyRange);
  static constexpr Group kGroups[] = {value_rows<Element, Rows + 1, Prefetch>...};
  kGroups[n_rows - 1](tile, row, range);
}

MINILLM_INLINE KeyRange intersect(KeyRange a, KeyRange b) { return {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end}; }

template <typename Element>
void values(const ValueTile& tile) {
  constexpr auto kRowCounts = std::make_integer_sequence<int, kMostRows>{};
  const KeyRange here{tile.first_key, tile.first_key + tile.n_panels * kKeyPanel};
  for (int64_t row = 0, n = 0; row < tile.n_rows; row += n) {
    const int64_t left = tile.n_rows - row;
    n = left <= kMostRows ? left : kRows;
    // Both ends never decrease, so the first row has the earliest of each and the last row the latest.
    const KeyRange common = intersect(here, {tile.ranges[row + n - 1].begin, tile.ranges[row].end});
    const bool any = common.begin < common.end;
    if (any) {
      for (int64_t r = row; r < row + n; ++r) value_rows<Element, 1, false>(tile, r, intersect(here, {tile.ranges[r].begin, common.begin}));
      if (tile.prefetch != nullptr && tile.n_rows <= kMostRows)
        value_group<Element, true>(tile, row, n, common, kRowCounts);
      else
        value_group<Element, false>(tile, row, n, common, kRowCounts);
    }
    for (int64_t r = row; r < row + n; ++r) {
      const KeyRange rest = intersect(here, tile.ranges[r]);
      value_rows<Element, 1, false>(tile, r, any ? KeyRange{common.end, rest.end} : rest);
    }
  }
}

}  // namespace

ValuesFunction values_function(KvElement element) noexcept {
  switch (element) {
    case KvElement::kF32:
      return values<float>;
    case KvElement::kF16:
      return values<F16>;
    case KvElement::kBF16:
      return values<BF16>;
    case KvElement::kF8:
      return values<F8>;
  }
  return nullptr;
}

}  // namespace minillm::cpu::MINILLM_ISA
