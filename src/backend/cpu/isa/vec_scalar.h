// vec_scalar.h - vec.h on arrays: for processors without AVX2, and to read what an operation means.
#pragma once

namespace minillm::cpu::MINILLM_ISA {

template <typename T, int N>
struct Array {
  T lane[N];
};
using Floats = Array<float, 16>;
using Ints = Array<int32_t, 16>;
using Bytes = Array<uint8_t, 64>;

inline constexpr int kGemvPanels = 1;
inline constexpr int kTilePanels = 1;
inline constexpr int kTileTokens = 1;
inline constexpr int kHalvesTileTokens = 1;
inline constexpr bool kFewRegisters = false;
inline constexpr bool kDotsInShorts = false;
inline constexpr int kPackedPanels = 0;  // Too few registers: no gemm_packed.
inline constexpr int kProbeChains = 2;
inline constexpr int kFloatTileTokens = 1;
inline constexpr bool kWideIsSigned = false;

/// result[i] = f(a[i], ...)
template <typename R = void, typename T, int N, typename F>
MINILLM_INLINE auto each(const Array<T, N>& a, F f) {
  Array<decltype(f(a.lane[0])), N> result;
  for (int i = 0; i < N; ++i) result.lane[i] = f(a.lane[i]);
  return result;
}
template <typename T, int N, typename F>
MINILLM_INLINE auto each(const Array<T, N>& a, const Array<T, N>& b, F f) {
  Array<decltype(f(a.lane[0], b.lane[0])), N> result;
  for (int i = 0; i < N; ++i) result.lane[i] = f(a.lane[i], b.lane[i]);
  return result;
}
MINILLM_INLINE float float_of_bits(uint32_t bits) { return __builtin_bit_cast(float, bits); }
MINILLM_INLINE uint16_t read_u16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | (p[1] << 8)); }
MINILLM_INLINE float widen_half(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16, exponent = (h >> 10) & 0x1Fu, mantissa = h & 0x3FFu;
  if (exponent == 0x1F) return float_of_bits(sign | 0x7F800000u | (mantissa << 13));
  if (exponent != 0) return float_of_bits(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign != 0 ? -magnitude : magnitude;
}

MINILLM_INLINE Floats splat(float x) {
  Floats v;
  for (float& lane : v.lane) lane = x;
  return v;
}
MINILLM_INLINE Floats zeros() { return splat(0.0f); }
/// The first n lanes; the others are zero.
MINILLM_INLINE Floats load_first(const float* p, int64_t n) {
  Floats v = zeros();
  for (int64_t i = 0; i < n; ++i) v.lane[i] = p[i];
  return v;
}
MINILLM_INLINE void store_first(float* p, Floats v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = v.lane[i];
}
MINILLM_INLINE Floats load(const float* p) { return load_first(p, 16); }
MINILLM_INLINE void store(float* p, Floats v) { store_first(p, v, 16); }
MINILLM_INLINE Floats load_half(const void* p) {
  Floats v;
  for (int i = 0; i < 16; ++i) v.lane[i] = widen_half(read_u16(static_cast<const uint8_t*>(p) + 2 * i));
  return v;
}
MINILLM_INLINE Floats load_bfloat16(const void* p) {
  Floats v;
  for (int i = 0; i < 16; ++i) v.lane[i] = float_of_bits(static_cast<uint32_t>(read_u16(static_cast<const uint8_t*>(p) + 2 * i)) << 16);
  return v;
}
MINILLM_INLINE Floats load_u8(const uint8_t* p) {
  Floats v;
  for (int i = 0; i < 16; ++i) v.lane[i] = static_cast<float>(p[i]);
  return v;
}
MINILLM_INLINE Floats load_i8(const uint8_t* p) {
  Floats v;
  for (int i = 0; i < 16; ++i) v.lane[i] = static_cast<float>(static_cast<int8_t>(p[i]));
  return v;
}

MINILLM_INLINE Floats add(Floats a, Floats b) {
  return each(a, b, [](float x, float y) { return x + y; });
}
MINILLM_INLINE Floats sub(Floats a, Floats b) {
  return each(a, b, [](float x, float y) { return x - y; });
}
MINILLM_INLINE Floats mul(Floats a, Floats b) {
  return each(a, b, [](float x, float y) { return x * y; });
}
MINILLM_INLINE Floats div(Floats a, Floats b) {
  return each(a, b, [](float x, float y) { return x / y; });
}
MINILLM_INLINE Floats fma(Floats a, Floats b, Floats c) { return add(mul(a, b), c); }
/// b where a or b is NaN, as the vector instruction does: clamp with the constant first.
MINILLM_INLINE Floats max(Floats a, Floats b) {
  return each(a, b, [](float x, float y) { return x > y ? x : y; });
}
MINILLM_INLINE Floats min(Floats a, Floats b) {
  return each(a, b, [](float x, float y) { return x < y ? x : y; });
}
MINILLM_INLINE Floats abs(Floats a) {
  return each(a, [](float x) { return __builtin_fabsf(x); });
}
MINILLM_INLINE Floats select_less(Floats a, Floats b, Floats if_less, Floats otherwise) {
  Floats v;
  for (int i = 0; i < 16; ++i) v.lane[i] = a.lane[i] < b.lane[i] ? if_less.lane[i] : otherwise.lane[i];
  return v;
}
MINILLM_INLINE float sum_lanes(Floats a) {
  float sum = 0.0f;
  for (float lane : a.lane) sum += lane;
  return sum;
}
MINILLM_INLINE float square_root(float x) { return __builtin_sqrtf(x); }

MINILLM_INLINE Ints splat_int(int32_t x) {
  Ints v;
  for (int32_t& lane : v.lane) lane = x;
  return v;
}
MINILLM_INLINE Ints add(Ints a, Ints b) {
  return each(a, b, [](int32_t x, int32_t y) { return x + y; });
}
MINILLM_INLINE Ints max(Ints a, Ints b) {
  return each(a, b, [](int32_t x, int32_t y) { return x > y ? x : y; });
}
MINILLM_INLINE Ints shift_left(Ints a, int n) {
  return each(a, [n](int32_t x) { return static_cast<int32_t>(static_cast<uint32_t>(x) << n); });
}
MINILLM_INLINE Ints bits_of(Floats a) {
  return each(a, [](float x) { return __builtin_bit_cast(int32_t, x); });
}
MINILLM_INLINE Floats from_bits(Ints a) {
  return each(a, [](int32_t x) { return __builtin_bit_cast(float, x); });
}
MINILLM_INLINE Floats to_floats(Ints a) {
  return each(a, [](int32_t x) { return static_cast<float>(x); });
}
/// To nearest, ties to even; INT_MIN where it does not fit. Adding 1.5 * 2^23 leaves no room for a fraction.
MINILLM_INLINE Ints to_ints(Floats a) {
  return each(a, [](float x) {
    if (!(__builtin_fabsf(x) < 0x1p22f)) return !(__builtin_fabsf(x) < 0x1p31f) ? INT32_MIN : static_cast<int32_t>(x);
    return static_cast<int32_t>((x + 0x1.8p23f) - 0x1.8p23f);
  });
}
MINILLM_INLINE int32_t sum_lanes(Ints a) {
  int32_t sum = 0;
  for (int32_t lane : a.lane) sum += lane;
  return sum;
}
MINILLM_INLINE int32_t max_lanes(Ints a) {
  int32_t result = a.lane[0];
  for (int32_t lane : a.lane) result = lane > result ? lane : result;
  return result;
}
/// The 32 values of two vectors as signed bytes; they must fit.
using ShortCodes = Array<int8_t, 32>;
MINILLM_INLINE ShortCodes narrow(Ints a, Ints b) {
  ShortCodes codes;
  for (int i = 0; i < 16; ++i) {
    codes.lane[i] = static_cast<int8_t>(a.lane[i]);
    codes.lane[16 + i] = static_cast<int8_t>(b.lane[i]);
  }
  return codes;
}
MINILLM_INLINE void store_codes(int8_t* p, const ShortCodes& codes) {
  for (int i = 0; i < 32; ++i) p[i] = codes.lane[i];
}
/// Sums of the first and of the last 16.
MINILLM_INLINE void sum_halves(const ShortCodes& codes, int32_t* first, int32_t* last) {
  *first = *last = 0;
  for (int i = 0; i < 16; ++i) {
    *first += codes.lane[i];
    *last += codes.lane[16 + i];
  }
}

MINILLM_INLINE Bytes load_bytes(const uint8_t* p) {
  Bytes v;
  for (int i = 0; i < 64; ++i) v.lane[i] = p[i];
  return v;
}
MINILLM_INLINE void store_bytes(uint8_t* p, Bytes v) {
  for (int i = 0; i < 64; ++i) p[i] = v.lane[i];
}
MINILLM_INLINE Bytes splat_byte(int x) {
  Bytes v;
  for (uint8_t& lane : v.lane) lane = static_cast<uint8_t>(x);
  return v;
}
MINILLM_INLINE Bytes bit_and(Bytes a, Bytes b) {
  return each(a, b, [](uint8_t x, uint8_t y) { return static_cast<uint8_t>(x & y); });
}
MINILLM_INLINE Bytes bit_or(Bytes a, Bytes b) {
  return each(a, b, [](uint8_t x, uint8_t y) { return static_cast<uint8_t>(x | y); });
}
MINILLM_INLINE Bytes bit_xor(Bytes a, Bytes b) {
  return each(a, b, [](uint8_t x, uint8_t y) { return static_cast<uint8_t>(x ^ y); });
}
/// Elsewhere bits also move across byte borders: mask afterwards.
template <int N>
MINILLM_INLINE Bytes shift_right(Bytes a) {
  return each(a, [](uint8_t x) { return static_cast<uint8_t>(x >> N); });
}
template <int N>
MINILLM_INLINE Bytes shift_left(Bytes a) {
  return each(a, [](uint8_t x) { return static_cast<uint8_t>(x << N); });
}

/// Four adjacent signed codes in every lane.
struct FourCodes {
  int8_t code[4];
};
MINILLM_INLINE FourCodes four_codes(const int8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
/// sums[lane] += sum of four (unsigned weight x signed code).
using Dot = Ints;
MINILLM_INLINE Dot begin_dot(const Ints& sums) { return sums; }
MINILLM_INLINE Dot add_products(Dot sums, const Bytes& weights, FourCodes codes) {
  for (int i = 0; i < 64; ++i) sums.lane[i / 4] += weights.lane[i] * codes.code[i % 4];
  return sums;
}
MINILLM_INLINE Dot add_wide_products(const Dot& sums, const Bytes& weights, FourCodes codes) { return add_products(sums, weights, codes); }
MINILLM_INLINE Ints end_dot(const Ints&, const Dot& dot) { return dot; }
MINILLM_INLINE Ints end_dots(const Ints&, const Dot& high, const Dot& low) { return add(shift_left(high, 7), low); }

}  // namespace minillm::cpu::MINILLM_ISA
