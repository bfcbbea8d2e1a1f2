// analysis_model.cpp - the cache and generation with a model: bytes while it grows, with and without it, one row and many.
#include <algorithm>
#include <array>

#include "analysis.h"
#include "minillm/error.h"

namespace minillm::cli {
namespace {

int64_t longest(const AnalysisPlan& plan, const MiniLLM& model) { return std::min(plan.max_tokens, model.config().context_length); }

Feeder feeder_of(const AnalysisPlan& plan, MiniLLM& model) { return {model, !plan.flags.no_flash_attention, plan.flags.flash_block_size}; }

KVCache cache_of(const MiniLLM& model, int64_t batch, int64_t max_length = 0) {
  return KVCache(model.config(), {.batch_size = batch, .max_length = max_length, .device = model.device()});
}

/// The larger share of the two limits: time is at least what either of them takes.
double of_peak(const PassCost& cost, double seconds, const MachinePeaks& peaks) {
  return std::max(share_of(cost.bytes / seconds / 1e9, peaks.read_gb_s), share_of(cost.flops / seconds / 1e9, peaks.most_gflop_s()));
}

/// K and V of one token over all layers.
int64_t token_bytes(const ModelConfig& config, Dtype dtype) {
  return 2 * config.n_layers * config.kv_size() * (dtype == Dtype::kF32 ? 4 : 2);
}

/// `n_new` passes of one token for each row; row i holds lengths[i] before the first.
PassCost ragged_cost(const MeasuredModel& measured, const std::vector<int64_t>& lengths, int64_t n_new) {
  PassCost cost;
  for (int64_t at = 0; at < n_new; ++at) {
    cost.bytes += measured.weights.product_bytes;  // Once for all rows.
    for (const int64_t length : lengths) {
      const PassCost row = pass_cost(measured.model.config(), measured.weights, 1, length + at, 1);
      cost += {row.bytes - measured.weights.product_bytes, row.flops};
    }
  }
  return cost;
}

}  // namespace

Json analyze_cache_growth(const AnalysisPlan& plan, MiniLLM& model) {
  KVCache cache = cache_of(model, 1);
  Feeder feeder = feeder_of(plan, model);
  const int64_t bytes = token_bytes(model.config(), cache.dtype()), most = longest(plan, model);
  Json json{{"batch", 1}, {"dtype", name_of(cache.dtype())}, {"token_bytes", bytes}, {"rows", Json::array()}};
  const auto add = [&](const char* after) {
    const int64_t tokens = cache.get_seq_length();
    json["rows"].push_back({{"after", after}, {"tokens", tokens}, {"bytes", cache.bytes()}, {"needed_bytes", tokens * bytes}});
  };
  add("start");
  for (int64_t tokens = std::min<int64_t>(64, most);; tokens = std::min(2 * tokens, most)) {
    feeder.feed(cache, tokens - cache.get_seq_length(), model.step_rows());
    add("growth");
    if (tokens == most) break;
  }
  cache.crop(most / 4);
  add("crop");
  cache.reset();
  add("reset");
  return json;
}

Json analyze_cache_memory() {
  const ModelConfig config = Configs::small();
  const int64_t tokens = 2 * config.context_length;
  Json json{{"model", "small"}, {"tokens", tokens}, {"rows", Json::array()}};
  for (const Dtype dtype : {Dtype::kF16, Dtype::kF32})
    for (const int64_t batch : {4, 8, 16}) {
      const KVCache cache(config, {.batch_size = batch, .max_length = tokens, .dtype = dtype});
      json["rows"].push_back({{"batch", batch},
                              {"dtype", name_of(dtype)},
                              {"computed_bytes", batch * tokens * token_bytes(config, dtype)},
                              {"measured_bytes", cache.bytes()}});
    }
  return json;
}

Json analyze_generation(const AnalysisPlan& plan, MeasuredModel& measured) {
  MiniLLM& model = measured.model;
  const MachinePeaks before = model.measure_peaks();
  Feeder feeder = feeder_of(plan, model);
  Json rows = Json::array();
  std::vector<PassCost> costs;
  constexpr int64_t kNew = 16;
  for (int64_t context = 32; context + kNew <= std::min<int64_t>(longest(plan, model), 1024); context *= 2) {
    KVCache cache = cache_of(model, 1, context + kNew);
    feeder.feed(cache, context, model.step_rows());
    costs.emplace_back();
    for (int64_t i = 0; i < kNew; ++i) costs.back() += pass_cost(model.config(), measured.weights, 1, context + i, 1);
    std::vector<double> with_cache, without, ratios;
    for (int64_t round = -1; round < plan.repeats; ++round) {
      cache.crop(context);
      const double start = now();
      feeder.feed(cache, kNew, 1);
      const double middle = now();
      feeder.recompute(context + kNew / 2);
      if (round < 0) continue;  // The first one warms up.
      with_cache.push_back((middle - start) / kNew);
      without.push_back(now() - middle);
      ratios.push_back(without.back() / with_cache.back());
    }
    rows.push_back({{"context", context},
                    {"incremental_tok_s", 1 / median(with_cache)},
                    {"recomputed_tok_s", 1 / median(without)},
                    {"ratio", median(ratios)}});
  }
  const MachinePeaks peaks = larger(before, model.measure_peaks());
  for (size_t i = 0; i < rows.size(); ++i) rows[i]["of_peak"] = of_peak(costs[i], kNew / rows[i]["incremental_tok_s"].get<double>(), peaks);
  return {{"limits", limits_json(peaks)}, {"rows", rows}};
}

Json analyze_batches(const AnalysisPlan& plan, MeasuredModel& measured) {
  MiniLLM& model = measured.model;
  const MachinePeaks before = model.measure_peaks();
  Feeder feeder = feeder_of(plan, model);
  const int64_t n_new = std::min<int64_t>(16, longest(plan, model) / 4), step = std::min<int64_t>(8, longest(plan, model) / 32);
  constexpr std::array<int64_t, 5> kBatches = {1, 2, 4, 8, 16};
  std::array<std::vector<double>, kBatches.size()> seconds, ratios;
  std::array<PassCost, kBatches.size()> costs;
  for (int64_t round = -1; round < plan.repeats; ++round)  // The first one warms up.
    for (size_t i = 0; i < kBatches.size(); ++i) {
      KVCache cache = cache_of(model, kBatches[i]);
      std::vector<int64_t> lengths;
      for (int64_t row = 0; row < kBatches[i]; ++row) lengths.push_back(step * (row % 16 + 1));
      feeder.feed_ragged(cache, lengths);
      const double start = now();
      feeder.feed(cache, n_new, 1);
      const double taken = now() - start;
      if (round < 0) {
        costs[i] = ragged_cost(measured, lengths, n_new);
        continue;
      }
      seconds[i].push_back(taken);
      ratios[i].push_back(static_cast<double>(kBatches[i]) * seconds[0].back() / taken);
    }
  const MachinePeaks peaks = larger(before, model.measure_peaks());
  Json json{{"new_tokens", n_new}, {"prompt_tokens", {step, 16 * step}}, {"limits", limits_json(peaks)}, {"rows", Json::array()}};
  for (size_t i = 0; i < kBatches.size(); ++i)
    json["rows"].push_back({{"batch", kBatches[i]},
                            {"tok_s", static_cast<double>(kBatches[i] * n_new) / median(seconds[i])},
                            {"ratio", median(ratios[i])},
                            {"of_peak", of_peak(costs[i], median(seconds[i]), peaks)}});
  return json;
}

}  // namespace minillm::cli
