// hub.cpp - see hub.h.
#include "io/hub.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string_view>

#include "io/mapped_file.h"
#include "io/part_file.h"
#include "io/printable.h"
#include "io/url_policy.h"
#include "minillm/error.h"

namespace minillm {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr uint64_t kMaxListing = uint64_t{64} << 20;
constexpr uint64_t kMaxFileBytes = uint64_t{4} << 40;
constexpr size_t kMaxFiles = 100'000;

std::string environment(const char* name, const char* fallback) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? fallback : value;
}

/// The token goes into a header: nothing but visible characters.
std::string access_token() {
  const std::string token = environment("HF_TOKEN", "");
  if (std::any_of(token.begin(), token.end(), [](char c) { return c <= ' ' || c > '~'; }))
    throw Error(ErrorCode::kInvalidArgument, "HF_TOKEN holds characters that no token has (a line end, perhaps)");
  return token;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

/// A path with everything but unreserved characters and slashes as %XX (RFC 3986, section 2.3).
std::string url_path(const std::string& path) {
  std::string out;
  for (const char c : path) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("-._~/").find(c) != std::string_view::npos;
    if (plain) {
      out += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out += '%';
    out += "0123456789ABCDEF"[byte >> 4];
    out += "0123456789ABCDEF"[byte & 15];
  }
  return out;
}

/// Of "model-00002-of-00005.gguf" the part before the numbers and the count; nothing for other names.
std::optional<std::pair<std::string, std::string>> split_name(const std::string& name) {
  constexpr size_t kTail = std::string_view("-00001-of-00005.gguf").size();
  if (name.size() <= kTail || !name.ends_with(".gguf")) return std::nullopt;
  const std::string tail = name.substr(name.size() - kTail);
  const auto digits = [&](size_t at) {
    return std::all_of(tail.begin() + static_cast<std::ptrdiff_t>(at), tail.begin() + static_cast<std::ptrdiff_t>(at + 5),
                       [](char c) { return c >= '0' && c <= '9'; });
  };
  if (tail[0] != '-' || tail.compare(6, 4, "-of-") != 0 || !digits(1) || !digits(10)) return std::nullopt;
  return std::pair(name.substr(0, name.size() - kTail), tail.substr(10, 5));
}

/// `first` and, where it is a shard, the others in order.
std::vector<HubFile> with_shards(const std::vector<HubFile>& files, const HubFile& first) {
  const auto split = split_name(first.name);
  if (!split) return {first};
  std::vector<HubFile> shards;
  for (const HubFile& file : files)
    if (split_name(file.name) == split) shards.push_back(file);
  std::sort(shards.begin(), shards.end(), [](const HubFile& a, const HubFile& b) { return a.name < b.name; });
  return shards;
}

bool is_first_shard_or_whole(const std::string& name) { return !split_name(name) || name.find("-00001-of-") != std::string::npos; }

std::vector<HubFile> gguf_files(const HubRepository& repository) {
  std::vector<HubFile> found;
  for (const HubFile& file : repository.files) {
    const std::string name = lower(file.name);
    const bool vision = name.find("mmproj") != std::string::npos;  // The image encoder that goes beside a model.
    if (name.ends_with(".gguf") && !vision && is_first_shard_or_whole(file.name)) found.push_back(file);
  }
  std::sort(found.begin(), found.end(), [](const HubFile& a, const HubFile& b) { return a.name < b.name; });
  return found;
}

/// The index with its shards, or the one file, with what the loader reads beside them.
std::vector<HubFile> safetensors_set(const HubRepository& repository) {
  constexpr std::array<std::string_view, 9> kBeside{
      "config.json",         "generation_config.json",       "tokenizer.json",  "tokenizer_config.json", "special_tokens_map.json",
      "chat_template.jinja", "model.safetensors.index.json", "tokenizer.model", "added_tokens.json"};
  std::vector<HubFile> weights, beside;
  bool whole = false;
  for (const HubFile& file : repository.files) whole = whole || file.name == "model.safetensors";
  for (const HubFile& file : repository.files) {
    const bool shard = file.name.starts_with("model-") && file.name.ends_with(".safetensors") && file.name.find('/') == std::string::npos;
    if (whole ? file.name == "model.safetensors" : shard) weights.push_back(file);
    if (std::find(kBeside.begin(), kBeside.end(), file.name) != kBeside.end()) beside.push_back(file);
  }
  if (weights.empty()) return {};
  beside.insert(beside.end(), weights.begin(), weights.end());  // Weights last: where they are, the rest is, too.
  return beside;
}

std::string names_of(const std::vector<HubFile>& files) {
  std::string names;
  for (size_t i = 0; i < std::min<size_t>(files.size(), 20); ++i) names += (i > 0 ? ", " : "") + printable(files[i].name);
  return files.size() > 20 ? names + ", ..." : names;
}

uint64_t checked_size(const Json& value, const std::string& what) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > kMaxFileBytes)
    throw Error(ErrorCode::kCorruptFile, what, ": a file size is ", printable(value.dump()));
  return value.get<uint64_t>();
}

