// float_products.cpp - products with float weights (f32, f16, bf16), activations in float32.
// Order:   each output is one chain of fused multiply-adds over k, in gemv and gemm alike; chunks of k continue it from `out`.
// Cost:    gemv reads each weight once (bandwidth-bound); gemm widens a chunk once, then runs a register tile of 2 panels x 12.
#include "backend/cpu/isa/formats.h"
#include "backend/cpu/isa/strips.h"
#include "backend/cpu/isa/tables.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

template <Dtype D>
constexpr int kBytes = D == Dtype::kF32 ? 4 : 2;

template <Dtype D>
MINILLM_INLINE Floats load_weights(const uint8_t* p) {
  if constexpr (D == Dtype::kF32)
    return load(static_cast<const float*>(static_cast<const void*>(p)));
  else if constexpr (D == Dtype::kF16)
    return load_half(p);
  else
    return load_bfloat16(p);
}

template <Dtype D, int P>
[[gnu::noinline]] int64_t run_groups(const PanelSpan& w, int64_t first_panel, const float* x, float* out) {
  constexpr int kStep = kPanelRows * kBytes<D>;
  const int64_t n_panels = (w.n_rows + kPanelRows - 1) / kPanelRows;
  int64_t panel = first_panel;
  for (; panel + P <= n_panels; panel += P) {
    const uint8_t* at = w.data + panel * w.panel_bytes;
    Floats sum[P];
    unroll<P>([&](auto p) __attribute__((always_inline)) { sum[p] = zeros(); });
    const FetchAhead ahead(at + w.k * kStep, panel + P < n_panels ? at + P * w.panel_bytes : w.next);
    for (int64_t k = 0; k < w.k; ++k, at += kStep) {
      const Floats value = splat(x[k]);
      const uint8_t* const fetched = at + ahead.distance(at);
      unroll<P>([&](auto p) __attribute__((always_inline)) {
        FetchAhead::fetch(fetched + p * w.panel_bytes);
        sum[p] = fma(load_weights<D>(at + p * w.panel_bytes), value, sum[p]);
      });
    }
    unroll<P>([&](auto p) __attribute__((always_inline)) { store_rows(out, (panel + p) * kPanelRows, w.n_rows, sum[p]); });
  }
  return panel;
}

template <Dtype D>
void gemv(const PanelSpan& w, const float* x, float* out) {
  int64_t panel = run_groups<D, kGemvPanels>(w, 0, x, out);
  if constexpr (kGemvPanels > 2) panel = run_groups<D, 2>(w, panel, x, out);
  if constexpr (kGemvPanels > 1) run_groups<D, 1>(w, panel, x, out);
}

template <Dtype D>
void unpack(const PanelSpan& w, int64_t k0, int64_t n_k, const Unpacked& to) {
  constexpr int kStep = kPanelRows * kBytes<D>;
  const int64_t n_panels = (w.n_rows + kPanelRows - 1) / kPanelRows;
  float* values = static_cast<float*>(static_cast<void*>(to.codes));
  for (int64_t panel = 0; panel < n_panels; ++panel) {
    const uint8_t* at = w.data + panel * w.panel_bytes + k0 * kStep;
    for (int64_t k = 0; k < n_k; ++k, at += kStep, values += kPanelRows) store(values, load_weights<D>(at));
  }
}

template <int M, int N>
[[gnu::noinline]] void run_tile(const Tile& tile, int64_t t, const float* x, int64_t x_stride) {
  const float* weights = static_cast<const float*>(static_cast<const void*>(tile.weights.codes));
  const float* values = x + (tile.first_token + t) * x_stride + tile.k0;
  const int64_t panel_values = tile.n_k * kPanelRows;
  float* const out = tile.out + t * tile.out_stride;
  Floats sum[M][N];
  unroll<N>([&](auto n) __attribute__((always_inline)) {
    unroll<M>([&](auto m) __attribute__((always_inline)) {
      sum[m][n] = tile.k0 == 0 ? zeros() : load_rows(out + n * tile.out_stride, m * kPanelRows, tile.n_rows);
    });
  });
  for (int64_t k = 0; k < tile.n_k; ++k, weights += kPanelRows) {
    Floats w[M];
    unroll<M>([&](auto m) __attribute__((always_inline)) { w[m] = load(weights + m * panel_values); });
    unroll<N>([&](auto n) __attribute__((always_inline)) {
      const Floats value = splat(values[n * x_stride + k]);
      unroll<M>([&](auto m) __attribute__((always_inline)) { sum[m][n] = fma(w[m], value, sum[m][n]); });
    });
  }
  unroll<N>([&](auto n) __attribute__((always_inline)) {
    unroll<M>([&](auto m)
                  __attribute__((always_inline)) { store_rows(out + n * tile.out_stride, m * kPanelRows, tile.n_rows, sum[m][n]); });
  });
}

void gemm(const Tile& tile, const float* x, int64_t x_stride) {
  constexpr int kTokens = kFloatTileTokens;
  int64_t t = 0;
  for (; t + kTokens <= tile.n_tokens; t += kTokens) run_tile<kTilePanels, kTokens>(tile, t, x, x_stride);
  if constexpr (kTokens > 4)
    for (; t + 4 <= tile.n_tokens; t += 4) run_tile<kTilePanels, 4>(tile, t, x, x_stride);
  if constexpr (kTokens > 1)
    for (; t < tile.n_tokens; ++t) run_tile<kTilePanels, 1>(tile, t, x, x_stride);
}

template <Dtype D>
void add_type(Kernels& table) {
  table.float_gemv[static_cast<int>(D)] = gemv<D>;
  table.float_unpack[static_cast<int>(D)] = unpack<D>;
}
static_assert(static_cast<int>(Dtype::kF32) == 0 && static_cast<int>(Dtype::kF16) == 1 && static_cast<int>(Dtype::kBF16) == 2);

}  // namespace

void add_float_kernels(Kernels& table) {
  add_type<Dtype::kF32>(table);
  add_type<Dtype::kF16>(table);
  add_type<Dtype::kBF16>(table);
  table.float_gemm = gemm;
}

}  // namespace minillm::cpu::MINILLM_ISA
