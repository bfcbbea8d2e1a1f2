// gemm.cpp - products of many rows of activations: weights are unpacked once into bytes and float scales that stay in the L2
// cache, then every strip of tokens runs over them in a register tile.
// Cost:    per unit, 16 rows and token: 8 vpdpbusd, and a conversion, a product and a sum (73% of the peak; an offset takes one
//          more; twice the products, and a shift, where one of a tile's tokens is fine). Unpacking is 1/T of that.
// Order:   each output is the chain of gemv.cpp, unit after unit; chunks of k continue it from `out`.
#include "backend/cpu/isa/formats.h"
#include "backend/cpu/isa/strips.h"
#include "backend/cpu/isa/tables.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

constexpr int kUnitCodes = kPanelRows * kUnit;  ///< Bytes of an unpacked unit.

template <Dtype D>
void unpack(const PanelSpan& w, int64_t k0, int64_t n_k, const Unpacked& to) {
  constexpr PanelFormat kLayout = panel_format(D);
  constexpr UnitKind kKind = unit_kind(D);
  const int64_t n_panels = (w.n_rows + kPanelRows - 1) / kPanelRows, n_blocks = n_k / (kUnit * kLayout.units);
  uint8_t* codes = to.codes;
  float *scales = to.scales, *offsets = to.offsets;
  for (int64_t panel = 0; panel < n_panels; ++panel) {
    const uint8_t* block = w.data + panel * w.panel_bytes + k0 / (kUnit * kLayout.units) * kLayout.block_bytes();
    for (int64_t b = 0; b < n_blocks; ++b, block += kLayout.block_bytes()) {
      const Header header = load_header<D>(block);
      const uint8_t* unit = block + kLayout.header;
      for (int u = 0; u < kLayout.units; ++u, unit += kLayout.unit_bytes, codes += kUnitCodes) {
        unroll<8>([&](auto q) __attribute__((always_inline)) { store_bytes(codes + 64 * q, load_quad<D, decltype(q)::value>(unit)); });
        store(scales, load_scale<D, 0>(header, unit));
        scales += kPanelRows;
        if constexpr (kKind == UnitKind::kHalves) {
          store(scales, load_scale<D, 1>(header, unit));
          scales += kPanelRows;
        }
        if constexpr (kKind == UnitKind::kOffset) {
          store(offsets, load_offset<D>(header, unit));
          offsets += kPanelRows;
        }
      }
    }
  }
}

/// Adds the products of one half (or all) of a unit's codes.
template <UnitKind Kind, int M, int N, int FirstQuad, int Quads>
MINILLM_INLINE void add_dots(Ints (&dots)[M][N], const uint8_t* weights, int64_t panel_codes, const int8_t* codes) {
  constexpr int kGroup = dot_quads<Kind>(Quads);
  unroll<Quads / kGroup>([&](auto g) __attribute__((always_inline)) {
    Dot group[M][N];
    unroll<M>([&](auto m) __attribute__((always_inline)) {
      unroll<N>([&](auto n) __attribute__((always_inline)) { group[m][n] = begin_dot(dots[m][n]); });
    });
    unroll<kGroup>([&](auto i) __attribute__((always_inline)) {
      constexpr int kQuad = FirstQuad + kGroup * decltype(g)::value + decltype(i)::value;
      Bytes w[M];
      unroll<M>([&](auto m) __attribute__((always_inline)) { w[m] = load_bytes(weights + m * panel_codes + 64 * kQuad); });
      unroll<N>([&](auto n) __attribute__((always_inline)) {
        const FourCodes four = four_codes(codes + kUnit * n + 4 * kQuad);
        unroll<M>([&](auto m) __attribute__((always_inline)) { group[m][n] = add_codes<Kind>(group[m][n], w[m], four); });
      });
    });
    unroll<M>([&](auto m) __attribute__((always_inline)) {
      unroll<N>([&](auto n) __attribute__((always_inline)) { dots[m][n] = end_dot(dots[m][n], group[m][n]); });
    });
  });
}

constexpr int kAheadBytes = 256;  ///< Fetched beside each unit of a tile: the time of a tile's unit is that of about as many bytes.

template <UnitKind Kind>
constexpr int tile_tokens() {
  return Kind == UnitKind::kHalves ? kHalvesTileTokens : kTileTokens;
}

