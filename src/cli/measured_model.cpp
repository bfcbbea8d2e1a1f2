// measured_model.cpp - see measured_model.h.
#include "measured_model.h"

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "minillm/error.h"
#include "minillm/file_info.h"
#include "terminal.h"

namespace minillm::cli {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double share_of(double rate, double peak) { return peak > 0 ? rate / peak : 0; }

int threads_of(const ModelFlags& flags) { return flags.threads > 0 ? flags.threads : usable_cores(); }

MeasuredModel load_measured(const ModelFlags& flags, const std::string& random) {
  if (!random.empty()) {
    const ModelConfig config = Configs::by_name(random);
    const double start = now();
    MiniLLM model(config, load_options(flags));
    const double seconds = now() - start;
    const double bytes = static_cast<double>(model.weight_bytes());
    const double embedding =
        bytes * static_cast<double>(config.vocab_size * config.hidden_size) / static_cast<double>(config.n_parameters());
    WeightCost weights = weight_cost(model.config(), bytes, embedding);
    return {std::move(model), weights, random, seconds};
  }
  const std::string path = find_model(flags);
  const FileInfo info = inspect(path);
  double embedding = 0;
  for (const TensorInfo& tensor : info.tensors)
    if (tensor.name == "token_embd.weight" || tensor.name == "model.embed_tokens.weight") embedding = static_cast<double>(tensor.bytes);
  const double start = now();
  MiniLLM model = MiniLLM::load(path, load_options(flags));
  const double seconds = now() - start;
  WeightCost weights = weight_cost(model.config(), static_cast<double>(info.tensor_bytes), embedding);
  return {std::move(model), weights, std::filesystem::path(path).filename().string(), seconds};
}

Tensor Feeder::ids(int64_t rows, int64_t n_tokens) {
  if (interrupted()) throw Error(ErrorCode::kCancelled, "interrupted");
  Tensor tensor({rows, n_tokens}, Dtype::kI32);
  for (int32_t& id : tensor.values<int32_t>()) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;  // Knuth's MMIX generator.
    id = static_cast<int32_t>((state_ >> 33) % static_cast<uint64_t>(model_.config().vocab_size));
  }
  return tensor;
}

ForwardOptions Feeder::options(KVCache* cache) const {
  return {.kv_cache = cache, .use_flash_attention = flash_, .flash_block_size = block_size_, .last_logits_only = true};
}

void Feeder::feed(KVCache& cache, int64_t n_tokens, int64_t chunk) {
  for (int64_t at = 0; at < n_tokens; at += chunk) model_.forward(ids(cache.batch_size(), std::min(chunk, n_tokens - at)), options(&cache));
}

void Feeder::feed_ragged(KVCache& cache, const std::vector<int64_t>& lengths) {
  ForwardOptions ragged = options(&cache);
  ragged.lengths = lengths;
  model_.forward(ids(cache.batch_size(), *std::max_element(lengths.begin(), lengths.end())), ragged);
}

void Feeder::recompute(int64_t n_tokens) { model_.forward(ids(1, n_tokens), options(nullptr)); }

}  // namespace minillm::cli
