// rope.cpp - rotary frequencies and their scalings.
#include "model/rope.h"

#include <cmath>
#include <numbers>

#include "base/check.h"

namespace minillm {
namespace {

/// Wavelengths above original/low are stretched by `factor`, those below original/high are kept, between them the
/// frequency is blended linearly in original/wavelength.
float llama3_scaled(float frequency, const RopeScaling& scaling) {
  const float original = static_cast<float>(scaling.original_context);
  const float wavelength = 2.0f * std::numbers::pi_v<float> / frequency;
  if (wavelength < original / scaling.high_freq_factor) return frequency;
  if (wavelength > original / scaling.low_freq_factor) return frequency / scaling.factor;
  const float smooth = (original / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1.0f - smooth) * frequency / scaling.factor + smooth * frequency;
}

}  // namespace

std::vector<float> inverse_frequencies(const ModelConfig& config, RopeKind kind, std::span<const float> factors) {
  const int64_t rope_dim = config.rope_dim == 0 ? config.head_dim : config.rope_dim;
  const bool own_base = kind == RopeKind::kLocal && config.local_rope_base != 0.0f;
  const double base = own_base ? config.local_rope_base : config.rope_base;
  MINILLM_CHECK(factors.empty() || static_cast<int64_t>(factors.size()) == rope_dim / 2, factors.size(), " factors for ", rope_dim);

  std::vector<float> frequencies(static_cast<size_t>(rope_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rope_dim);
    float frequency = 1.0f / static_cast<float>(std::pow(base, static_cast<double>(exponent)));
    if (!own_base) {
      if (!factors.empty()) frequency /= factors[i];
      if (config.rope_scaling.kind == RopeScaling::Kind::kLinear) frequency /= config.rope_scaling.factor;
      if (config.rope_scaling.kind == RopeScaling::Kind::kLlama3) frequency = llama3_scaled(frequency, config.rope_scaling);
    }
    frequencies[i] = frequency;
  }
  return frequencies;
}

}  // namespace minillm
