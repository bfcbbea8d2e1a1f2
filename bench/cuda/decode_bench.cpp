// decode_bench.cpp - tokens a second of greedy decoding through the engine, as a user gets them: sampling, stopping and the host
// included. Usage: decode_bench MODEL DTYPE BATCH:PROMPT:NEW[:CHUNK[:TEMPERATURE[:PENALTY]]]...; MODEL is a file or the name of a
// shape for random weights. With a temperature tokens are drawn with top_p 0.95; with a penalty the host does it.
// One JSON line a run: the median step, so that recording the step and other firsts do not count.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "minillm/engine.h"
#include "minillm/error.h"
#include "minillm/model.h"

namespace {

using namespace minillm;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void run(MiniLLM& model, const std::string& name, int64_t batch, int64_t n_prompt, int64_t n_new, int64_t chunk,
         const GenerationOptions& base) {
  Engine engine(model, nullptr, {.max_batch = batch, .prefill_chunk = chunk});
  uint64_t state = 1;
  for (int64_t b = 0; b < batch; ++b) {
    std::vector<TokenId> prompt(static_cast<size_t>(n_prompt));
    for (TokenId& id : prompt) {
      state = state * 6364136223846793005u + 1442695040888963407u;  // Knuth's MMIX generator.
      id = static_cast<TokenId>((state >> 33) % static_cast<uint64_t>(model.config().vocab_size));
    }
    GenerationOptions options = base;
    options.max_new_tokens = n_new;
    options.ignore_eos = true;
    options.seed = static_cast<uint64_t>(b);
    engine.submit(std::move(prompt), options);
  }
  std::vector<double> steps;
  const auto prefill_start = Clock::now();
  double prefill = 0;
  while (!engine.idle()) {
    const auto start = Clock::now();
    const auto events = engine.step();
    if (static_cast<int64_t>(events.size()) == batch) steps.push_back(seconds_since(start));
    if (prefill == 0 && !events.empty()) prefill = seconds_since(prefill_start);
  }
  std::sort(steps.begin(), steps.end());
  const double step = steps.empty() ? 0 : steps[steps.size() / 2];
  std::printf(
      "{\"test\":\"decode\",\"model\":\"%s\",\"batch\":%lld,\"prompt\":%lld,\"step_us\":%.1f,\"tok_s\":%.1f,\"prefill_s\":%.4f,\"chunk\":%"
      "lld,\"temperature\":%.2f,\"penalty\":%.2f}\n",
      name.c_str(), static_cast<long long>(batch), static_cast<long long>(n_prompt), step * 1e6,
      step > 0 ? static_cast<double>(batch) / step : 0, prefill, static_cast<long long>(chunk), static_cast<double>(base.temperature),
      static_cast<double>(base.repetition_penalty));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 4) return std::fprintf(stderr, "decode_bench MODEL DTYPE BATCH:PROMPT:NEW...\n"), 2;
  const std::string name = argv[1], dtype = argv[2];
  LoadOptions options{.device = {Device::Kind::kCuda, 0}};
  if (dtype == "bf16") options.dtype = Dtype::kBF16;
  const auto start = Clock::now();
  MiniLLM model = name.find('.') != std::string::npos && name.find('/') != std::string::npos ? MiniLLM::load(name, options)
                                                                                             : MiniLLM(Configs::by_name(name), options);
  std::printf("{\"test\":\"load\",\"model\":\"%s\",\"seconds\":%.2f,\"weight_bytes\":%lld}\n", name.c_str(), seconds_since(start),
              static_cast<long long>(model.weight_bytes()));
  std::fflush(stdout);
  for (int i = 3; i < argc; ++i) {
    long long batch = 0, prompt = 0, n_new = 0, chunk = EngineOptions().prefill_chunk;
    GenerationOptions generation;
    if (std::sscanf(argv[i], "%lld:%lld:%lld:%lld:%f:%f", &batch, &prompt, &n_new, &chunk, &generation.temperature,
                    &generation.repetition_penalty) < 3)
      return std::fprintf(stderr, "%s: BATCH:PROMPT:NEW[:CHUNK[:TEMPERATURE[:PENALTY]]]\n", argv[i]), 2;
    if (generation.temperature > 0) generation.top_p = 0.95f;
    run(model, name + "-" + dtype, batch, prompt, n_new, chunk, generation);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "decode_bench: %s\n", error.what());
  return 1;
}
