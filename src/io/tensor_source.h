// tensor_source.h - what every model file format gives: named tensors, metadata, and where they came from.
// Metadata keys and tensor names are GGUF's, also for safetensors (hf_config.h translates config.json), so that the
// layers above read one vocabulary. Only tensor names differ: `names_are_gguf` says whether they are "blk.0.attn_q.weight"
// or Hugging Face's "model.layers.0.self_attn.q_proj.weight"; model/tensor_names.cpp knows both.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/tensor_view.h"

namespace minillm {

/// A value of a file's metadata. Integers of every width are held as int64_t or, above its range, uint64_t.
using MetadataValue =
    std::variant<bool, int64_t, uint64_t, double, std::string, std::vector<int64_t>, std::vector<double>, std::vector<std::string>>;

/// Lets a map of strings be searched with a view.
struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>{}(text); }
};
using Metadata = std::unordered_map<std::string, MetadataValue, StringHash, std::equal_to<>>;

/// One tensor of a file. `view` borrows the mapped file, row-major, outermost dimension first: a product's weight is [N, K].
struct SourceTensor {
  std::string name;
  ConstTensorView view;
  uint64_t bytes = 0;
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;

  /// In file order.
  const std::vector<SourceTensor>& tensors() const noexcept { return tensors_; }
  /// Null if there is none of that name.
  const SourceTensor* find(std::string_view name) const noexcept;

  const Metadata& metadata() const noexcept { return metadata_; }
  /// Typed reads. Without a default they throw Error{kNotFound} for a missing key; a wrong type or a number out of range
  /// is Error{kCorruptFile}. Each message names the file, the key, and what was met and expected.
  bool has(std::string_view key) const noexcept;
  int64_t integer(const std::string& key) const;
  int64_t integer(const std::string& key, int64_t fallback) const;
  double number(const std::string& key) const;  ///< Finite.
  double number(const std::string& key, double fallback) const;
  bool boolean(const std::string& key, bool fallback) const;
  const std::string& string(const std::string& key) const;
  std::string string(const std::string& key, const std::string& fallback) const;
  const std::vector<std::string>& strings(const std::string& key) const;
  const std::vector<int64_t>& integers(const std::string& key) const;
  std::vector<double> numbers(const std::string& key) const;  ///< Integer arrays are widened.

  /// Throws Error{kCorruptFile} if a file changed since it was opened. A loader calls it after its last read of a view: what it
  /// copied is then known to be what was checked (mapped_file.h). A source in memory never changes.
  virtual void check_unchanged() const {}

  bool names_are_gguf() const noexcept { return names_are_gguf_; }
  /// "gguf v3" or "safetensors".
  const std::string& format() const noexcept { return format_; }
  /// The file or folder it was opened from.
  const std::string& path() const noexcept { return path_; }
  /// Text of tokenizer.json beside a safetensors model; empty where the tokenizer is in the metadata.
  const std::string& tokenizer_json() const noexcept { return tokenizer_json_; }

 protected:
  void add_tensor(SourceTensor tensor);                     ///< Throws Error{kCorruptFile} on a duplicate name.
  void add_metadata(std::string key, MetadataValue value);  ///< Throws Error{kCorruptFile} on a duplicate key.

  std::string path_, format_, tokenizer_json_;
  bool names_are_gguf_ = true;

 private:
  std::vector<SourceTensor> tensors_;
  std::unordered_map<std::string, size_t, StringHash, std::equal_to<>> index_;
  Metadata metadata_;
};

/// Opens a GGUF file (of a split model: any of its shards), a safetensors file, or a folder that holds either.
/// Throws Error{kNotFound, kCorruptFile, kUnsupported}.
std::unique_ptr<TensorSource> open_tensor_source(const std::string& path);

}  // namespace minillm
