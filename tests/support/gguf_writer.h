// gguf_writer.h - makes small GGUF files for tests: metadata of every type, tensors of every type, split files; and knows where
// each field lies, so that a test can overwrite any of them.
//
//   GgufWriter writer;
//   writer.add("general.architecture", "llama").add("llama.block_count", uint32_t{2});
//   writer.random_tensor("token_embd.weight", Dtype::kQ8_0, {64, 32}, /*seed=*/1);
//   GgufImage image = writer.image();
//   image.put("tensor/token_embd.weight/dim0", uint64_t{0});   // Now it is hostile.
//   folder.write("model.gguf", image.bytes);
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "minillm/types.h"

namespace minillm::test {

/// The bytes of a GGUF file and the offset of each field in them:
///   magic  version  n_tensors  n_keys  data (the start of the tensors' bytes)
///   key/KEY/length  key/KEY/name  key/KEY/type  key/KEY/value       and in an array  key/KEY/element_type  key/KEY/count  key/KEY/elements
///   tensor/NAME/length  .../name  .../rank  .../dim0 (innermost) to dim3  .../type  .../offset  .../data
struct GgufImage {
  std::string bytes;
  std::map<std::string, size_t> fields;

  size_t at(const std::string& field) const {
    const auto found = fields.find(field);
    if (found == fields.end()) throw std::out_of_range("no such field: " + field);
    return found->second;
  }
  /// Overwrites the field with `value`, as wide as its type.
  template <typename T>
  GgufImage& put(const std::string& field, T value) {
    static_assert(std::is_arithmetic_v<T>);
    if (at(field) + sizeof(T) > bytes.size()) throw std::out_of_range("field past the end: " + field);
    std::memcpy(bytes.data() + at(field), &value, sizeof(T));
    return *this;
  }
  std::span<const std::byte> span() const { return std::as_bytes(std::span(bytes.data(), bytes.size())); }
};

/// GGUF's number for the type of a metadata value, by its C++ type.
template <typename T>
constexpr uint32_t gguf_type() {
  if constexpr (std::is_same_v<T, uint8_t>)
    return 0;
  else if constexpr (std::is_same_v<T, int8_t>)
    return 1;
  else if constexpr (std::is_same_v<T, uint16_t>)
    return 2;
  else if constexpr (std::is_same_v<T, int16_t>)
    return 3;
  else if constexpr (std::is_same_v<T, uint32_t>)
    return 4;
  else if constexpr (std::is_same_v<T, int32_t>)
    return 5;
  else if constexpr (std::is_same_v<T, float>)
    return 6;
  else if constexpr (std::is_same_v<T, bool>)
    return 7;
  else if constexpr (std::is_same_v<T, std::string>)
    return 8;
  else if constexpr (std::is_same_v<T, uint64_t>)
    return 10;
  else if constexpr (std::is_same_v<T, int64_t>)
    return 11;
  else {
    static_assert(std::is_same_v<T, double>);
    return 12;
  }
}
constexpr uint32_t kGgufArray = 9;

class GgufWriter {
 public:
  explicit GgufWriter(uint32_t version = 3) : version_(version) {}

  /// Adds a key. `value` is a number of exactly the wanted width (uint32_t{2}, 1e-5f), a bool, text, or a std::vector of these.
  /// "general.alignment" as uint32_t also changes the layout. Keys may repeat: the file is then invalid.
  template <typename T>
  GgufWriter& add(const std::string& key, const T& value) {
    if constexpr (std::is_convertible_v<T, std::string>)
      return add_bytes(key, gguf_type<std::string>(), encode(std::string(value)));
    else
      return add_bytes(key, gguf_type<T>(), encode(value));
  }
  template <typename T>
  GgufWriter& add(const std::string& key, const std::vector<T>& values) {
    std::string bytes = encode(gguf_type<T>()) + encode(uint64_t{values.size()});
    for (size_t i = 0; i < values.size(); ++i) bytes += encode(static_cast<const T&>(values[i]));  // By index: vector<bool>.
    return add_bytes(key, kGgufArray, std::move(bytes));
  }
  /// Adds a key with any type number and any bytes as its value.
  GgufWriter& add_bytes(const std::string& key, uint32_t type, std::string value);

  /// Adds a tensor; `shape` is row-major, outermost first, and `data` its bytes.
  GgufWriter& tensor(const std::string& name, Dtype dtype, std::vector<int64_t> shape, std::string data);
  /// Adds a tensor of random values (tensor_bytes).
  GgufWriter& random_tensor(const std::string& name, Dtype dtype, std::vector<int64_t> shape, uint64_t seed, double spread = 1.0);

  GgufImage image() const;
  /// The same model cut into `n` shards with as even a number of tensors as can be; metadata in the first.
  std::vector<GgufImage> split(int n) const;
  /// The name of shard `index` (from 0) of `n`: "STEM-00001-of-0000N.gguf".
  static std::string shard_name(const std::string& stem, int index, int n);

 private:
  struct Key {
    std::string name;
    uint32_t type;
    std::string value;
  };
  struct TensorRecord {
    std::string name;
    Dtype dtype;
    std::vector<int64_t> shape;
    std::string data;
  };
  template <typename T>
  static std::string encode(const T& value) {
    static_assert(std::is_arithmetic_v<T>);
    return std::string(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  static std::string encode(const std::string& text) { return encode(uint64_t{text.size()}) + text; }
  GgufImage build(const std::vector<Key>& keys, std::span<const TensorRecord> tensors) const;

  uint32_t version_;
  uint32_t alignment_ = 32;
  std::vector<Key> keys_;
  std::vector<TensorRecord> tensors_;
};

/// GGUF's number for a tensor type.
uint32_t gguf_tensor_type(Dtype dtype);

/// `n_rows` rows of `n` random elements in `dtype`, valid in every bit pattern: floats are normal with standard deviation `spread`;
/// the quants of a block format are uniform, its scales such that the weights have roughly that deviation.
std::string tensor_bytes(Dtype dtype, int64_t n_rows, int64_t n, uint64_t seed, double spread = 1.0);

}  // namespace minillm::test
