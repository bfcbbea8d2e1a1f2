// rows.cpp - operations on one row of floats. The order of sums depends on the row's length only.
#include "backend/cpu/isa/functions.h"
#include "backend/cpu/isa/tables.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

/// f(load, store at i) for whole vectors, then for the rest; `n_left` is 16 or the lanes of the tail.
template <typename F>
[[gnu::always_inline]] inline void for_vectors(int64_t n, F f) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) f(i, int64_t{16});
  if (i < n) f(i, n - i);
}
MINILLM_INLINE Floats load_some(const float* p, int64_t n) { return n == 16 ? load(p) : load_first(p, n); }
MINILLM_INLINE void store_some(float* p, Floats v, int64_t n) {
  if (n == 16)
    store(p, v);
  else
    store_first(p, v, n);
}

/// Zhang & Sennrich 2019, arXiv:1910.07467, Eq. 4.
void rms_norm(float* out, const float* x, const float* weight, int64_t n, float eps) {
  Floats even = zeros(), odd = zeros();
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const Floats a = load(x + i), b = load(x + i + 16);
    even = fma(a, a, even);
    odd = fma(b, b, odd);
  }
  for (; i < n; i += 16) {
    const Floats a = load_some(x + i, n - i < 16 ? n - i : 16);
    even = fma(a, a, even);
  }
  const float mean = sum_lanes(add(even, odd)) / static_cast<float>(n);
  const Floats scale = splat(1.0f / square_root(mean + eps));
  for_vectors(
      n, [&](int64_t at, int64_t lanes) __attribute__((always_inline)) {
        store_some(out + at, mul(mul(load_some(x + at, lanes), scale), load_some(weight + at, lanes)), lanes);
      });
}

void add_rows(float* x, const float* y, int64_t n) {
  for_vectors(
      n, [&](int64_t at, int64_t lanes)
             __attribute__((always_inline)) { store_some(x + at, add(load_some(x + at, lanes), load_some(y + at, lanes)), lanes); });
}

/// silu(g) u = u g / (1 + e^-g)
void gate_silu(float* out, const float* gate, const float* up, int64_t n) {
  for_vectors(
      n, [&](int64_t at, int64_t lanes) __attribute__((always_inline)) {
        const Floats g = load_some(gate + at, lanes);
        store_some(out + at, mul(times_sigmoid(g, g), load_some(up + at, lanes)), lanes);
      });
}

/// gelu(g) u with the tanh form: g (1 + tanh v) / 2 = g / (1 + e^-2v), v = sqrt(2 / pi) (g + 0.044715 g^3).
/// Hendrycks & Gimpel 2016, arXiv:1606.08415.
void gate_gelu(float* out, const float* gate, const float* up, int64_t n) {
  constexpr float kTwice = 1.59576912f;  // 2 sqrt(2 / pi)
  for_vectors(
      n, [&](int64_t at, int64_t lanes) __attribute__((always_inline)) {
        const Floats g = load_some(gate + at, lanes);
        const Floats inner = mul(g, fma(mul(g, g), splat(0.044715f * kTwice), splat(kTwice)));
        store_some(out + at, mul(times_sigmoid(g, inner), load_some(up + at, lanes)), lanes);
      });
}

void softcap(float* x, int64_t n, float c) {
  for_vectors(
      n, [&](int64_t at, int64_t lanes) __attribute__((always_inline)) {
        store_some(x + at, mul(splat(c), tanh_of(div(load_some(x + at, lanes), splat(c)))), lanes);
      });
}

}  // namespace

void add_row_kernels(Kernels& table) {
  table.rms_norm = rms_norm;
  table.add = add_rows;
  table.gate_silu = gate_silu;
  table.gate_gelu = gate_gelu;
  table.softcap = softcap;
}

}  // namespace minillm::cpu::MINILLM_ISA
