// safetensors_writer.h - the bytes of safetensors files for tests, valid or not.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace minillm::test {

/// A file of any header text and any data. `length` is what the file says of its header; by default the truth.
inline std::string safetensors_bytes(std::string_view header, std::string_view data, int64_t length = -1) {
  const uint64_t n = length < 0 ? header.size() : static_cast<uint64_t>(length);
  std::string bytes(reinterpret_cast<const char*>(&n), sizeof(n));
  return bytes.append(header).append(data);
}

/// One tensor of a valid file. `dtype` as the format writes it: "F32", "BF16".
struct SafetensorsEntry {
  std::string name, dtype;
  std::vector<int64_t> shape;
  std::string data;
};

/// A valid file that holds `entries` one after another.
inline std::string safetensors_file(const std::vector<SafetensorsEntry>& entries) {
  std::string header = "{", data;
  for (const SafetensorsEntry& entry : entries) {
    if (header.size() > 1) header += ",";
    header.append("\"").append(entry.name).append("\":{\"dtype\":\"").append(entry.dtype).append("\",\"shape\":[");
    for (size_t i = 0; i < entry.shape.size(); ++i) header.append(i > 0 ? "," : "").append(std::to_string(entry.shape[i]));
    header.append("],\"data_offsets\":[").append(std::to_string(data.size())).append(",");
    data += entry.data;
    header.append(std::to_string(data.size())).append("]}");
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  return safetensors_bytes(header, data);
}

}  // namespace minillm::test