/// What was pulled into a folder, from the file .pulled in it: FILE of the name that was asked for, then the path to load inside
/// the folder (empty for the folder itself), one pair a line with a tab between. Neither holds control bytes.
using Pulled = std::map<std::string, std::string>;

Pulled read_pulled(const std::string& folder) {
  Pulled pulled;
  if (!fs::exists(folder + "/.pulled")) return pulled;
  std::istringstream lines(read_text_file(folder + "/.pulled", 1 << 20));
  for (std::string line; std::getline(lines, line);)
    if (const size_t tab = line.find('\t'); tab != std::string::npos) pulled[line.substr(0, tab)] = line.substr(tab + 1);
  return pulled;
}

void write_pulled(const std::string& folder, const Pulled& pulled) {
  std::string text;
  for (const auto& [file, path] : pulled) text += file + "\t" + path + "\n";
  write_whole_file(folder + "/.pulled", text);
}

}  // namespace

HubName HubName::parse(const std::string& text) {
  const size_t colon = text.find(':');
  HubName name{text.substr(0, colon), colon == std::string::npos ? "" : text.substr(colon + 1)};
  check_path_components(name.repository, printable(text));
  if (std::count(name.repository.begin(), name.repository.end(), '/') != 1)
    throw Error(ErrorCode::kInvalidArgument, printable(text), ": expected OWNER/REPO or OWNER/REPO:FILE");
  if (colon != std::string::npos) check_path_components(name.file, printable(text));
  return name;
}

HubRepository parse_hub_listing(const std::string& text, const std::string& what) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("siblings") || !json["siblings"].is_array())
    throw Error(ErrorCode::kCorruptFile, what, ": the hub's answer is not a list of files");
  HubRepository repository;
  repository.commit = json.contains("sha") && json["sha"].is_string() ? json["sha"].get<std::string>() : "main";
  check_path_components(repository.commit, what + ": commit");
  if (json["siblings"].size() > kMaxFiles)
    throw Error(ErrorCode::kCorruptFile, what, ": ", json["siblings"].size(), " files, at most ", kMaxFiles, " are read");
  for (const Json& entry : json["siblings"]) {
    if (!entry.is_object() || !entry.contains("rfilename") || !entry["rfilename"].is_string())
      throw Error(ErrorCode::kCorruptFile, what, ": a file has no name");
    HubFile file{.name = entry["rfilename"].get<std::string>(), .size = 0, .sha256 = ""};
    if (file.name.starts_with(".") && !file.name.starts_with("..")) continue;  // .gitattributes and such.
    check_path_components(file.name, what);
    if (entry.contains("size") && !entry["size"].is_null()) file.size = checked_size(entry["size"], what);
    if (entry.contains("lfs") && entry["lfs"].is_object()) {
      const Json& lfs = entry["lfs"];
      if (lfs.contains("sha256") && lfs["sha256"].is_string()) file.sha256 = lower(lfs["sha256"].get<std::string>());
      if (lfs.contains("size")) file.size = checked_size(lfs["size"], what);
    }
    repository.files.push_back(std::move(file));
  }
  return repository;
}

