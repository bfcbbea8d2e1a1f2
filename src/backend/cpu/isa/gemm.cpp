// gemm.cpp - products of many rows of activations: weights are unpacked once into bytes and float scales that stay in the L2
// cache, then every strip of tokens runs over them in a register tile.
// Cost:    per unit, 16 rows and token: 8 vpdpbusd, and a conversion, a product and a sum (73% of the peak; an offset takes one
//          more). Unpacking is 1/T of that.
// Order:   each output is the chain of gemv.cpp, unit after unit; chunks of k continue it from `out`.
#include "backend/cpu/isa/formats.h"
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
        unroll<4>([&](auto j) __attribute__((always_inline)) {
          const CodePair pair = load_codes<D, decltype(j)::value>(unit);
          store_bytes(codes + 128 * j, pair.even);
          store_bytes(codes + 128 * j + 64, pair.odd);
        });
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

/// A tile of M panels by N tokens over the whole chunk.
template <UnitKind Kind, int M, int N, int Terms>
[[gnu::noinline]] void run_tile(const Tile& tile, int64_t t, const QuantisedRows& x, int shift) {
  constexpr int kHalves = Kind == UnitKind::kHalves ? 2 : 1;
  const int64_t n_units = tile.n_k / kUnit, row_units = x.k / kUnit, token = tile.first_token + t, first_unit = tile.k0 / kUnit;
  const int8_t* codes = x.codes + token * x.k + tile.k0;
  const int8_t* low_codes = Terms == 2 ? x.low + token * x.k + tile.k0 : nullptr;
  const float *activation_scales = x.scales + token * row_units + first_unit, *scaled_sums = x.scaled_sums + token * row_units + first_unit;
  const int32_t* starts = (kHalves == 2 ? x.negative_halves : x.negative_sums) + kHalves * (token * row_units + first_unit);
  const uint8_t* weights = tile.weights.codes;
  const float *scales = tile.weights.scales, *offsets = tile.weights.offsets;
  const int64_t panel_codes = n_units * kUnitCodes, panel_scales = n_units * kHalves * kPanelRows, panel_offsets = n_units * kPanelRows;
  float* const out = tile.out + t * tile.out_stride;

  Floats sum[M][N];
  unroll<N>([&](auto n) __attribute__((always_inline)) {
    unroll<M>([&](auto m) __attribute__((always_inline)) {
      sum[m][n] = tile.k0 == 0 ? zeros() : load_rows(out + n * tile.out_stride, m * kPanelRows, tile.n_rows);
    });
  });

  for (int64_t u = 0; u < n_units; ++u) {
    unroll<kHalves>([&](auto h) __attribute__((always_inline)) {
      Ints high[M][N], low[M][N];
      unroll<N>([&](auto n) __attribute__((always_inline)) {
        const Ints start = start_of_dot<Kind>(starts + n * row_units * kHalves + h, shift);
        unroll<M>([&](auto m) __attribute__((always_inline)) {
          high[m][n] = splat_int(0);
          low[m][n] = start;
        });
      });
      unroll<8 / kHalves>([&](auto i) __attribute__((always_inline)) {
        constexpr int kQuad = decltype(i)::value + 4 * decltype(h)::value;
        Bytes w[M];
        unroll<M>([&](auto m) __attribute__((always_inline)) { w[m] = load_bytes(weights + m * panel_codes + 64 * kQuad); });
        unroll<N>([&](auto n) __attribute__((always_inline)) {
          const FourCodes four = four_codes(codes + n * x.k + 4 * kQuad);
          unroll<M>([&](auto m) __attribute__((always_inline)) {
            Ints& to = Terms == 2 ? high[m][n] : low[m][n];
            to = dot_codes<Kind>(to, w[m], four);
          });
          if constexpr (Terms == 2) {
            const FourCodes low_four = four_codes(low_codes + n * x.k + 4 * kQuad);
            unroll<M>([&](auto m) __attribute__((always_inline)) { low[m][n] = dot_codes<Kind>(low[m][n], w[m], low_four); });
          }
        });
      });
      Floats weight_scale[M];
      unroll<M>([&](auto m) __attribute__((always_inline)) { weight_scale[m] = load(scales + m * panel_scales); });
      unroll<N>([&](auto n) __attribute__((always_inline)) {
        const Floats activation_scale = splat(activation_scales[n * row_units]);
        unroll<M>([&](auto m) __attribute__((always_inline)) {
          sum[m][n] = add_unit<Terms>(sum[m][n], high[m][n], low[m][n], weight_scale[m], activation_scale);
        });
      });
      scales += kPanelRows;
    });
    if constexpr (Kind == UnitKind::kOffset) {
      Floats offset[M];
      unroll<M>([&](auto m) __attribute__((always_inline)) { offset[m] = load(offsets + m * panel_offsets); });
      unroll<N>([&](auto n) __attribute__((always_inline)) {
        const Floats scaled_sum = splat(scaled_sums[n * row_units]);
        unroll<M>([&](auto m) __attribute__((always_inline)) { sum[m][n] = fma(offset[m], scaled_sum, sum[m][n]); });
      });
      offsets += kPanelRows;
      ++scaled_sums;
    }
    weights += kUnitCodes;
    codes += kUnit;
    if constexpr (Terms == 2) low_codes += kUnit;
    ++activation_scales;
    starts += kHalves;
  }

  unroll<N>([&](auto n) __attribute__((always_inline)) {
    unroll<M>([&](auto m)
                  __attribute__((always_inline)) { store_rows(out + n * tile.out_stride, m * kPanelRows, tile.n_rows, sum[m][n]); });
  });
}

template <UnitKind Kind, int Terms>
void gemm(const Tile& tile, const QuantisedRows& x, int shift) {
  constexpr int kTokens = kTileTokens[Terms - 1];
  int64_t t = 0;
  for (; t + kTokens <= tile.n_tokens; t += kTokens) run_tile<Kind, kTilePanels, kTokens, Terms>(tile, t, x, shift);
  if constexpr (kTokens > 4)
    for (; t + 4 <= tile.n_tokens; t += 4) run_tile<Kind, kTilePanels, 4, Terms>(tile, t, x, shift);
  if constexpr (kTokens > 2)
    for (; t + 2 <= tile.n_tokens; t += 2) run_tile<Kind, kTilePanels, 2, Terms>(tile, t, x, shift);
  if constexpr (kTokens > 1)
    for (; t < tile.n_tokens; ++t) run_tile<Kind, kTilePanels, 1, Terms>(tile, t, x, shift);
}

template <UnitKind Kind>
void add_kind(Kernels& table, UnitKind as = Kind) {
  table.gemm[static_cast<int>(as)][0] = gemm<Kind, 1>;
  table.gemm[static_cast<int>(as)][1] = gemm<Kind, 2>;
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
