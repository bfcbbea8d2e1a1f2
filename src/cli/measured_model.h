// measured_model.h - what the commands that measure share: a loaded model with its costs, ids to feed it, and medians.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cost_model.h"
#include "minillm/model.h"
#include "model_flags.h"

namespace minillm::cli {

struct MeasuredModel {
  MiniLLM model;
  WeightCost weights;
  std::string name;         ///< Of the file, or the shape.
  double load_seconds = 0;  ///< Of MiniLLM::load alone.
};

/// The model that -m names, or random weights of the shape `random` where that is not empty.
MeasuredModel load_measured(const ModelFlags& flags, const std::string& random);

/// What --threads means here: 0 is every core this process may use.
int threads_of(const ModelFlags& flags);

/// Steady time in seconds.
double now();

double median(std::vector<double> values);

/// rate / peak, or 0 without a peak.
double share_of(double rate, double peak);

/// Feeds rows with ids spread over the vocabulary: which ids does not matter to the speed, but embedding rows should not all be in cache.
class Feeder {
 public:
  Feeder(MiniLLM& model, bool flash, int64_t flash_block_size) : model_(model), flash_(flash), block_size_(flash_block_size) {}

  /// `n_tokens` for each row of `cache`, in passes of `chunk`. Throws Error{kCancelled} after Ctrl-C.
  void feed(KVCache& cache, int64_t n_tokens, int64_t chunk);
  /// lengths[i] tokens for row i in one pass.
  void feed_ragged(KVCache& cache, const std::vector<int64_t>& lengths);
  /// One pass over `n_tokens` of one row without a cache.
  void recompute(int64_t n_tokens);

 private:
  Tensor ids(int64_t rows, int64_t n_tokens);
  ForwardOptions options(KVCache* cache) const;

  MiniLLM& model_;
  bool flash_;
  int64_t block_size_;
  uint64_t state_ = 1;
};

}  // namespace minillm::cli
