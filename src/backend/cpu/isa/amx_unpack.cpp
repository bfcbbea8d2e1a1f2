// amx_unpack.cpp - one unit of a panel (panel.h) as a tile of bfloat16: [16 pairs of k][16 rows][2], what vdpbf16ps of tiles reads.
//   value = scale (code - zero) or scale code + offset, in float32, rounded once to bfloat16.
// Method:  a byte permutation lays 16 codes (8 rows x 2 adjacent k) over the mantissas of 2.0: 2 + code / 64, without a conversion.
//          One fused multiply-add takes scale and offset; two such vectors become one of bfloat16, already in the tile's order.
//          Exact but for that rounding: codes of 8 bits stand lower, 1 + code / 32768, where the offset loses at most scale / 1024.
// Cost:    a row of the tile: 2 permutations, 2 multiply-adds, 1 conversion; about 70 cycles a unit.
#include "backend/cpu/isa/amx_tables.h"
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
constexpr Order kOrder = make_order();

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

template <Dtype D>
void unpack_codes(const uint8_t* panel, int64_t quarter, int64_t, int64_t ahead, uint16_t* to) {
  constexpr PanelFormat kLayout = panel_format(D);
  const int64_t unit = quarter / 4, j = quarter % 4;
  const uint8_t* const block = panel + unit / kLayout.units * kLayout.block_bytes();
  const uint8_t* const at = block + kLayout.header + unit % kLayout.units * kLayout.unit_bytes;
  constexpr int kQuarterBytes = (kLayout.unit_bytes + 3) / 4;
  unroll<(kQuarterBytes + 63) / 64>([&](auto i) __attribute__((always_inline)) {
    __builtin_prefetch(at + ahead + j * kQuarterBytes + 64 * i, 0, 2);
  });
  const Header header = load_header<D>(block);
  const Line line = unit_kind(D) == UnitKind::kHalves && j >= 2 ? load_line<D, 1>(header, at) : load_line<D, 0>(header, at);
  switch (j) {
    case 0:
      return put_quarter<D, 0>(at, line, to);
    case 1:
      return put_quarter<D, 1>(at, line, to);
    case 2:
      return put_quarter<D, 2>(at, line, to);
    default:
      return put_quarter<D, 3>(at, line, to);
  }
}

/// Float types: 16 values of each k as they are in the file.
template <Dtype D>
void unpack_floats(const uint8_t* panel, int64_t quarter, int64_t k, int64_t ahead, uint16_t* to) {
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

void unpack_tiles(const UnpackTask& task) {
  for (int64_t i = 0; i < 8 * task.n; ++i) unpack_one(task, i);
}

template <Dtype D>
void add_codes(Kernels& table) {
  table.unpack_quarter[static_cast<int>(D)] = unpack_codes<D>;
}

}  // namespace

void add_tile_unpacking(Kernels& table) {
  table.unpack_tiles = unpack_tiles;
  add_codes<Dtype::kQ4_0>(table);
  add_codes<Dtype::kQ4_1>(table);
  add_codes<Dtype::kQ5_0>(table);
  add_codes<Dtype::kQ5_1>(table);
  add_codes<Dtype::kQ8_0>(table);
  add_codes<Dtype::kQ4_K>(table);
  add_codes<Dtype::kQ5_K>(table);
  add_codes<Dtype::kQ6_K>(table);
  table.unpack_quarter[static_cast<int>(Dtype::kF16)] = unpack_floats<Dtype::kF16>;
  table.unpack_quarter[static_cast<int>(Dtype::kBF16)] = unpack_floats<Dtype::kBF16>;
}

}  // namespace minillm::cpu::MINILLM_ISA
