// safetensors.cpp - a Hugging Face model: one safetensors file or the shards of an index, and the JSON files beside them.
#include "io/safetensors.h"

#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "io/hf_config.h"
#include "io/json.h"
#include "io/limits.h"
#include "io/mapped_file.h"
#include "io/printable.h"
#include "io/safetensors_file.h"
#include "minillm/error.h"

namespace minillm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

/// The file's text; empty if there is none.
std::string optional_text(const fs::path& path, uint64_t limit) {
  return is_there(path) ? read_text_file(path.string(), limit) : std::string();
}

/// A name from an index must stay in the index's folder: one component, no separator of any system.
void check_shard_name(const std::string& name, const std::string& index) {
  if (name.find_first_of(std::string_view("/\\\0:", 4)) != std::string::npos || name.size() > 255 || !name.ends_with(".safetensors"))
    throw Error(ErrorCode::kCorruptFile, index, ": file name ", printable(name), ", expected NAME.safetensors in the same folder");
}

class SafetensorsSource final : public TensorSource {
 public:
  explicit SafetensorsSource(const std::string& path) {
    path_ = path;
    format_ = "safetensors";
    names_are_gguf_ = false;
  }

  void take(SafetensorsFile file) {
    for (SourceTensor& tensor : file.tensors) add_tensor(std::move(tensor));
    for (auto& copy : file.copies) copies_.push_back(std::move(copy));
  }
  void map(const fs::path& file) {
    mapped_.emplace_back(file.string());
    take(parse_safetensors(mapped_.back().bytes(), file.string()));
  }
  void map_shards(const fs::path& index);
  void read_config(const fs::path& folder);

  void check_unchanged() const override {
    for (const MappedFile& file : mapped_) file.check_unchanged();
  }

 private:
  std::vector<MappedFile> mapped_;
  std::vector<std::unique_ptr<std::byte[]>> copies_;
};

void SafetensorsSource::map_shards(const fs::path& index) {
  const nlohmann::json parsed = parse_json(read_text_file(index.string(), limits::kConfigBytes), index.string());
  const auto weight_map = JsonObject(parsed, index.string()).object("weight_map");
  if (!weight_map) throw Error(ErrorCode::kCorruptFile, index.string(), ": weight_map is missing");
  std::map<std::string, std::vector<std::string>> shards;  // File to the tensors it is said to hold, files in order of name.
  for (const auto& [tensor, file] : parsed["weight_map"].items()) {
    if (!file.is_string()) weight_map->wrong(printable(tensor).c_str(), file, "a file name");
    shards[file.get_ref<const std::string&>()].push_back(tensor);
  }
  if (shards.size() > limits::kShards)
    throw Error(ErrorCode::kCorruptFile, index.string(), ": ", shards.size(), " files, the limit is ", limits::kShards);
  for (const auto& [name, promised] : shards) {
    check_shard_name(name, index.string());
    const size_t before = tensors().size();
    map(index.parent_path() / name);
    for (const std::string& tensor : promised) {
      const SourceTensor* found = find(tensor);
      if (found == nullptr || found < tensors().data() + before)
        throw Error(ErrorCode::kCorruptFile, index.string(), ": tensor ", printable(tensor), " is not in ", printable(name),
                    ", where it should be");
    }
  }
}

void SafetensorsSource::read_config(const fs::path& folder) {
  if (!is_there(folder / "config.json"))
    throw Error(ErrorCode::kNotFound, (folder / "config.json").string(), ": missing beside the weights");
  HfTexts texts;
  texts.config = optional_text(folder / "config.json", limits::kConfigBytes);
  texts.generation_config = optional_text(folder / "generation_config.json", limits::kConfigBytes);
  texts.tokenizer_config = optional_text(folder / "tokenizer_config.json", limits::kConfigBytes);
  texts.chat_template = optional_text(folder / "chat_template.jinja", limits::kConfigBytes);
  for (auto& [key, value] : read_hf_config(texts, folder.string())) add_metadata(std::move(key), std::move(value));
  tokenizer_json_ = optional_text(folder / "tokenizer.json", limits::kTokenizerJsonBytes);
}

}  // namespace

std::unique_ptr<TensorSource> open_safetensors(const std::string& path) {
  auto source = std::make_unique<SafetensorsSource>(path);
  std::error_code ignored;
  fs::path file = path;
  if (fs::is_directory(file, ignored)) file = is_there(file / kSingle) ? file / kSingle : file / kIndex;
  if (!is_there(file)) throw Error(ErrorCode::kNotFound, path, ": neither ", kSingle, " nor ", kIndex, " is there");
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  source->read_config(folder);  // Before the weights: an unsupported model is refused at once.
  if (file.extension() == ".json")
    source->map_shards(file);
  else
    source->map(file);
  return source;
}

std::unique_ptr<TensorSource> read_safetensors(std::span<const std::byte> bytes, const std::string& what) {
  auto source = std::make_unique<SafetensorsSource>(what);
  source->take(parse_safetensors(bytes, what));
  return source;
}

}  // namespace minillm
