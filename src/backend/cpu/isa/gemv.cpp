// gemv.cpp - products of one row of activations with packed weights: what decoding spends its time on.
// Layout:  panel.h. Four panels are read side by side: one stream a thread does not fill the memory system, and one broadcast
//          of activations serves four products.
// Cost:    reads each weight byte once: bandwidth-bound. About 13 cycles a unit of 4-bit weights (512 of them) a panel.
#include "backend/cpu/isa/formats.h"
#include "backend/cpu/isa/strips.h"
#include "backend/cpu/isa/tables.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

constexpr int kPrefetchBytes = 1024;

/// Sums of P panels over all of k.
template <Dtype D, int P>
[[gnu::always_inline]] inline void run_panels(const uint8_t* data, int64_t panel_bytes, const QuantisedRows& x, int64_t token,
                                              Floats (&sum)[P]) {
  constexpr PanelFormat kLayout = panel_format(D);
  constexpr UnitKind kKind = unit_kind(D);
  constexpr int kHalves = kKind == UnitKind::kHalves ? 2 : 1;
  const int64_t n_units = x.k / kUnit;
  const int64_t step = x.strip_rows, place = first_place(token, n_units, step), first_half = first_place(token, 2 * n_units, step);
  const int8_t *codes = x.high.codes + place * kUnit, *low_codes = x.low.codes + place * kUnit;
  const float *scales = x.scales + place, *scaled_sums = x.scaled_sums + place;
  const auto starts_of = [&](const ActivationTerm& term) {
    return kHalves == 2 ? term.negative_halves + first_half : term.negative_sums + place;
  };
  const int32_t *starts = starts_of(x.high), *low_starts = starts_of(x.low);

  for (int64_t u = 0; u < n_units;) {
    Header header[P];
    unroll<P>([&](auto p) __attribute__((always_inline)) { header[p] = load_header<D>(data + p * panel_bytes); });
    const uint8_t* unit = data + kLayout.header;
    data += kLayout.block_bytes();
    for (int i = 0; i < kLayout.units; ++i, ++u, unit += kLayout.unit_bytes, codes += step * kUnit, low_codes += step * kUnit) {
      const Floats activation_scale = splat(scales[step * u] * kLowStep);
      [[maybe_unused]] Floats halves[P];
      unroll<kHalves>([&](auto h) __attribute__((always_inline)) {
        constexpr int kHalf = decltype(h)::value;
        Ints high[P], low[P];
        unroll<P>([&](auto p) __attribute__((always_inline)) {
          high[p] = start_of_dot<kKind>(starts + step * (kHalves * u + h), zero_shift(D));
          low[p] = start_of_dot<kKind>(low_starts + step * (kHalves * u + h), zero_shift(D));
        });
        unroll<4 / kHalves>([&](auto j) __attribute__((always_inline)) {
          constexpr int kPair = decltype(j)::value + kHalf * 2;
          const FourCodes even = four_codes(codes + 8 * kPair), odd = four_codes(codes + 8 * kPair + 4);
          unroll<P>([&](auto p) __attribute__((always_inline)) {
            __builtin_prefetch(unit + p * panel_bytes + 64 * kPair + kPrefetchBytes);
            const CodePair w = load_codes<D, kPair>(unit + p * panel_bytes);
            high[p] = dot_codes<kKind>(dot_codes<kKind>(high[p], w.even, even), w.odd, odd);
            low[p] = dot_codes<kKind>(low[p], w.even, four_codes(low_codes + 8 * kPair));
            low[p] = dot_codes<kKind>(low[p], w.odd, four_codes(low_codes + 8 * kPair + 4));
          });
        });
        unroll<P>([&](auto p) __attribute__((always_inline)) {
          const Floats weight_scale = load_scale<D, kHalf>(header[p], unit + p * panel_bytes);
          const Ints dot = add(shift_left(high[p], 7), low[p]);
          if constexpr (kHalves == 2) {
            halves[p] = add_half<kHalf>(halves[p], dot, weight_scale);
            if constexpr (kHalf == 1) sum[p] = fma(halves[p], activation_scale, sum[p]);
          } else {
            sum[p] = add_unit(sum[p], dot, weight_scale, activation_scale);
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

/// Panels [panel, panel + P). Where the last ones are missing, `panel_bytes` of 0 reads the first instead.
template <Dtype D, int P>
[[gnu::noinline]] void run_group(const PanelSpan& w, int64_t panel, int64_t panel_bytes, const QuantisedRows& x, int64_t token,
                                 float* out) {
  Floats sum[P];
  unroll<P>([&](auto p) __attribute__((always_inline)) { sum[p] = zeros(); });
  run_panels<D, P>(w.data + panel * w.panel_bytes, panel_bytes, x, token, sum);
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
