// attention_rows.cpp - what happens to keys and values before attention: bias, norm, rotation, and the storage of one token.
//   norm:      y = x / sqrt(mean(x^2) + eps) * w over the head (RMSNorm, arXiv:1910.07467; Qwen 3 and Gemma 3 norm q and k)
//   rotation:  (a, b) -> (a cos - b sin, a sin + b cos) for each pair of the first rope_dim elements (RoPE, arXiv:2104.09864)
#include "backend/cpu/isa/attention_math.h"
#include "backend/cpu/isa/attention_tables.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

/// Sum of squares in kWidth lanes, then in order; the tail last.
float mean_square(const float* x, int64_t n) {
  Vec sums = zero();
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) sums = fma(load(x + i), load(x + i), sums);
  float lanes[kWidth], total = 0.0f;
  store(lanes, sums);
  for (float lane : lanes) total += lane;
  for (; i < n; ++i) total += x[i] * x[i];
  return total / static_cast<float>(n);
}

/// (a, b), which may lie where they are read: (x, y) rotated.
MINILLM_INLINE void rotate_pair(float& a, float& b, float x, float y, float cosine, float sine) {
  a = x * cosine - y * sine;
  b = x * sine + y * cosine;
}

/// out = x rotated; they may be the same.
void rotate_halves(float* out, const float* x, const float* cosines, const float* sines, int64_t half) {
  int64_t i = 0;
  for (; i + kWidth <= half; i += kWidth) {
    const Vec a = load(x + i), b = load(x + half + i), cosine = load(cosines + i), sine = load(sines + i);
    store(out + i, sub(mul(a, cosine), mul(b, sine)));
    store(out + half + i, add(mul(a, sine), mul(b, cosine)));
  }
  for (; i < half; ++i) rotate_pair(out[i], out[half + i], x[i], x[half + i], cosines[i], sines[i]);
}

/// The same for pairs of neighbours.
void rotate_neighbours(float* out, const float* x, const float* cosines, const float* sines, int64_t half) {
  int64_t i = 0;
  for (; i + kWidth <= half; i += kWidth) {
    const Vec cosine = load(cosines + i), sine = load(sines + i), minus_sine = sub(zero(), sine);
    const Vec a = load(x + 2 * i), b = load(x + 2 * i + kWidth);
    store(out + 2 * i, add(mul(a, interleave_first(cosine, cosine)), mul(swap_neighbours(a), interleave_first(minus_sine, sine))));
    store(out + 2 * i + kWidth, add(mul(b, interleave_last(cosine, cosine)), mul(swap_neighbours(b), interleave_last(minus_sine, sine))));
  }
  for (; i < half; ++i) rotate_pair(out[2 * i], out[2 * i + 1], x[2 * i], x[2 * i + 1], cosines[i], sines[i]);
}

/// out = x, or x + bias.
void copy_head(float* out, const float* x, const float* bias, int64_t n) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(out + i, bias == nullptr ? load(x + i) : add(load(x + i), load(bias + i)));
  for (; i < n; ++i) out[i] = bias == nullptr ? x[i] : x[i] + bias[i];
}

void scale_head(float* x, float scale, const float* weight, int64_t n) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(x + i, mul(mul(load(x + i), broadcast(scale)), load(weight + i)));
  for (; i < n; ++i) x[i] = x[i] * scale * weight[i];
}

template <typename Element>
void widen(float* to, const void* from, int64_t n) {
  const Element* elements = static_cast<const Element*>(from);
  for (int64_t i = 0; i < n; i += kWidth) store(to + i, load(elements + i));
}

template <typename Element>
void narrow(void* to, const float* from, int64_t n) {
  Element* elements = static_cast<Element*>(to);
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(elements + i, load(from + i));
  if (i == n) return;
  float rest[kWidth] = {};
  Element narrowed[kWidth];
  for (int64_t j = i; j < n; ++j) rest[j - i] = from[j];
  store(narrowed, load(rest));
  for (int64_t j = i; j < n; ++j) elements[j] = narrowed[j - i];
}

template <typename Element>
void store_key(void* panel, int64_t slot, const float* k, int64_t head_dim) {
  Element* column = static_cast<Element*>(panel) + slot;
  Element narrowed[kWidth];
  for (int64_t d = 0; d < head_dim; d += kWidth) {
    const int64_t n = head_dim - d < kWidth ? head_dim - d : kWidth;
    narrow<Element>(narrowed, k + d, n);
    for (int64_t i = 0; i < n; ++i) column[(d + i) * kKeyPanel] = narrowed[i];
  }
}

}  // namespace

void prepare_head(float* out, const HeadInput& head) {
  const int64_t n = head.head_dim, half = head.rope_dim / 2;
  const auto rotate = head.interleaved ? rotate_neighbours : rotate_halves;
  if (head.angles != nullptr && head.bias == nullptr && head.norm == nullptr && head.rope_dim == n)  // The usual case in one pass.
    return rotate(out, head.x, head.angles, head.angles + half, half);
  copy_head(out, head.x, head.bias, n);
  if (head.norm != nullptr) {
    const float scale = 1.0f / __builtin_sqrtf(mean_square(out, n) + head.norm_eps);
    scale_head(out, scale, head.norm, n);
  }
  if (head.angles == nullptr) return;
  rotate(out, out, head.angles, head.angles + half, half);
}

void pack_panel(float* panel, const float* k, int64_t k_stride, int64_t n_keys, int64_t head_dim) {
  for (int64_t d = 0; d < head_dim; ++d) {
    for (int64_t s = 0; s < n_keys; ++s) panel[d * kKeyPanel + s] = k[s * k_stride + d];
    for (int64_t s = n_keys; s < kKeyPanel; ++s) panel[d * kKeyPanel + s] = 0.0f;
  }
}

void add_conversions(AttentionKernels& kernels) noexcept {
  const auto add_element = [&kernels]<typename Element>(KvElement element) {
    const auto i = static_cast<int>(element);
    kernels.widen[i] = widen<Element>;
    kernels.narrow[i] = narrow<Element>;
    kernels.store_key[i] = store_key<Element>;
  };
  add_element.template operator()<float>(KvElement::kF32);
  add_element.template operator()<F16>(KvElement::kF16);
  add_element.template operator()<BF16>(KvElement::kBF16);
  add_element.template operator()<F8>(KvElement::kF8);
}

}  // namespace minillm::cpu::MINILLM_ISA
