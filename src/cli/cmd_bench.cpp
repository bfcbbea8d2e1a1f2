// cmd_bench.cpp - `minillm bench`: tokens a second of prefill and decode, beside what this machine can do.
// Each test fills the cache to --depth, runs once to warm up, then --repeats times from there; the medians are reported.
// The machine's limits are measured in the same process, so that clock and neighbours are the same.
#include <algorithm>
#include <cstdio>
#include <memory>

#include "analysis.h"
#include "build_info.h"
#include "commands.h"
#include "cost_model.h"
#include "json_text.h"
#include "measured_model.h"
#include "terminal.h"

namespace minillm::cli {
namespace {

struct BenchFlags {
  ModelFlags model;
  std::string random;
  int64_t prompt_tokens = 512, decode_tokens = 128, depth = 0, batch = 1, repeats = 5;
  bool json = false;
};

struct Result {
  const char* test = "";
  int64_t tokens = 0, depth = 0, batch = 0;
  double tok_s = 0, gb_s = 0, gflop_s = 0, of_peak = 0;
  std::vector<double> samples = {};  ///< tok_s of each repeat.
};

class Bench {
 public:
  Bench(MiniLLM& model, const WeightCost& weights, const BenchFlags& flags, const MachinePeaks& peaks)
      : model_(model),
        weights_(weights),
        flags_(flags),
        peaks_(peaks),
        feeder_(model, !flags.model.no_flash_attention, flags.model.flash_block_size),
        chunk_(model.step_rows()) {}

  Result prefill() {
    PassCost cost;
    for (int64_t at = 0; at < flags_.prompt_tokens; at += chunk_)
      cost += pass_cost(model_.config(), weights_, std::min(chunk_, flags_.prompt_tokens - at), flags_.depth + at, flags_.batch);
    return measure("prefill", flags_.prompt_tokens, chunk_, cost);
  }

  Result decode() {
    PassCost cost;
    for (int64_t at = 0; at < flags_.decode_tokens; ++at) cost += pass_cost(model_.config(), weights_, 1, flags_.depth + at, flags_.batch);
    return measure("decode", flags_.decode_tokens, 1, cost);
  }

 private:
  /// Median seconds of feeding `n_tokens` a row in passes of `chunk`, after `depth` tokens that are not timed.
  Result measure(const char* test, int64_t n_tokens, int64_t chunk, const PassCost& cost) {
    KVCacheOptions options{.batch_size = flags_.batch, .max_length = flags_.depth + n_tokens, .device = model_.device()};
    KVCache cache(model_.config(), options);
    feeder_.feed(cache, flags_.depth, chunk_);
    std::vector<double> seconds;
    for (int64_t repeat = 0; repeat <= flags_.repeats; ++repeat) {
      cache.crop(flags_.depth);
      const double start = now();
      feeder_.feed(cache, n_tokens, chunk);
      if (repeat > 0) seconds.push_back(now() - start);  // The first one warms up.
    }
    const double time = median(seconds);
    Result result{.test = test, .tokens = n_tokens, .depth = flags_.depth, .batch = flags_.batch};
    const auto n_all = static_cast<double>(n_tokens * flags_.batch);
    result.tok_s = n_all / time;
    for (const double each : seconds) result.samples.push_back(n_all / each);
    result.gb_s = cost.bytes / time / 1e9;
    result.gflop_s = cost.flops / time / 1e9;
    result.of_peak = std::max(share_of(result.gb_s, peaks_.read_gb_s), share_of(result.gflop_s, peaks_.most_gflop_s()));
    return result;
  }

