// gemm_packed.cpp - products of a few rows of activations (a batch that decodes): weights stay as they are packed and are taken out of
// their format in registers, for every strip of tokens anew, instead of once into the cache as in gemm.cpp.
// Layout:  panel.h. Integer sums of kPackedPanels panels by kStripRows tokens fill the registers; the float sums, touched once a
//          unit, lie in the L1 cache.
// Cost:    per unit of 4-bit weights, 16 rows: 12 operations to unpack for 8 tokens; for each token 8 vpdpbusd, a conversion, a product
//          and a sum (and one for an offset): 62% of the int8 peak. Where one of the strip's tokens is fine, twice the products.
// Formats: all but Q6_K, whose two scales a unit go through these sums twice: gemm.cpp is as fast from 16 tokens on.
// Order:   each output is the chain of gemv.cpp, unit after unit.
#include "backend/cpu/isa/formats.h"
#include "backend/cpu/isa/strips.h"
#include "backend/cpu/isa/tables.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

constexpr int kAheadBytes = 320;  ///< Fetched beside each unit of a strip.

/// Adds the products of a unit.
template <Dtype D, int P, int N>
MINILLM_INLINE void add_dots(Ints (&dots)[P][N], const uint8_t* unit, int64_t panel_bytes, const int8_t* codes) {
  constexpr UnitKind kKind = unit_kind(D);
  Dot sums[P][N];
  unroll<N>([&](auto n) __attribute__((always_inline)) {
    unroll<P>([&](auto p) __attribute__((always_inline)) { sums[p][n] = begin_dot(dots[p][n]); });
  });
  unroll<8>([&](auto q) __attribute__((always_inline)) {
    constexpr int kQuad = decltype(q)::value;
    Bytes w[P];
    unroll<P>([&](auto p) __attribute__((always_inline)) { w[p] = load_quad<D, kQuad>(unit + p * panel_bytes); });
    unroll<N>([&](auto n) __attribute__((always_inline)) {
      const FourCodes four = four_codes(codes + kUnit * n + 4 * kQuad);
      unroll<P>([&](auto p) __attribute__((always_inline)) { sums[p][n] = add_codes<kKind>(sums[p][n], w[p], four); });
    });
  });
  unroll<N>([&](auto n) __attribute__((always_inline)) {
    unroll<P>([&](auto p) __attribute__((always_inline)) { dots[p][n] = end_dot(dots[p][n], sums[p][n]); });
  });
}

/// P panels by N tokens of one strip from `token` on, over all of k. Where the second panel is missing, `panel_bytes` of 0 reads the first
/// instead.
template <Dtype D, int P, int N>
[[gnu::noinline]] void run_strip(const uint8_t* data, int64_t panel_bytes, const QuantisedRows& x, int64_t token, float* sums,
                                 const uint8_t* ahead) {
  constexpr PanelFormat kLayout = panel_format(D);
  constexpr UnitKind kKind = unit_kind(D);
  static_assert(kKind != UnitKind::kHalves, "not written: two scales a unit");
  const int64_t n_units = x.k / kUnit, place = first_place(token, n_units, kStripRows);
  const int8_t *codes = x.high.codes + place * kUnit, *low_codes = x.low.codes + place * kUnit;
  const int32_t *starts = x.high.negative_sums + place, *low_starts = x.low.negative_sums + place;
  const float *activation_scales = x.scales + place, *scaled_sums = x.scaled_sums + place;
  const uint8_t* fine = x.fine + place;
  unroll<P * N>([&](auto i) __attribute__((always_inline)) { store(sums + kPanelRows * i, zeros()); });

  for (int64_t u = 0; u < n_units;) {
    Header header[P];
    unroll<P>([&](auto p) __attribute__((always_inline)) { header[p] = load_header<D>(data + p * panel_bytes); });
    const uint8_t* unit = data + kLayout.header;
    data += kLayout.block_bytes();
    for (int i = 0; i < kLayout.units; ++i, ++u, unit += kLayout.unit_bytes) {
      unroll<kAheadBytes / 64>([&](auto line) __attribute__((always_inline)) { __builtin_prefetch(ahead + 64 * line, 0, 2); });  // Into L2.
      ahead += kAheadBytes;
      sums = load_again(sums);  // Else some of them are kept in registers, which there are not enough of.
      Ints dots[P][N];
      unroll<N>([&](auto n) __attribute__((always_inline)) {
        const Ints start = start_of_dot<kKind>(starts + n, zero_shift(D));
        unroll<P>([&](auto p) __attribute__((always_inline)) { dots[p][n] = start; });
      });
      add_dots<D, P, N>(dots, unit, panel_bytes, codes);
      float step = 1.0f;
      if (any_fine<N>(fine)) {
        unroll<N>([&](auto n) __attribute__((always_inline)) {
          const Ints start = start_of_dot<kKind>(low_starts + n, zero_shift(D));
          unroll<P>([&](auto p) __attribute__((always_inline)) { dots[p][n] = add(shift_left(dots[p][n], 7), start); });
        });
        add_dots<D, P, N>(dots, load_again(unit), panel_bytes, low_codes);
        step = kLowStep;
      }
      Floats weight_scale[P], offset[P];
      unroll<P>([&](auto p) __attribute__((always_inline)) {
        weight_scale[p] = mul(load_scale<D, 0>(header[p], unit + p * panel_bytes), splat(step));
        if constexpr (kKind == UnitKind::kOffset) offset[p] = load_offset<D>(header[p], unit + p * panel_bytes);
      });
      unroll<N>([&](auto n) __attribute__((always_inline)) {
        const Floats activation_scale = splat(activation_scales[n]);
        unroll<P>([&](auto p) __attribute__((always_inline)) {
          float* const at = sums + kPanelRows * (p * N + n);
          Floats sum = add_unit(load(at), dots[p][n], weight_scale[p], activation_scale);
          if constexpr (kKind == UnitKind::kOffset) sum = fma(offset[p], splat(scaled_sums[n]), sum);
          store(at, sum);
        });
      });
      codes += kStripRows * kUnit;
      low_codes += kStripRows * kUnit;
      starts += kStripRows;
      low_starts += kStripRows;
      activation_scales += kStripRows;
      scaled_sums += kStripRows;
      fine += kStripRows;
    }
  }
}

