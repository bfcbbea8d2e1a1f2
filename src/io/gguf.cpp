// gguf.cpp - a GGUF model: one file, or the shards of a split one.
#include "io/gguf.h"

#include <cstdio>
#include <optional>
#include <utility>

#include "io/gguf_file.h"
#include "io/limits.h"
#include "io/mapped_file.h"
#include "minillm/error.h"

namespace minillm {
namespace {

constexpr const char* kSplitNo = "split.no";
constexpr const char* kSplitCount = "split.count";
constexpr const char* kSplitTensors = "split.tensors.count";

/// The integer at `key`; none if the key is absent. Throws Error{kCorruptFile} if it is no integer from 0 to 2^31 - 1.
std::optional<int64_t> small_integer(const GgufFile& file, const std::string& what, const char* key) {
  const auto found = file.metadata.find(key);
  if (found == file.metadata.end()) return std::nullopt;
  const auto* value = std::get_if<int64_t>(&found->second);
  if (value == nullptr || *value < 0 || *value > INT32_MAX)
    throw Error(ErrorCode::kCorruptFile, what, ": key '", key, "': expected an integer from 0 to 2^31 - 1");
  return *value;
}

/// "-00002-of-00005.gguf" for index 1 of 5.
std::string shard_suffix(int64_t index, int64_t count) {
  char text[64];
  std::snprintf(text, sizeof(text), "-%05lld-of-%05lld.gguf", static_cast<long long>(index) + 1, static_cast<long long>(count));
  return text;
}

/// A shard's own keys must agree with its place and with the shard that was opened.
void check_shard(const GgufFile& shard, const std::string& path, int64_t index, int64_t count, std::optional<int64_t> n_tensors) {
  const auto met_index = small_integer(shard, path, kSplitNo), met_count = small_integer(shard, path, kSplitCount);
  if (met_index != index || met_count != count)
    throw Error(ErrorCode::kCorruptFile, path, ": says that it is shard ", met_index.value_or(-1), " (from 0) of ", met_count.value_or(-1),
                ", expected ", index, " of ", count);
  if (small_integer(shard, path, kSplitTensors) != n_tensors)
    throw Error(ErrorCode::kCorruptFile, path, ": key 'split.tensors.count': differs from the other shards'");
}

class GgufSource final : public TensorSource {
 public:
  explicit GgufSource(const std::string& path) { path_ = path; }

  void take(GgufFile file) {
    take_metadata(file);
    take_tensors(file);
  }
  /// Maps and parses the file at path_ and, if it is a shard, its siblings.
  void open();
  void check_unchanged() const override {
    for (const MappedFile& file : mapped_) file.check_unchanged();
  }

 private:
  GgufFile map(const std::string& path) {
    mapped_.emplace_back(path);
    return parse_gguf(mapped_.back().bytes(), path);
  }
  void take_metadata(GgufFile& file) {
    format_ = "gguf v" + std::to_string(file.version);
    while (!file.metadata.empty()) {
      auto pair = file.metadata.extract(file.metadata.begin());
      add_metadata(std::move(pair.key()), std::move(pair.mapped()));
    }
  }
  void take_tensors(GgufFile& file) {
    for (SourceTensor& tensor : file.tensors) add_tensor(std::move(tensor));
  }
  void check_same_model(const GgufFile& shard, const std::string& path) const;
  void open_shards(const GgufFile& opened, int64_t count);

  std::vector<MappedFile> mapped_;
};

void GgufSource::open() {
  GgufFile file = map(path_);
  const int64_t count = small_integer(file, path_, kSplitCount).value_or(1);
  if (count <= 1) return take(std::move(file));
  mapped_.clear();
  open_shards(file, count);
}

/// Shards after the first need no metadata but their own; what they repeat of a model's identity must be the first's.
void GgufSource::check_same_model(const GgufFile& shard, const std::string& path) const {
  for (const char* key : {"general.architecture", "general.name"}) {
    const auto repeated = shard.metadata.find(key), first = metadata().find(key);
    if (repeated != shard.metadata.end() && (first == metadata().end() || first->second != repeated->second))
      throw Error(ErrorCode::kCorruptFile, path, ": key '", key, "': differs from the first shard's: is this another model's shard?");
  }
}

void GgufSource::open_shards(const GgufFile& opened, int64_t count) {
  if (count > static_cast<int64_t>(limits::kShards))
    throw Error(ErrorCode::kCorruptFile, path_, ": key 'split.count': met ", count, ", the limit is ", limits::kShards);
  const int64_t own_index = small_integer(opened, path_, kSplitNo).value_or(-1);
  const std::string suffix = own_index < 0 ? "" : shard_suffix(own_index, count);
  if (own_index < 0 || own_index >= count || !path_.ends_with(suffix))
    throw Error(ErrorCode::kCorruptFile, path_, ": says that it is shard ", own_index, " (from 0) of ", count,
                "; a shard's name ends in -0000I-of-0000N.gguf with these numbers, I from 1");
  const std::string stem = path_.substr(0, path_.size() - suffix.size());
  const auto n_expected = small_integer(opened, path_, kSplitTensors);
  for (int64_t i = 0; i < count; ++i) {
    const std::string path = stem + shard_suffix(i, count);
    GgufFile shard = map(path);
    check_shard(shard, path, i, count, n_expected);
    if (i == 0)
      take_metadata(shard);
    else
      check_same_model(shard, path);
    take_tensors(shard);
  }
  if (n_expected && *n_expected != static_cast<int64_t>(tensors().size()))
    throw Error(ErrorCode::kCorruptFile, path_, ": key 'split.tensors.count': ", *n_expected, " tensors expected, the ", count,
                " shards hold ", tensors().size());
}

}  // namespace

std::unique_ptr<TensorSource> open_gguf(const std::string& path) {
  auto source = std::make_unique<GgufSource>(path);
  source->open();
  return source;
}

std::unique_ptr<TensorSource> read_gguf(std::span<const std::byte> bytes, const std::string& what) {
  GgufFile file = parse_gguf(bytes, what);
  if (small_integer(file, what, kSplitCount).value_or(1) > 1)
    throw Error(ErrorCode::kUnsupported, what, ": a shard of a split model, which cannot be read from memory");
  auto source = std::make_unique<GgufSource>(what);
  source->take(std::move(file));
  return source;
}

}  // namespace minillm