  MiniLLM& model_;
  WeightCost weights_;
  const BenchFlags& flags_;
  MachinePeaks peaks_;
  Feeder feeder_;
  int64_t chunk_;
};

/// What the rates belong to: sources, compiler, machine and what it reached in this run.
Json machine_json(const MachinePeaks& peaks, const std::string& device) {
  Json json = {{"test", "machine"}};
  json.update(build_json());
  json.update({{"processor", processor_name()}, {"device", device}, {"limits", limits_json(peaks)}});
  return json;
}

Json to_json(const std::vector<Result>& results, double load_seconds, int threads, const Json& machine) {
  Json json = Json::array();
  for (const Result& r : results)
    json.push_back({{"test", r.test},
                    {"tokens", r.tokens},
                    {"depth", r.depth},
                    {"batch", r.batch},
                    {"threads", threads},
                    {"tok_s", r.tok_s},
                    {"gb_s", r.gb_s},
                    {"gflop_s", r.gflop_s},
                    {"of_peak", r.of_peak},
                    {"samples", r.samples}});
  json.push_back({{"test", "load"}, {"seconds", load_seconds}});
  json.push_back(machine);
  return json;
}

void print_table(const std::vector<Result>& results, double load_seconds, const MachinePeaks& peaks, const std::string& device) {
  char line[200];
  std::snprintf(line, sizeof(line), "%s, loaded in %.2f s\n", device.c_str(), load_seconds);
  print(line);
  std::snprintf(line, sizeof(line), "this machine: reads %.1f GB/s, %.0f GFLOP/s in float32, %.0f in int8, %.0f on bf16 tiles\n\n",
                peaks.read_gb_s, peaks.float_gflop_s, peaks.quantised_gflop_s, peaks.bf16_gflop_s);
  print(line);
  print("test       tokens   depth  batch     tokens/s      GB/s   GFLOP/s   of peak\n");
  for (const Result& r : results) {
    std::snprintf(line, sizeof(line), "%-9s %7lld %7lld %6lld %12.1f %9.2f %9.1f %8.1f%%\n", r.test, static_cast<long long>(r.tokens),
                  static_cast<long long>(r.depth), static_cast<long long>(r.batch), r.tok_s, r.gb_s, r.gflop_s, 100 * r.of_peak);
    print(line);
  }
}

int run_bench(const BenchFlags& flags) {
  if (!flags.random.empty() && !flags.model.model.empty()) throw UsageError("expected --model or --random, not both");
  if (flags.prompt_tokens == 0 && flags.decode_tokens == 0)
    throw UsageError("--prompt-tokens and --decode-tokens are both 0: nothing to measure");
  MeasuredModel loaded = load_measured(flags.model, flags.random);
  const MachinePeaks peaks = loaded.model.measure_peaks();
  Bench bench(loaded.model, loaded.weights, flags, peaks);
  std::vector<Result> results;
  if (flags.prompt_tokens > 0) results.push_back(bench.prefill());
  if (flags.decode_tokens > 0) results.push_back(bench.decode());
  if (flags.json)
    print(
        json_line(to_json(results, loaded.load_seconds, threads_of(flags.model), machine_json(peaks, loaded.model.device_description()))));
  else
    print_table(results, loaded.load_seconds, peaks, loaded.model.device_description());
  return kExitDone;
}

}  // namespace

Run add_bench(CLI::App& app) {
  auto flags = std::make_shared<BenchFlags>();
  const CLI::Range count(int64_t{0}, int64_t{1} << 31), at_least_one(int64_t{1}, int64_t{1} << 20);
  app.add_option("--prompt-tokens", flags->prompt_tokens, "tokens of the prefill test; 0 leaves it out")
      ->check(count)
      ->capture_default_str();
  app.add_option("--decode-tokens", flags->decode_tokens, "tokens of the decode test; 0 leaves it out")
      ->check(count)
      ->capture_default_str();
  app.add_option("--depth", flags->depth, "tokens already in the cache")->check(count)->capture_default_str();
  app.add_option("--batch", flags->batch, "sequences computed together")->check(at_least_one)->capture_default_str();
  app.add_option("--repeats", flags->repeats, "runs after one that warms up; medians are reported")
      ->check(at_least_one)
      ->capture_default_str();
  app.add_option("--random", flags->random,
                 "random weights of a known shape: smollm2-135m, llama-3.2-1b, llama-3.1-8b, small, medium, large");
  add_model_flag(app, flags->model);
  add_device_flags(app, flags->model);
  add_attention_flags(app, flags->model);
  app.add_flag("--json", flags->json,
               R"(print an array of {"test", "tokens", "depth", "batch", "threads", "tok_s", "gb_s", "gflop_s", "of_peak", "samples"})");
  return [flags] { return run_bench(*flags); };
}

}  // namespace minillm::cli
