// safetensors_file.h - one safetensors file, parsed and checked; safetensors.cpp puts models together from these.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "io/tensor_source.h"

namespace minillm {

struct SafetensorsFile {
  std::vector<SourceTensor> tensors;                 ///< In the order of their bytes.
  std::vector<std::unique_ptr<std::byte[]>> copies;  ///< Of tensors that were not aligned to their element; views borrow them.
};

/// Parses and checks `bytes` (format and rules in safetensors.h). Throws Error{kCorruptFile, kUnsupported} naming `what`, the
/// place, and what was met.
SafetensorsFile parse_safetensors(std::span<const std::byte> bytes, std::string_view what);

}  // namespace minillm