/// The float sums of a tile: in registers, or, where the sums of halves need these, in the L1 cache: they are touched once a unit.
template <UnitKind Kind, int M, int N>
class Sums {
 public:
  static constexpr bool kInMemory = N > 1 && (kFewRegisters || Kind == UnitKind::kHalves);
  MINILLM_MEMBER explicit Sums(float* memory) : memory_(memory) {}
  /// The compiler forgets what it knows of the memory: it would keep part of it in registers.
  MINILLM_MEMBER void begin_unit() {
    if constexpr (kInMemory) memory_ = load_again(memory_);
  }
  MINILLM_MEMBER Floats get(int m, int n) const {
    if constexpr (kInMemory)
      return load(memory_ + kPanelRows * (m * N + n));
    else
      return kept_[m][n];
  }
  MINILLM_MEMBER void set(int m, int n, Floats sum) {
    if constexpr (kInMemory)
      store(memory_ + kPanelRows * (m * N + n), sum);
    else
      kept_[m][n] = sum;
  }

 private:
  float* memory_;
  Floats kept_[kInMemory ? 1 : M][kInMemory ? 1 : N];
};

/// A tile of M panels by N tokens over the whole chunk. The low term is added where any of the tokens has one: zeros change nothing.
template <UnitKind Kind, int M, int N>
[[gnu::noinline]] void run_tile(const Tile& tile, int64_t t, const QuantisedRows& x, int shift, [[maybe_unused]] const uint8_t* ahead) {
  static_assert(kStripRows % N == 0, "a tile's tokens are of one strip");
  constexpr int kHalves = Kind == UnitKind::kHalves ? 2 : 1, kQuads = 8 / kHalves;
  const int64_t n_units = tile.n_k / kUnit, row_units = x.k / kUnit, token = tile.first_token + t;
  const int64_t place = first_place(token, row_units, kStripRows) + tile.k0 / kUnit * kStripRows;
  const int64_t first_half = first_place(token, 2 * row_units, kStripRows) + tile.k0 / kUnit * 2 * kStripRows;
  const auto starts_of = [&](const ActivationTerm& term) {
    return kHalves == 2 ? term.negative_halves + first_half : term.negative_sums + place;
  };
  const int8_t *codes = x.high.codes + place * kUnit, *low_codes = x.low.codes + place * kUnit;
  const int32_t *starts = starts_of(x.high), *low_starts = starts_of(x.low);
  const float *activation_scales = x.scales + place, *scaled_sums = x.scaled_sums + place;
  const uint8_t *fine = x.fine + place, *weights = tile.weights.codes;
  const float *scales = tile.weights.scales, *offsets = tile.weights.offsets;
  const int64_t panel_codes = n_units * kUnitCodes, panel_scales = n_units * kHalves * kPanelRows, panel_offsets = n_units * kPanelRows;
  float* const out = tile.out + t * tile.out_stride;

  Sums<Kind, M, N> sums(tile.weights.sums);
  unroll<N>([&](auto n) __attribute__((always_inline)) {
    unroll<M>([&](auto m) __attribute__((always_inline)) {
      sums.set(m, n, tile.k0 == 0 ? zeros() : load_rows(out + n * tile.out_stride, m * kPanelRows, tile.n_rows));
    });
  });

  for (int64_t u = 0; u < n_units; ++u) {
    if constexpr (N == tile_tokens<Kind>()) {  // Narrower tiles are the last strips.
      unroll<kAheadBytes / 64>([&](auto i) __attribute__((always_inline)) { __builtin_prefetch(ahead + 64 * i, 0, 2); });  // Into L2.
      ahead += kAheadBytes;
    }
    sums.begin_unit();
    const bool is_fine = any_fine<N>(fine);
    [[maybe_unused]] Floats halves[M][N];
    unroll<kHalves>([&](auto h) __attribute__((always_inline)) {
      constexpr int kHalf = decltype(h)::value, kFirst = kQuads * kHalf;
      Ints dots[M][N];
      unroll<N>([&](auto n) __attribute__((always_inline)) {
        const Ints start = start_of_dot<Kind>(starts + kStripRows * h + n, shift);
        unroll<M>([&](auto m) __attribute__((always_inline)) { dots[m][n] = start; });
      });
      add_dots<Kind, M, N, kFirst, kQuads>(dots, weights, panel_codes, codes);
      float step = 1.0f;
      if (is_fine) {
        unroll<N>([&](auto n) __attribute__((always_inline)) {
          const Ints start = start_of_dot<Kind>(low_starts + kStripRows * h + n, shift);
          unroll<M>([&](auto m) __attribute__((always_inline)) { dots[m][n] = add(shift_left(dots[m][n], 7), start); });
        });
        add_dots<Kind, M, N, kFirst, kQuads>(dots, load_again(weights), panel_codes, low_codes);
        step = kLowStep;
      }
      Floats weight_scale[M];
      unroll<M>([&](auto m) __attribute__((always_inline)) { weight_scale[m] = mul(load(scales + m * panel_scales), splat(step)); });
      unroll<N>([&](auto n) __attribute__((always_inline)) {
        const Floats activation_scale = splat(activation_scales[n]);
        unroll<M>([&](auto m) __attribute__((always_inline)) {
          if constexpr (kHalves == 2) {
            halves[m][n] = add_half<kHalf>(halves[m][n], dots[m][n], weight_scale[m]);
            if constexpr (kHalf == 1) sums.set(m, n, fma(halves[m][n], activation_scale, sums.get(m, n)));
          } else {
            sums.set(m, n, add_unit(sums.get(m, n), dots[m][n], weight_scale[m], activation_scale));
          }
        });
      });
      scales += kPanelRows;
    });
    if constexpr (Kind == UnitKind::kOffset) {
      unroll<M>([&](auto m) __attribute__((always_inline)) {
        const Floats offset = load(offsets + m * panel_offsets);
        unroll<N>([&](auto n) __attribute__((always_inline)) { sums.set(m, n, fma(offset, splat(scaled_sums[n]), sums.get(m, n))); });
      });
      offsets += kPanelRows;
      scaled_sums += kStripRows;
    }
    weights += kUnitCodes;
    codes += kStripRows * kUnit;
    low_codes += kStripRows * kUnit;
    fine += kStripRows;
    activation_scales += kStripRows;
    starts += kStripRows * kHalves;
    low_starts += kStripRows * kHalves;
  }

  unroll<N>([&](auto n) __attribute__((always_inline)) {
    unroll<M>([&](auto m)
                  __attribute__((always_inline)) { store_rows(out + n * tile.out_stride, m * kPanelRows, tile.n_rows, sums.get(m, n)); });
  });
}

