// hub.h - models of the Hugging Face hub: what a repository holds, which of it is a model, and fetching that.
// Source:  GET {endpoint}/api/models/OWNER/REPO?blobs=true lists "siblings" with name, size and, for large files, SHA-256, and
//          names the commit; GET {endpoint}/OWNER/REPO/resolve/COMMIT/FILE gives a file, usually through a redirect. Files of
//          one pull are taken from one commit, so that shards fit together.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/download.h"
#include "minillm/pull.h"

namespace minillm {

struct HubFile {
  std::string name;  ///< Path in the repository.
  uint64_t size = 0;
  std::string sha256;  ///< Empty for small files, which the hub keeps in git.
};

/// "OWNER/REPO[:FILE]".
struct HubName {
  std::string repository, file;
  /// Throws Error{kInvalidArgument} for what cannot be a repository or would leave the model folder.
  static HubName parse(const std::string& text);
};

struct HubRepository {
  std::string commit;
  std::vector<HubFile> files;
};

/// Reads the hub's answer. Throws Error{kCorruptFile} for wrong JSON, a name that cannot be a path, or a size out of range.
HubRepository parse_hub_listing(const std::string& json, const std::string& what);

/// The files that make up the model: `wanted` (and its other shards), else the one GGUF file, else the best-known quantisation
/// (Q4_K_M first), else the safetensors files with configuration and tokenizer. Throws Error{kNotFound} listing the choices.
std::vector<HubFile> choose_hub_files(const HubRepository& repository, const std::string& wanted, const std::string& what);

/// Fetches the model into `folder` (locked), notes it there as whole, and returns the path to load: the first GGUF file, or the
/// folder.
std::string fetch_hub_model(const HubName& name, const std::string& folder, const DownloadLimits& limits, const PullProgress& progress);

/// The path to load of a model that was pulled into `folder` and is whole, or empty. Without a file in the name: what was pulled
/// so, or else the only model there.
std::string find_hub_model(const HubName& name, const std::string& folder);

}  // namespace minillm