std::vector<HubFile> choose_hub_files(const HubRepository& repository, const std::string& wanted, const std::string& what) {
  const std::vector<HubFile> ggufs = gguf_files(repository);
  if (!wanted.empty()) {
    for (const HubFile& file : repository.files)
      if (file.name == wanted) return with_shards(repository.files, file);
    throw Error(ErrorCode::kNotFound, what, ": no file ", printable(wanted), " there; there are ",
                names_of(ggufs.empty() ? repository.files : ggufs));
  }
  if (ggufs.size() == 1) return with_shards(repository.files, ggufs[0]);
  // Best first: small enough to be quick, good enough that few notice.
  for (const std::string_view kind : {"q4_k_m", "q4_k_s", "q4_0", "q4_1", "q5_k_m", "q5_k_s", "q6_k", "q8_0", "bf16", "f16", "f32"})
    for (const HubFile& file : ggufs)
      if (lower(file.name).find(kind) != std::string::npos) return with_shards(repository.files, file);
  if (!ggufs.empty()) throw Error(ErrorCode::kNotFound, what, ": which file? OWNER/REPO:FILE takes one of ", names_of(ggufs));
  std::vector<HubFile> set = safetensors_set(repository);
  if (set.empty()) throw Error(ErrorCode::kNotFound, what, ": no GGUF or safetensors model there; there are ", names_of(repository.files));
  return set;
}

std::string fetch_hub_model(const HubName& name, const std::string& folder, const DownloadLimits& limits, const PullProgress& progress) {
  std::string endpoint = environment("HF_ENDPOINT", "https://huggingface.co");
  while (endpoint.ends_with("/")) endpoint.pop_back();
  const std::string token = access_token();
  const auto keep_going = [&](uint64_t done) { return !progress || progress("asking the hub", done, 0); };
  const std::string listing =
      download_text(endpoint + "/api/models/" + url_path(name.repository) + "?blobs=true", token, kMaxListing, limits, keep_going);
  const HubRepository repository = parse_hub_listing(listing, name.repository);
  const std::vector<HubFile> files = choose_hub_files(repository, name.file, name.repository);
  uint64_t missing = 0;
  for (const HubFile& file : files) missing += fs::exists(folder + "/" + file.name) ? 0 : file.size;
  require_space(folder, missing);
  for (const HubFile& file : files) {
    const std::string path = folder + "/" + file.name;
    std::error_code error;
    if (fs::file_size(path, error) == file.size && !error) continue;
    make_folders(fs::path(path).parent_path().string());
    const Download download{
        .url = endpoint + "/" + url_path(name.repository) + "/resolve/" + url_path(repository.commit) + "/" + url_path(file.name),
        .token = token,
        .sha256 = file.sha256,
        .size = file.size};
    download_file(download, path, limits, [&](uint64_t done) { return !progress || progress(file.name, done, file.size); });
  }
  const auto first =
      std::find_if(files.begin(), files.end(), [&](const HubFile& file) { return name.file.empty() || file.name == name.file; });
  const std::string loadable = first->name.ends_with(".gguf") ? first->name : "";
  Pulled pulled = read_pulled(folder);
  pulled[name.file] = loadable;
  write_pulled(folder, pulled);
  return loadable.empty() ? folder : folder + "/" + loadable;
}

std::string find_hub_model(const HubName& name, const std::string& folder) {
  const Pulled pulled = read_pulled(folder);
  auto found = pulled.find(name.file);
  if (found == pulled.end() && name.file.empty() && pulled.size() == 1) found = pulled.begin();
  if (found == pulled.end()) return "";
  const std::string path = found->second.empty() ? folder : folder + "/" + found->second;
  return fs::exists(path) ? path : "";
}

}  // namespace minillm
