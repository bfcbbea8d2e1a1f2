// safetensors_header.h - the table at the start of a safetensors file (format and rules in safetensors.h).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/byte_reader.h"
#include "io/limits.h"
#include "minillm/types.h"

namespace minillm {

/// A tensor's entry as it stands in the header.
struct SafetensorsEntry {
  std::string name;
  std::optional<Dtype> dtype;
  std::array<uint64_t, limits::kRank> shape{};
  std::array<uint64_t, 2> offsets{};
  int rank = 0, n_offsets = 0;
  bool has_shape = false, has_offsets = false;
};

/// Reads the header at the start of `in`, which is then at the data. Checks its form: types, limits, nothing twice, nothing missing.
/// Where the tensors lie is the caller's to check. Throws Error{kCorruptFile, kUnsupported}.
std::vector<SafetensorsEntry> read_safetensors_header(ByteReader& in);

}  // namespace minillm
