// fingerprint.h - a name for "these weights, this graph": keys and values saved under one fingerprint may only meet the same again.
// SHA-256 over the config (without the context length and the cache's dtype, which do not change a key), the dtype that weights are
// converted to, and each tensor's name, dtype, shape and two samples of 4 KiB: milliseconds, and any training changes every sample.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "io/tensor_source.h"
#include "minillm/config.h"

namespace minillm {

/// 64 hexadecimal digits.
std::string fingerprint_of(const ModelConfig& config, const TensorSource& source, std::optional<Dtype> convert_to);
/// Of random weights.
std::string fingerprint_of(const ModelConfig& config, uint64_t seed, std::optional<Dtype> convert_to);

}  // namespace minillm
