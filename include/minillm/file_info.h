// file_info.h - what is in a model file, without loading it, and how much memory running it needs.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "minillm/config.h"
#include "minillm/types.h"

namespace minillm {

struct TensorInfo {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;  ///< Row-major: [N, K] for a product's weight.
  uint64_t bytes = 0;
};

struct FileInfo {
  std::string path, format;
  ModelConfig config;
  std::vector<std::pair<std::string, std::string>> metadata;  ///< Sorted by key; long values shortened, control bytes escaped.
  std::vector<TensorInfo> tensors;
  uint64_t tensor_bytes = 0;
};

/// Throws as MiniLLM::load does for a file that cannot be read.
FileInfo inspect(const std::string& path);

/// Bytes that a model needs: weights as the CPU packs them, cache for `batch` rows of `context` tokens, scratch of a step of as many rows
/// as the device takes at once.
struct MemoryPlan {
  int64_t weights = 0, kv_cache = 0, workspace = 0;
  int64_t total() const noexcept { return weights + kv_cache + workspace; }
};
MemoryPlan plan_memory(const FileInfo& info, int64_t context, int64_t batch, Dtype kv_dtype, Device device = {});

}  // namespace minillm
