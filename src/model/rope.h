// rope.h - inverse rotary frequencies, as Hugging Face computes them in float32.
// Sources: Su et al. 2021, arXiv:2104.09864; Llama 3.1's scaling: Grattafiori et al. 2024, arXiv:2407.21783, section 3.4.3.
#pragma once

#include <span>
#include <vector>

#include "minillm/config.h"

namespace minillm {

/// Global layers turn by rope_base and are scaled; sliding layers turn by local_rope_base where the config has one.
enum class RopeKind : uint8_t { kGlobal, kLocal };

/// [R/2]: base^(-2i/R), then scaled. `factors` [R/2] or empty: divisors that a file states instead of a formula.
std::vector<float> inverse_frequencies(const ModelConfig& config, RopeKind kind, std::span<const float> factors);

}  // namespace minillm