template <Dtype D>
void gemm_packed(const PackedTile& tile, const QuantisedRows& x) {
  constexpr int P = kPackedPanels;
  const PanelSpan& w = tile.weights;
  const int64_t n_panels = (w.n_rows + kPanelRows - 1) / kPanelRows, strip_bytes = w.k / kUnit * kAheadBytes;
  int64_t fetched = 0;
  for (int64_t panel = 0; panel < n_panels; panel += P) {
    const uint8_t* const data = w.data + panel * w.panel_bytes;
    const int64_t panel_bytes = panel + P <= n_panels ? w.panel_bytes : 0;
    int64_t t = 0;
    const auto strips = [&]<int N>() __attribute__((always_inline)) {
      for (; t + N <= tile.n_tokens; t += N, fetched += strip_bytes) {  // Nothing left to fetch: what the cache has costs little.
        run_strip<D, P, N>(data, panel_bytes, x, t, tile.sums, fetched < tile.ahead_bytes ? tile.ahead + fetched : data);
        unroll<N>([&](auto n) __attribute__((always_inline)) {
          unroll<P>([&](auto p) __attribute__((always_inline)) {
            store_rows(tile.out + (t + n) * tile.out_stride, (panel + p) * kPanelRows, w.n_rows,
                       load(tile.sums + kPanelRows * (p * N + n)));
          });
        });
      }
    };
    strips.template operator()<kStripRows>();
    strips.template operator()<4>();
    strips.template operator()<2>();
    strips.template operator()<1>();
  }
}

/// A template so that an instruction set without room for such a tile compiles none.
template <int Panels>
void add_formats(Kernels& table) {
  if constexpr (Panels > 0) {
    static_assert(Panels <= kMaxTilePanels);
    table.packed_panels = Panels;
    table.gemm_packed[static_cast<int>(Dtype::kQ4_0)] = gemm_packed<Dtype::kQ4_0>;
    table.gemm_packed[static_cast<int>(Dtype::kQ4_1)] = gemm_packed<Dtype::kQ4_1>;
    table.gemm_packed[static_cast<int>(Dtype::kQ5_0)] = gemm_packed<Dtype::kQ5_0>;
    table.gemm_packed[static_cast<int>(Dtype::kQ5_1)] = gemm_packed<Dtype::kQ5_1>;
    table.gemm_packed[static_cast<int>(Dtype::kQ8_0)] = gemm_packed<Dtype::kQ8_0>;
    table.gemm_packed[static_cast<int>(Dtype::kQ4_K)] = gemm_packed<Dtype::kQ4_K>;
    table.gemm_packed[static_cast<int>(Dtype::kQ5_K)] = gemm_packed<Dtype::kQ5_K>;
  }
}

}  // namespace

void add_gemm_packed_kernels(Kernels& table) { add_formats<kPackedPanels>(table); }

}  // namespace minillm::cpu::MINILLM_ISA
