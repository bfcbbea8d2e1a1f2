// safetensors_file.cpp - places the tensors of one safetensors file (format and rules in safetensors.h).
#include "io/safetensors_file.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "base/bytes.h"
#include "base/dtype.h"
#include "io/byte_reader.h"
#include "io/printable.h"
#include "io/safetensors.h"
#include "io/safetensors_header.h"

namespace minillm {
namespace {

/// The tensor's view without its place, and the size that its shape asks for.
SourceTensor to_tensor(SafetensorsEntry& entry, std::string_view what) {
  SourceTensor tensor;
  tensor.name = std::move(entry.name);
  tensor.view.dtype = *entry.dtype;
  tensor.view.rank = std::max(entry.rank, 1);
  tensor.view.shape[0] = 1;  // A scalar; overwritten if there are dimensions.
  std::optional<uint64_t> bytes = block_bytes(*entry.dtype);
  for (size_t i = 0; i < static_cast<size_t>(entry.rank); ++i) {
    bytes = checked_mul(*bytes, entry.shape[i]);
    if (!bytes || entry.shape[i] > INT64_MAX)
      throw Error(ErrorCode::kCorruptFile, what, ": tensor ", printable(tensor.name), ": dimension ", i, " of ", entry.shape[i],
                  " is above 2^63 - 1 or makes more than 2^64 bytes");
    tensor.view.shape[i] = static_cast<int64_t>(entry.shape[i]);
  }
  tensor.bytes = *bytes;
  return tensor;
}

}  // namespace

SafetensorsFile parse_safetensors(std::span<const std::byte> bytes, std::string_view what) {
  ByteReader in(bytes, what);
  std::vector<SafetensorsEntry> entries = read_safetensors_header(in);
  std::ranges::sort(entries, {}, &SafetensorsEntry::offsets);

  const auto data = in.take(in.left(), "data");
  SafetensorsFile file;
  file.tensors.reserve(entries.size());
  uint64_t end = 0;
  for (SafetensorsEntry& entry : entries) {
    const auto [from, to] = entry.offsets;
    SourceTensor tensor = to_tensor(entry, what);
    if (from != end || to < from || to > data.size())
      throw Error(ErrorCode::kCorruptFile, what, ": tensor ", printable(tensor.name), ": data_offsets [", from, ", ", to,
                  "], expected to begin at ", end, ", where the one before ends, and to end within the ", data.size(), " bytes of data");
    if (to - from != tensor.bytes)
      throw Error(ErrorCode::kCorruptFile, what, ": tensor ", printable(tensor.name), ": data_offsets [", from, ", ", to, "] hold ",
                  to - from, " bytes, its shape in ", name_of(tensor.view.dtype), " needs ", tensor.bytes);
    const std::byte* place = data.subspan(from, tensor.bytes).data();
    if (reinterpret_cast<uintptr_t>(place) % block_bytes(tensor.view.dtype) != 0 && tensor.bytes > 0) {
      file.copies.push_back(std::make_unique_for_overwrite<std::byte[]>(tensor.bytes));
      std::memcpy(file.copies.back().get(), place, tensor.bytes);
      place = file.copies.back().get();
    }
    tensor.view.data = place;
    end = to;
    file.tensors.push_back(std::move(tensor));
  }
  if (end != data.size())
    throw Error(ErrorCode::kCorruptFile, what, ": the tensors end at ", end, ", the data has ", data.size(), " bytes");
  return file;
}

bool looks_like_safetensors(std::span<const std::byte> bytes) noexcept { return bytes.size() > 8 && bytes[8] == std::byte{'{'}; }

}  // namespace minillm
