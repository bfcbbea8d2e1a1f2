// model.h - a transformer: weights on a device and the forward pass.
// Threads: one call at a time on one model.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "minillm/config.h"
#include "minillm/kv_cache.h"
#include "minillm/metrics.h"
#include "minillm/tensor.h"

namespace minillm {

struct LoadOptions {
  Device device = {};
  int n_threads = 0;                   ///< 0: every core this process may use.
  std::optional<Dtype> dtype = {};     ///< Store the weights as kF32, kF16 or kBF16; otherwise as the file has them.
  std::optional<Dtype> kv_dtype = {};  ///< Storage type of caches made for this model; otherwise the config's.
  int64_t context_length = 0;          ///< Raises or lowers the model's limit; 0 keeps it.
  int64_t flash_block_size = 0;        ///< Key tile where a call gives 0; 0 lets the device choose, once, at load.
  uint64_t seed = 0;                   ///< Of random weights.
};

struct ForwardOptions {
  KVCache* kv_cache = nullptr;        ///< Rows continue where the cache stands, and it grows. Null: the plain full-sequence call.
  bool use_flash_attention = true;    ///< false: standard attention, which stores the whole score matrix.
  int64_t flash_block_size = 0;       ///< Key tile in tokens, a power of two from 16 to 1024; 0: the model's choice.
  std::vector<int64_t> lengths = {};  ///< Valid tokens of each row, [B], the rest is right padding; empty: all S.
  bool last_logits_only = false;      ///< Logits of each row's last valid token only: [B, 1, V].
};

class MiniLLM {
 public:
  /// Random weights, the same for the same seed (normal, standard deviation 0.02; norms one).
  explicit MiniLLM(const ModelConfig& config, const LoadOptions& options = {});
  /// A GGUF file, a safetensors file or a folder of one.
  /// Throws Error{kNotFound, kCorruptFile, kUnsupported, kOutOfMemory}, naming file, field and what was expected.
  static MiniLLM load(const std::string& path, const LoadOptions& options = {});
  ~MiniLLM();
  MiniLLM(MiniLLM&&) noexcept;
  MiniLLM& operator=(MiniLLM&&) noexcept;

  /// Logits [B, S, V], float32, of input_ids [B, S] (kI32). Logits of padding are zero.
  /// Throws Error{kInvalidArgument} for ids outside the vocabulary, shapes that do not fit, a cache of another batch size,
  /// device or model; Error{kCapacity} past the context length or the cache's.
  Tensor forward(const Tensor& input_ids, const ForwardOptions& options = {});

  const ModelConfig& config() const noexcept;
  const Device& device() const noexcept;
  std::string device_description() const;
  int64_t step_rows() const;                  ///< Most new tokens a step where EngineOptions::prefill_chunk is 0.
  int64_t flash_block_size() const noexcept;  ///< What 0 was resolved to.
  int64_t weight_bytes() const noexcept;      ///< Device memory of the weights.
  /// Names the weights and the graph, 64 hexadecimal digits: a saved cache belongs to the model of the same fingerprint.
  const std::string& fingerprint() const noexcept;
  MemoryReport memory() const;
  MachinePeaks measure_peaks();  ///< What this machine reaches; takes about half a second.

  /// For the layers of this library.
  struct Impl;
  explicit MiniLLM(std::unique_ptr<Impl> impl);
  Impl& impl() noexcept { return *impl_; }
  const Impl& impl() const noexcept { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace minillm
