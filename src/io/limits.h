// limits.h - what a model file may ask of us. A file past a limit is refused with an Error that names limit and value.
#pragma once

#include <cstdint>

namespace minillm::limits {

constexpr uint64_t kTensors = 100'000;                  ///< Tensors of a model; the largest published ones have about 100,000 / 2.
constexpr uint64_t kMetadataKeys = 100'000;             ///< Keys of a file's metadata.
constexpr uint64_t kArrayElements = uint64_t{1} << 24;  ///< Elements of all metadata arrays of a file (a vocabulary has 2^18).
constexpr uint64_t kKeyBytes = 65'535;                  ///< Length of a metadata key.
constexpr uint64_t kTensorNameBytes = 64;               ///< GGUF: length of a tensor's name.
constexpr uint64_t kShards = 512;                       ///< Files of one model.
constexpr int kRank = 4;                                ///< Dimensions of a tensor.

constexpr uint64_t kSafetensorsHeaderBytes = 100'000'000;     ///< As in the reference implementation.
constexpr uint64_t kSafetensorsMetadata = 100'000;            ///< Entries of __metadata__.
constexpr uint64_t kConfigBytes = uint64_t{16} << 20;         ///< config.json and its siblings, the shard index.
constexpr uint64_t kTokenizerJsonBytes = uint64_t{64} << 20;  ///< tokenizer.json.
constexpr int kJsonDepth = 64;                                ///< Nesting of a JSON file.

}  // namespace minillm::limits
