// config_reader.h - from a file's metadata to a checked ModelConfig. Keys are GGUF's ("llama.block_count"), also for
// safetensors; the table of hyperparameters.h says which are read and what each may be.
#pragma once

#include "io/tensor_source.h"
#include "minillm/config.h"

namespace minillm {

/// Throws Error{kNotFound} for a missing key, Error{kCorruptFile} for a value out of range, Error{kUnsupported} for an
/// architecture, rope scaling or expert model that is not implemented; each names the file, the key, and what was expected.
ModelConfig read_config(const TensorSource& source);

}  // namespace minillm
