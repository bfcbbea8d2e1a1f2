// amx_unpack.h - panels (panel.h) as tiles of bfloat16: [units][16 pairs of k][16 rows][2], what vdpbf16ps of tiles reads, a quarter of a
// unit at a time, so that the products of other tiles can run meanwhile.
//   value = scale (code - zero) or scale code + offset, in float32, rounded once to bfloat16.
// Method:  a byte permutation lays 16 codes (8 rows x 2 adjacent k) over the mantissas of 2.0: 2 + code / 64, without a conversion.
//          One fused multiply-add takes scale and offset; two such vectors become one of bfloat16, already in the tile's order.
//          Exact but for that rounding: codes of 8 bits stand lower, 1 + code / 32768, where the offset loses at most scale / 1024.
// Cost:    a row of the tile: 2 permutations, 2 multiply-adds, 1 conversion; about 65 cycles a unit alone, 12 beside four products of tiles
//          for each quarter (a burst of more than some 20 conversions would not run beside them).
#pragma once

#include "backend/cpu/isa/formats.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

/// Where each of a vector's four codes of a row goes: for rows 0 to 7 and 8 to 15, for k 0, 1 and k 2, 3. Only the byte that a code is put
/// to is used, so one set of tables serves each byte of the lane.
struct Order {
  alignas(64) uint8_t codes[2][2][64];  ///< [pair][rows]
  alignas(64) int32_t rows[2][16];      ///< Row of each lane: two lanes a row.
  alignas(64) uint16_t adjacent[32];    ///< From 16 values of k, then 16 of k + 1, to pairs.
};
constexpr Order make_order() {
  Order order{};
  for (int half = 0; half < 2; ++half)
    for (int lane = 0; lane < 16; ++lane) {
      const int row = 8 * half + lane / 2;
      order.rows[half][lane] = row;
      for (int pair = 0; pair < 2; ++pair)
        for (int byte = 0; byte < 4; ++byte) order.codes[pair][half][4 * lane + byte] = static_cast<uint8_t>(4 * row + 2 * pair + lane % 2);
    }
  for (int i = 0; i < 32; ++i) order.adjacent[i] = static_cast<uint16_t>(16 * (i % 2) + i / 2);
  return order;
}
inline constexpr Order kOrder = make_order();

MINILLM_INLINE __m512i table(const void* p) { return _mm512_load_si512(p); }
MINILLM_INLINE void store_pairs(uint16_t* to, Floats upper, Floats lower) {
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(upper, lower));
}

/// Scale and offset of a unit (or half of one) for the lanes of rows 0 to 7 and 8 to 15.
struct Line {
  Floats scale[2], offset[2];
};

template <bool Wide>
MINILLM_INLINE Line line_of(Floats scale, Floats offset) {
  const Floats steep = mul(scale, splat(Wide ? 32768.0f : 64.0f)), start = sub(offset, mul(steep, splat(Wide ? 1.0f : 2.0f)));
  Line line;
  unroll<2>([&](auto half) __attribute__((always_inline)) {
    line.scale[half] = _mm512_permutexvar_ps(table(kOrder.rows[half]), steep);
    line.offset[half] = _mm512_permutexvar_ps(table(kOrder.rows[half]), start);
  });
  return line;
}

template <Dtype D, int Half>
MINILLM_INLINE Line load_line(const Header& header, const uint8_t* unit) {
  const Floats scale = load_scale<D, Half>(header, unit);
  if constexpr (unit_kind(D) == UnitKind::kOffset)
    return line_of<false>(scale, load_offset<D>(header, unit));
  else
    return line_of<unit_kind(D) == UnitKind::kWide>(scale, mul(scale, splat(-static_cast<float>(1 << zero_shift(D)))));
}

/// Two rows of the tile from four codes a lane.
template <bool Wide>
MINILLM_INLINE void put_quad(uint16_t* to, Bytes codes, const Line& line) {
  constexpr __mmask64 kByte = Wide ? 0x2222222222222222u : 0x4444444444444444u;
  const Ints base = splat_int(Wide ? 0x3F800000 : 0x40000000);  // 1.0 or 2.0, which has no bit where the code goes.
  unroll<2>([&](auto pair) __attribute__((always_inline)) {
    Floats values[2];
    unroll<2>([&](auto half) __attribute__((always_inline)) {
      const Floats lifted = from_bits(_mm512_mask_permutexvar_epi8(base, kByte, table(kOrder.codes[pair][half]), codes));
      values[half] = fma(lifted, line.scale[half], line.offset[half]);
    });
    store_pairs(to + 32 * pair, values[1], values[0]);
  });
}