template <UnitKind Kind>
void gemm(const Tile& tile, const QuantisedRows& x, int shift) {
  const int64_t strip_bytes = tile.n_k / kUnit * kAheadBytes;
  int64_t t = 0, fetched = 0;
  const auto strips = [&]<int N>() __attribute__((always_inline)) {
    for (; t + N <= tile.n_tokens; t += N, fetched += strip_bytes)  // Nothing left to fetch: what the cache has costs little.
      run_tile<Kind, kTilePanels, N>(tile, t, x, shift, fetched < tile.ahead_bytes ? tile.ahead + fetched : tile.weights.codes);
  };
  constexpr int kTokens = tile_tokens<Kind>();
  strips.template operator()<kTokens>();
  if constexpr (kTokens > 2) strips.template operator()<2>();
  if constexpr (kTokens > 1) strips.template operator()<1>();
}

template <UnitKind Kind>
void add_kind(Kernels& table, UnitKind as = Kind) {
  table.gemm[static_cast<int>(as)] = gemm<Kind>;
}

}  // namespace

void add_gemm_kernels(Kernels& table) {
  table.tile_panels = kTilePanels;
  add_kind<UnitKind::kZero>(table);
  if constexpr (kWideIsSigned)
    add_kind<UnitKind::kWide>(table);
  else
    add_kind<UnitKind::kZero>(table, UnitKind::kWide);
  add_kind<UnitKind::kOffset>(table);
  add_kind<UnitKind::kHalves>(table);
  table.unpack[static_cast<int>(Dtype::kQ4_0)] = unpack<Dtype::kQ4_0>;
  table.unpack[static_cast<int>(Dtype::kQ4_1)] = unpack<Dtype::kQ4_1>;
  table.unpack[static_cast<int>(Dtype::kQ5_0)] = unpack<Dtype::kQ5_0>;
  table.unpack[static_cast<int>(Dtype::kQ5_1)] = unpack<Dtype::kQ5_1>;
  table.unpack[static_cast<int>(Dtype::kQ8_0)] = unpack<Dtype::kQ8_0>;
  table.unpack[static_cast<int>(Dtype::kQ4_K)] = unpack<Dtype::kQ4_K>;
  table.unpack[static_cast<int>(Dtype::kQ5_K)] = unpack<Dtype::kQ5_K>;
  table.unpack[static_cast<int>(Dtype::kQ6_K)] = unpack<Dtype::kQ6_K>;
}

}  // namespace minillm::cpu::MINILLM_ISA
