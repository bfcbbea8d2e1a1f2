// gguf_file.h - one GGUF file, parsed and checked; gguf.cpp puts the shards of a model together from these.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "io/tensor_source.h"

namespace minillm {

struct GgufFile {
  uint32_t version = 0;
  Metadata metadata;
  std::vector<SourceTensor> tensors;  ///< In file order; views borrow the parsed bytes.
};

/// Parses and checks `bytes` (format in gguf.h). Throws Error{kCorruptFile, kUnsupported} naming `what`, the place, and what was met.
GgufFile parse_gguf(std::span<const std::byte> bytes, std::string_view what);

}  // namespace minillm
