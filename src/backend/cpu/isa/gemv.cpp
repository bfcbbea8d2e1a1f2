// gemv.cpp - products of one row of activations with packed weights: what decoding spends its time on.
// Layout:  panel.h. Four panels are read side by side: one stream a thread does not fill the memory system, and one broadcast
//          of activations serves four products. Every line is fetched ahead, also those of the next group of panels.
// Cost:    reads each weight byte once: bandwidth-bound. About 13 cycles a unit of 4-bit weights (512 of them) a panel.
#include "backend/cpu/isa/formats.h"
#include "backend/cpu/isa/strips.h"
#include "backend/cpu/isa/tables.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

/// Sums of P panels over all of k.
template <Dtype D, int P>
[[gnu::always_inline]] inline void run_panels(const uint8_t* data, int64_t panel_bytes, const uint8_t* next, const QuantisedRows& x,
                                              int64_t token, Floats (&sum)[P]) {
  constexpr PanelFormat kLayout = panel_format(D);
  constexpr UnitKind kKind = unit_kind(D);
  constexpr int kHalves = kKind == UnitKind::kHalves ? 2 : 1, kLines = (kLayout.unit_bytes + 63) / 64;
  const int64_t n_units = x.k / kUnit;
  const int64_t step = x.strip_rows, place = first_place(token, n_units, step), first_half = first_place(token, 2 * n_units, step);
  const int8_t *codes = x.high.codes + place * kUnit, *low_codes = x.low.codes + place * kUnit;
  const float *scales = x.scales + place, *scaled_sums = x.scaled_sums + place;
  const auto starts_of = [&](const ActivationTerm& term) {
    return kHalves == 2 ? term.negative_halves + first_half : term.negative_sums + place;
  };
  const int32_t *starts = starts_of(x.high), *low_starts = starts_of(x.low);

  const FetchAhead ahead(data + n_units / kLayout.units * kLayout.block_bytes(), next);
  for (int64_t u = 0; u < n_units;) {
    Header header[P];
    unroll<P>([&](auto p) __attribute__((always_inline)) { header[p] = load_header<D>(data + p * panel_bytes); });
    const uint8_t* unit = data + kLayout.header;
    data += kLayout.block_bytes();
    for (int i = 0; i < kLayout.units; ++i, ++u, unit += kLayout.unit_bytes, codes += step * kUnit, low_codes += step * kUnit) {
      const Floats activation_scale = splat(scales[step * u] * kLowStep);
      const uint8_t* const fetched = unit + ahead.distance(unit);
      [[maybe_unused]] Floats halves[P];
      unroll<kHalves>([&](auto h) __attribute__((always_inline)) {
        constexpr int kHalf = decltype(h)::value;
        const int64_t at = step * (kHalves * u + h);
        const Ints start =
            add(shift_left(start_of_dot<kKind>(starts + at, zero_shift(D)), 7), start_of_dot<kKind>(low_starts + at, zero_shift(D)));
        Ints dots[P];  // 128 high + low
        unroll<P>([&](auto p) __attribute__((always_inline)) { dots[p] = start; });
        Dot high[P], low[P];
        unroll<8 / kHalves>([&](auto q) __attribute__((always_inline)) {
          constexpr int kQuads = 8 / kHalves, kGroup = dot_quads<kKind>(kQuads), kIn = decltype(q)::value % kGroup;
          constexpr int kQuad = decltype(q)::value + kHalf * kQuads;
          const FourCodes codes_high = four_codes(codes + 4 * kQuad), codes_low = four_codes(low_codes + 4 * kQuad);
          unroll<P>([&](auto p) __attribute__((always_inline)) {
            constexpr int kFirst = kQuad * kLines / 8, kOfQuad = (kQuad + 1) * kLines / 8 - kFirst;
            unroll<kOfQuad>([&](auto line)
                                __attribute__((always_inline)) { FetchAhead::fetch(fetched + p * panel_bytes + 64 * (kFirst + line)); });
            if constexpr (kIn == 0) high[p] = begin_dot(splat_int(0)), low[p] = begin_dot(dots[p]);
            const Bytes w = load_quad<D, kQuad>(unit + p * panel_bytes);
            high[p] = add_codes<kKind>(high[p], w, codes_high);
            low[p] = add_codes<kKind>(low[p], w, codes_low);
            if constexpr (kIn == kGroup - 1) dots[p] = end_dots(dots[p], high[p], low[p]);
          });
        });
        unroll<P>([&](auto p) __attribute__((always_inline)) {
          const Floats weight_scale = load_scale<D, kHalf>(header[p], unit + p * panel_bytes);
          if constexpr (kHalves == 2) {
            halves[p] = add_half<kHalf>(halves[p], dots[p], weight_scale);
            if constexpr (kHalf == 1) sum[p] = fma(halves[p], activation_scale, sum[p]);
          } else {
            sum[p] = add_unit(sum[p], dots[p], weight_scale, activation_scale);
          }
        });
      });
      if constexpr (kKind == UnitKind::kOffset) {
        const Floats scaled_sum = splat(scaled_sums[step * u]);
        unroll<P>([&](auto p) __attribute__((always_inline)) {
          sum[p] = fma(load_offset<D>(header[p], unit + p * panel_bytes), scaled_sum, sum[p]);
        });
      }
    }
  }
}

/// Panels [panel, panel + P); `next` as in PanelSpan. Where the last ones are missing, `panel_bytes` of 0 reads the first instead.
template <Dtype D, int P>
[[gnu::noinline]] void run_group(const PanelSpan& w, int64_t panel, int64_t panel_bytes, const QuantisedRows& x, int64_t token,
                                 float* out) {
  const int64_t after = panel + P;
  const uint8_t* const next = after * kPanelRows < w.n_rows ? w.data + after * w.panel_bytes : w.next;
  Floats sum[P];
  unroll<P>([&](auto p) __attribute__((always_inline)) { sum[p] = zeros(); });
  run_panels<D, P>(w.data + panel * w.panel_bytes, panel_bytes, next, x, token, sum);
  unroll<P>([&](auto p) __attribute__((always_inline)) { store_rows(out, (panel + p) * kPanelRows, w.n_rows, sum[p]); });
}

template <Dtype D>
void gemv(const PanelSpan& w, const QuantisedRows& x, int64_t token, float* out) {
  constexpr int kPair = kGemvPanels > 1 ? 2 : 1;
  const int64_t n_panels = (w.n_rows + kPanelRows - 1) / kPanelRows;
  int64_t panel = 0;
  if constexpr (kGemvPanels > kPair)
    for (; panel + kGemvPanels <= n_panels; panel += kGemvPanels) run_group<D, kGemvPanels>(w, panel, w.panel_bytes, x, token, out);
  for (; panel < n_panels; panel += kPair) run_group<D, kPair>(w, panel, panel + kPair <= n_panels ? w.panel_bytes : 0, x, token, out);
}

template <Dtype D>
void add_format(Kernels& table) {
  table.gemv[static_cast<int>(D)] = gemv<D>;
}

}  // namespace

void add_gemv_kernels(Kernels& table) {
  add_format<Dtype::kQ4_0>(table);
  add_format<Dtype::kQ4_1>(table);
  add_format<Dtype::kQ5_0>(table);
  add_format<Dtype::kQ5_1>(table);
  add_format<Dtype::kQ8_0>(table);
  add_format<Dtype::kQ4_K>(table);
  add_format<Dtype::kQ5_K>(table);
  add_format<Dtype::kQ6_K>(table);
}

}  // namespace minillm::cpu::MINILLM_ISA
