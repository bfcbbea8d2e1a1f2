// formats.h - one unit of a panel, taken out of its format in registers; see panel.h for the bytes.
#pragma once

#include "backend/cpu/isa/vec.h"
#include "backend/cpu/kernels.h"

namespace minillm::cpu::MINILLM_ISA {

/// Lanes of `v` that are rows below `n_rows` go to out[row]...; the others are dropped. And the inverse, zeros for the others.
MINILLM_INLINE void store_rows(float* out, int64_t row, int64_t n_rows, Floats v) {
  if (row + kPanelRows <= n_rows)
    store(out + row, v);
  else if (row < n_rows)
    store_first(out + row, v, n_rows - row);
}
MINILLM_INLINE Floats load_rows(const float* out, int64_t row, int64_t n_rows) {
  if (row + kPanelRows <= n_rows) return load(out + row);
  return row < n_rows ? load_first(out + row, n_rows - row) : zeros();
}

/// The same address, which the compiler takes for another: it would keep what it loaded from there in registers and spill sums.
template <typename T>
MINILLM_INLINE T* load_again(T* p) {
  asm("" : "+r"(p));
  return p;
}

/// Moves bit From of every byte to bit To (and `mask`s it there).
template <int From, int To>
MINILLM_INLINE Bytes move_bits(Bytes v, Bytes mask) {
  if constexpr (From < To)
    return bit_and(shift_left<To - From>(v), mask);
  else if constexpr (From > To)
    return bit_and(shift_right<From - To>(v), mask);
  else
    return bit_and(v, mask);
}

/// Codes of quad Q of a unit: 16 rows x 4 k.
template <Dtype D, int Q>
MINILLM_INLINE Bytes load_quad(const uint8_t* unit) {
  if constexpr (D == Dtype::kQ8_0) {
    return load_bytes(unit + 64 * Q);
  } else {
    constexpr PanelFormat kLayout = panel_format(D);
    const Bytes codes = move_bits<4 * (Q % 2), 0>(load_bytes(unit + 64 * (Q / 2)), splat_byte(15));
    const uint8_t* upper = unit + kLayout.codes;
    if constexpr (kLayout.upper == 64)
      return bit_or(codes, move_bits<Q, 4>(load_bytes(upper), splat_byte(16)));
    else if constexpr (kLayout.upper == 128)
      return bit_or(codes, move_bits<2 * (Q % 4), 4>(load_bytes(upper + 64 * (Q / 4)), splat_byte(48)));
    else
      return codes;
  }
}

/// d and m (or dmin) of a block of 256; unused by the formats of 32.
struct Header {
  Floats d, m;
};

template <Dtype D>
MINILLM_INLINE Header load_header(const uint8_t* block) {
  constexpr PanelFormat kLayout = panel_format(D);
  Header header = {zeros(), zeros()};
  if constexpr (kLayout.header > 0) header.d = load_half(block);
  if constexpr (kLayout.header > 32) header.m = load_half(block + 32);
  return header;
}

/// scale[H] of a unit's half H; formats with one scale a unit have it in H = 0. Every product here is exact in float32.
template <Dtype D, int H>
MINILLM_INLINE Floats load_scale(const Header& header, const uint8_t* unit) {
  constexpr PanelFormat kLayout = panel_format(D);
  const uint8_t* scales = unit + kLayout.codes + kLayout.upper;
  if constexpr (kLayout.header == 0)
    return load_half(scales);
  else if constexpr (unit_kind(D) == UnitKind::kHalves)
    return mul(header.d, load_i8(scales + 16 * H));
  else
    return mul(header.d, load_u8(scales));
}

template <Dtype D>
MINILLM_INLINE Floats load_offset(const Header& header, const uint8_t* unit) {
  constexpr PanelFormat kLayout = panel_format(D);
  const uint8_t* scales = unit + kLayout.codes + kLayout.upper;
  if constexpr (kLayout.header == 0)
    return load_half(scales + 32);
  else
    return sub(splat(-0.0f), mul(header.m, load_u8(scales + 16)));
}

/// The one way a unit (or half of one) enters an output: sum + (float)dot * (weight scale * activation scale), where `dot` is that of
/// the integers 128 high + low and one of the scales has kLowStep in it; or, of a coarse unit, that of high alone: the same bits.
MINILLM_INLINE Floats add_unit(Floats sum, Ints dot, Floats weight_scale, Floats activation_scale) {
  return fma(to_floats(dot), mul(weight_scale, activation_scale), sum);
}

/// The same for a unit with a scale for each half H: the halves' sum first, by the weight's scales; then that times the activations'.
template <int H>
MINILLM_INLINE Floats add_half(Floats halves, Ints dot, Floats weight_scale) {
  if constexpr (H == 0)
    return mul(to_floats(dot), weight_scale);
  else
    return fma(to_floats(dot), weight_scale, halves);
}

/// What a term's dot starts from: -zero * sum of the activations, so that the products with `code` become those with `code - zero`.
template <UnitKind Kind>
MINILLM_INLINE Ints start_of_dot(const int32_t* negative_sum, int shift) {
  if constexpr (Kind == UnitKind::kOffset || (Kind == UnitKind::kWide && kWideIsSigned))
    return splat_int(0);
  else
    return shift_left(splat_int(*negative_sum), shift);
}

/// Units or halves of them have `n` quads of codes; a Dot takes so many. Where it sums in 16 bits, only as many as cannot overflow: each is
/// two products of codes up to 127 and weights of at most 5, 6 or 8 bits.
template <UnitKind Kind>
constexpr int dot_quads(int n) {
  if constexpr (!kDotsInShorts) return n;
  static_assert(4 * 2 * 31 * 127 < 32768 && 2 * 2 * 63 * 127 < 32768 && 1 * 2 * 128 * 127 < 32768);
  return Kind == UnitKind::kWide ? 1 : Kind == UnitKind::kHalves ? 2 : 4;
}

template <UnitKind Kind>
MINILLM_INLINE Dot add_codes(Dot dot, Bytes weights, FourCodes codes) {
  if constexpr (Kind == UnitKind::kWide)
    return add_wide_products(dot, weights, codes);
  else
    return add_products(dot, weights, codes);
}

}  // namespace minillm::cpu::MINILLM_ISA
