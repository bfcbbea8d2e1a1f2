// tensor_source.cpp - typed metadata reads, and which reader opens a path.
#include "io/tensor_source.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <span>
#include <system_error>
#include <utility>

#include "io/gguf.h"
#include "io/mapped_file.h"
#include "io/printable.h"
#include "io/safetensors.h"
#include "minillm/error.h"

namespace minillm {
namespace {

std::string_view type_name(const MetadataValue& value) {
  constexpr std::array<std::string_view, std::variant_size_v<MetadataValue>> kNames{
      "a boolean", "an integer",           "an unsigned integer", "a number",
      "a string",  "an array of integers", "an array of numbers", "an array of strings"};
  return kNames[value.index()];
}

[[noreturn]] void wrong_type(const std::string& path, const std::string& key, const MetadataValue& met, std::string_view expected) {
  throw Error(ErrorCode::kCorruptFile, path, ": key ", printable(key), ": met ", type_name(met), ", expected ", expected);
}

/// The value at `key`. Throws Error{kNotFound}.
const MetadataValue& value_of(const TensorSource& source, const std::string& key) {
  const auto found = source.metadata().find(key);
  if (found == source.metadata().end()) throw Error(ErrorCode::kNotFound, source.path(), ": key ", printable(key), " is missing");
  return found->second;
}

template <typename T>
const T& value_as(const TensorSource& source, const std::string& key, std::string_view expected) {
  const MetadataValue& value = value_of(source, key);
  const T* typed = std::get_if<T>(&value);
  if (typed == nullptr) wrong_type(source.path(), key, value, expected);
  return *typed;
}

}  // namespace

const SourceTensor* TensorSource::find(std::string_view name) const noexcept {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

bool TensorSource::has(std::string_view key) const noexcept { return metadata_.find(key) != metadata_.end(); }

int64_t TensorSource::integer(const std::string& key) const {
  const MetadataValue& value = value_of(*this, key);
  if (const auto* large = std::get_if<uint64_t>(&value))
    throw Error(ErrorCode::kCorruptFile, path_, ": key ", printable(key), ": met ", *large, ", expected at most 2^63 - 1");
  return value_as<int64_t>(*this, key, "an integer");
}

int64_t TensorSource::integer(const std::string& key, int64_t fallback) const { return has(key) ? integer(key) : fallback; }

double TensorSource::number(const std::string& key) const {
  const MetadataValue& value = value_of(*this, key);
  if (const auto* integer = std::get_if<int64_t>(&value)) return static_cast<double>(*integer);
  if (const auto* large = std::get_if<uint64_t>(&value)) return static_cast<double>(*large);
  const double number = value_as<double>(*this, key, "a number");
  if (!std::isfinite(number))
    throw Error(ErrorCode::kCorruptFile, path_, ": key ", printable(key), ": met ", number, ", expected a finite number");
  return number;
}

double TensorSource::number(const std::string& key, double fallback) const { return has(key) ? number(key) : fallback; }

bool TensorSource::boolean(const std::string& key, bool fallback) const {
  return has(key) ? value_as<bool>(*this, key, "a boolean") : fallback;
}

const std::string& TensorSource::string(const std::string& key) const { return value_as<std::string>(*this, key, "a string"); }

std::string TensorSource::string(const std::string& key, const std::string& fallback) const { return has(key) ? string(key) : fallback; }

const std::vector<std::string>& TensorSource::strings(const std::string& key) const {
  return value_as<std::vector<std::string>>(*this, key, "an array of strings");
}

const std::vector<int64_t>& TensorSource::integers(const std::string& key) const {
  return value_as<std::vector<int64_t>>(*this, key, "an array of integers");
}

std::vector<double> TensorSource::numbers(const std::string& key) const {
  if (const auto* integers = std::get_if<std::vector<int64_t>>(&value_of(*this, key))) return {integers->begin(), integers->end()};
  const auto& values = value_as<std::vector<double>>(*this, key, "an array of numbers");
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i]))
      throw Error(ErrorCode::kCorruptFile, path_, ": key ", printable(key), ": element ", i, " is ", values[i],
                  ", expected a finite number");
  return values;
}

void TensorSource::add_tensor(SourceTensor tensor) {
  if (!index_.emplace(tensor.name, tensors_.size()).second)
    throw Error(ErrorCode::kCorruptFile, path_, ": tensor ", printable(tensor.name), ": occurs twice");
  tensors_.push_back(std::move(tensor));
}

void TensorSource::add_metadata(std::string key, MetadataValue value) {
  const auto [at, added] = metadata_.emplace(std::move(key), std::move(value));
  if (!added) throw Error(ErrorCode::kCorruptFile, path_, ": key ", printable(at->first), ": occurs twice");
}

namespace {

/// The GGUF file of a folder: the only one, or the first shard of the only split model.
std::string gguf_in(const std::string& folder) {
  std::vector<std::string> found;
  std::error_code error;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    const bool later_shard = name.find("-of-") != std::string::npos && name.find("-00001-of-") == std::string::npos;
    if (name.ends_with(".gguf") && !later_shard) found.push_back(at->path().string());
  }
  if (error) throw Error(ErrorCode::kNotFound, folder, ": cannot list: ", error.message());
  if (found.empty()) throw Error(ErrorCode::kNotFound, folder, ": holds neither model.safetensors, its index, nor a .gguf file");
  std::ranges::sort(found);
  if (found.size() > 1)
    throw Error(ErrorCode::kInvalidArgument, folder, ": holds ", found.size(), " models (", printable(found[0]), ", ", printable(found[1]),
                ", ...): name the file");
  return found[0];
}

}  // namespace

std::unique_ptr<TensorSource> open_tensor_source(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    const bool is_hf = fs::exists(path + "/model.safetensors", ignored) || fs::exists(path + "/model.safetensors.index.json", ignored);
    return is_hf ? open_safetensors(path) : open_gguf(gguf_in(path));
  }
  if (path.ends_with(".safetensors.index.json")) return open_safetensors(path);
  const auto start = [&] {  // What is in a file decides, not its name.
    const MappedFile file(path);
    const auto bytes = file.bytes().first(std::min<size_t>(file.bytes().size(), 16));
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }();
  const auto bytes = std::as_bytes(std::span(start.data(), start.size()));
  if (looks_like_gguf(bytes)) return open_gguf(path);
  if (looks_like_safetensors(bytes)) return open_safetensors(path);
  throw Error(ErrorCode::kUnsupported, path, ": neither GGUF nor safetensors: it starts with ", printable(start));
}

}  // namespace minillm