template <Dtype D, int J>
MINILLM_INLINE void put_quarter(const uint8_t* unit, const Line& line, uint16_t* to) {
  constexpr bool kWide = unit_kind(D) == UnitKind::kWide;
  put_quad<kWide>(to, load_quad<D, 2 * J>(unit), line);
  put_quad<kWide>(to + 64, load_quad<D, 2 * J + 1>(unit), line);
}

/// Values [32 quarter, 32 quarter + 8) of k of a panel of floats, 16 values of each k as they are in the file.
template <Dtype D>
MINILLM_INLINE void put_floats(const uint8_t* panel, int64_t quarter, int64_t k, int64_t ahead, uint16_t* to) {
  const __m512i adjacent = table(kOrder.adjacent);
  constexpr int64_t kQuarter = kUnit / 4;
  const int64_t first = quarter * kQuarter;
  for (int64_t pair = 0; pair < kQuarter / 2; ++pair, to += 32) {
    const int64_t left = k - first - 2 * pair;  // Values of k past the end are zeros.
    const __mmask32 have = left >= 2 ? 0xFFFFFFFFu : left == 1 ? 0xFFFFu : 0u;
    const uint8_t* const at = panel + (first + 2 * pair) * kPanelRows * 2;
    __builtin_prefetch(at + ahead, 0, 2);
    __m512i values = _mm512_maskz_loadu_epi16(have, at);
    if constexpr (D == Dtype::kF16)
      values = (__m512i)_mm512_cvtne2ps_pbh(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(values, 1)),
                                            _mm512_cvtph_ps(_mm512_castsi512_si256(values)));
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(adjacent, values));
  }
}

/// An unpacking under way, in quarters of a unit: those of the first panel, then those of the second.
template <Dtype D>
class Unpacking {
 public:
  MINILLM_MEMBER explicit Unpacking(const UnpackTask& task) : task_(task), left_(4 * task.n_panels * task.n), to_(task.to) {
    begin_panel(0);
  }

  MINILLM_MEMBER int64_t left() const { return left_; }
  /// The next quarter; there must be one.
  MINILLM_MEMBER void step() {
    if constexpr (is_float()) {
      put_floats<D>(panel_, 4 * task_.first + done_, task_.k, task_.ahead, to_);
    } else {
      switch (done_ % 4) {
        case 0:
          put<0>();
          break;
        case 1:
          put<1>();
          break;
        case 2:
          put<2>();
          break;
        default:
          put<3>();
          next_unit();
      }
    }
    to_ += RoundedRows::kTileValues / 4;
    if (--left_ == 4 * task_.n) {
      done_ = 0;
      begin_panel(1);
    } else {
      ++done_;
    }
  }

 private:
  static constexpr PanelFormat kLayout = panel_format(D);
  static constexpr bool is_float() { return kLayout.units == 0; }

  MINILLM_MEMBER void begin_panel(int64_t panel) {
    panel_ = task_.panels[panel];
    if constexpr (!is_float()) {
      in_block_ = task_.first % kLayout.units;
      block_ = panel_ + task_.first / kLayout.units * kLayout.block_bytes();
      unit_ = block_ + kLayout.header + in_block_ * kLayout.unit_bytes;
    }
  }
  MINILLM_MEMBER void next_unit() {
    unit_ += kLayout.unit_bytes;
    if (kLayout.units > 1 && ++in_block_ < kLayout.units) return;
    in_block_ = 0;
    block_ += kLayout.block_bytes();
    unit_ = block_ + kLayout.header;
  }
  template <int J>
  MINILLM_MEMBER void put() {
    constexpr int kQuarterBytes = (kLayout.unit_bytes + 3) / 4;
    unroll<(kQuarterBytes + 63) / 64>([&](auto i) __attribute__((always_inline)) {
      __builtin_prefetch(unit_ + task_.ahead + J * kQuarterBytes + 64 * i, 0, 2);
    });
    // The line anew for each quarter: kept from one step to the next it would be spilled, and this runs beside the tiles, too.
    constexpr int kHalf = unit_kind(D) == UnitKind::kHalves ? J / 2 : 0;
    put_quarter<D, J>(unit_, load_line<D, kHalf>(load_header<D>(block_), unit_), to_);
  }

  const UnpackTask& task_;
  int64_t left_, done_ = 0, in_block_ = 0;  ///< Quarters to come, and done of this panel; units done of this block.
  const uint8_t *panel_ = nullptr, *block_ = nullptr, *unit_ = nullptr;
  uint16_t* to_;
};

}  // namespace
}  // namespace minillm::cpu::MINILLM_ISA
