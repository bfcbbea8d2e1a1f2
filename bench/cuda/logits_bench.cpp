// logits_bench.cpp - what prefill in 16 bit costs: logits of every token of a prompt on the GPU, in one step and in steps of 64 rows
// (whose inputs are two bf16 terms), beside the CPU's with a float32 cache. Usage: logits_bench SHAPE TOKENS; random weights in bf16.
// One JSON line a way: mean and largest Kullback-Leibler divergence, error of the logits relative to their spread.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "minillm/error.h"
#include "minillm/kv_cache.h"
#include "minillm/model.h"

namespace {

using namespace minillm;

std::vector<float> logits_of(MiniLLM& model, const std::vector<TokenId>& ids, int64_t chunk) {
  KVCache cache(model.config(), {.device = model.device()});
  std::vector<float> all;
  for (size_t at = 0; at < ids.size(); at += static_cast<size_t>(chunk)) {
    const size_t n = std::min(ids.size() - at, static_cast<size_t>(chunk));
    const std::vector<TokenId> part(ids.begin() + static_cast<ptrdiff_t>(at), ids.begin() + static_cast<ptrdiff_t>(at + n));
    const Tensor logits = model.forward(Tensor::from_ids({part}), {.kv_cache = &cache});
    const auto* values = static_cast<const float*>(logits.data());
    all.insert(all.end(), values, values + logits.n_elements());
  }
  return all;
}

void compare(const char* name, const std::string& shape, const std::vector<float>& want, const std::vector<float>& got, int64_t vocab) {
  double worst = 0, sum = 0, errors = 0, squares = 0, mean = 0;
  int64_t same = 0;
  const auto n_rows = static_cast<int64_t>(want.size()) / vocab;
  for (const float x : want) mean += static_cast<double>(x) / static_cast<double>(want.size());
  for (int64_t row = 0; row < n_rows; ++row) {
    const float *p = want.data() + row * vocab, *q = got.data() + row * vocab;
    double p_sum = 0, q_sum = 0, kl = 0;
    for (int64_t i = 0; i < vocab; ++i) p_sum += std::exp(static_cast<double>(p[i])), q_sum += std::exp(static_cast<double>(q[i]));
    for (int64_t i = 0; i < vocab; ++i) {
      const double a = static_cast<double>(p[i]) - std::log(p_sum), b = static_cast<double>(q[i]) - std::log(q_sum);
      kl += std::exp(a) * (a - b);
      const double error = static_cast<double>(p[i]) - static_cast<double>(q[i]), spread = static_cast<double>(p[i]) - mean;
      errors += error * error;
      squares += spread * spread;
    }
    same += std::max_element(p, p + vocab) - p == std::max_element(q, q + vocab) - q;
    worst = std::max(worst, kl);
    sum += kl;
  }
  std::printf(
      "{\"test\":\"logits\",\"model\":\"%s\",\"way\":\"%s\",\"tokens\":%lld,\"mean_kl\":%.3g,\"max_kl\":%.3g,\"relative_error\":%.3g,"
      "\"same_choice\":%.4f}\n",
      shape.c_str(), name, static_cast<long long>(n_rows), sum / static_cast<double>(n_rows), worst, std::sqrt(errors / squares),
      static_cast<double>(same) / static_cast<double>(n_rows));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) return std::fprintf(stderr, "logits_bench SHAPE TOKENS\n"), 2;
  const std::string shape = argv[1];
  const int64_t n = std::atoll(argv[2]);
  const ModelConfig config = Configs::by_name(shape);
  std::vector<TokenId> ids;
  for (uint64_t i = 0, state = 1; i < static_cast<uint64_t>(n); ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;  // Knuth's MMIX generator.
    ids.push_back(static_cast<TokenId>((state >> 33) % static_cast<uint64_t>(config.vocab_size)));
  }
  std::vector<float> want;
  {
    MiniLLM cpu(config, {.dtype = Dtype::kBF16, .kv_dtype = Dtype::kF32});
    want = logits_of(cpu, ids, n);
  }
  MiniLLM gpu(config, {.device = {Device::Kind::kCuda, 0}, .dtype = Dtype::kBF16});
  compare("one step", shape, want, logits_of(gpu, ids, n), config.vocab_size);
  compare("steps of 64", shape, want, logits_of(gpu, ids, 64), config.vocab_size);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "logits_bench: %s\n", error.what());
  return 1;
}
