// analysis_attention.cpp - attention alone: its memory, flash against standard, and block sizes.
// Rates count the multiply-adds of causal attention: 4 D for each head, query and key it sees.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "analysis.h"
#include "minillm/attention.h"
#include "minillm/error.h"
#include "terminal.h"

namespace minillm::cli {
namespace {

constexpr int64_t kLongestStandard = 2048;  // Its score matrix grows with the square.
constexpr std::array<int64_t, 7> kBlocks = {16, 32, 64, 128, 256, 512, 1024};

Tensor noise(std::vector<int64_t> shape, uint64_t state) {
  Tensor tensor(std::move(shape));
  for (float& value : tensor.values<float>()) {
    state = state * 6364136223846793005u + 1442695040888963407u;  // Knuth's MMIX generator.
    value = static_cast<float>(static_cast<int32_t>(state >> 32)) * 0x1p-31f;
  }
  return tensor;
}

struct Inputs {
  Tensor q, k, v;
  double gflop = 0;
};

Inputs inputs(int64_t batch, int64_t tokens, int64_t n_heads, int64_t n_kv_heads, int64_t head_dim) {
  const double pairs = 0.5 * static_cast<double>(batch * tokens) * static_cast<double>(tokens + 1);
  return {noise({batch, tokens, n_heads, head_dim}, 1), noise({batch, tokens, n_kv_heads, head_dim}, 2),
          noise({batch, tokens, n_kv_heads, head_dim}, 3), 4e-9 * static_cast<double>(n_heads * head_dim) * pairs};
}

void check_interrupt() {
  if (interrupted()) throw Error(ErrorCode::kCancelled, "interrupted");
}

/// Runs in one call, so that a sample takes about a fiftieth of a second or more.
int64_t runs_for(double gflop, double peak_gflop_s) {
  return std::clamp(static_cast<int64_t>(0.02 * peak_gflop_s / std::max(gflop, 1e-9)), int64_t{1}, int64_t{200});
}

/// By tokens and block.
using BlockRates = std::map<int64_t, std::map<int64_t, double>>;
/// A block's rate beside the best of the same round: the median of the rounds, which a change of the machine's clock leaves as it is.
using BlockShares = BlockRates;

/// Over all lengths: the geometric mean.
double overall(const BlockShares& shares, int64_t block) {
  double log_sum = 0;
  for (const auto& [tokens, by_block] : shares) log_sum += std::log(by_block.at(block));
  return std::exp(log_sum / static_cast<double>(shares.size()));
}

/// How good the best of the advised blocks is, at the worst of the lengths.
Json advice_json(const char* range, int64_t low_block, int64_t high_block, const BlockShares& shares, bool short_ones) {
  double worst = 1;
  bool seen = false;
  for (const auto& [tokens, by_block] : shares) {
    if ((tokens < 256) != short_ones) continue;
    double best = 0, advised = 0;
    for (const auto& [block, share] : by_block) {
      best = std::max(best, share);
      if (block >= low_block && block <= high_block) advised = std::max(advised, share);
    }
    worst = std::min(worst, share_of(advised, best));
    seen = true;
  }
  constexpr double kNoise = 0.05;  // Repeats of one block size differ by about this much.
  const char* verdict = !seen ? "not measured" : worst >= 1 - kNoise ? "confirmed" : "corrected";
  return {{"range", range}, {"blocks", {low_block, high_block}}, {"of_best", worst}, {"verdict", verdict}};
}

}  // namespace

Json limits_json(const MachinePeaks& peaks) {
  return {{"read_gb_s", peaks.read_gb_s},
          {"float_gflop_s", peaks.float_gflop_s},
          {"quantised_gflop_s", peaks.quantised_gflop_s},
          {"bf16_gflop_s", peaks.bf16_gflop_s}};
}

MachinePeaks larger(const MachinePeaks& a, const MachinePeaks& b) {
  return {.read_gb_s = std::max(a.read_gb_s, b.read_gb_s),
          .float_gflop_s = std::max(a.float_gflop_s, b.float_gflop_s),
          .quantised_gflop_s = std::max(a.quantised_gflop_s, b.quantised_gflop_s),
          .bf16_gflop_s = std::max(a.bf16_gflop_s, b.bf16_gflop_s)};
}

Json analyze_attention_memory(const AnalysisPlan& plan) {
  constexpr int64_t kBatch = 2, kHeads = 8, kDim = 64, kBlock = 128;
  constexpr int kThreads = 2;
  Json json{{"batch", kBatch}, {"heads", kHeads}, {"head_dim", kDim}, {"block", kBlock}, {"threads", kThreads}, {"rows", Json::array()}};
  for (int64_t tokens = 256; tokens <= std::min(plan.max_tokens, kLongestStandard); tokens *= 2) {
    check_interrupt();
    const Inputs in = inputs(kBatch, tokens, kHeads, kHeads, kDim);
    const AttentionOptions options{.block_size = kBlock, .n_threads = kThreads};
    json["rows"].push_back({{"tokens", tokens},
                            {"standard_bytes", standard_attention(in.q, in.k, in.v, options).peak_bytes},
                            {"flash_bytes", flash_attention(in.q, in.k, in.v, options).peak_bytes}});
  }
  return json;
}

Json analyze_attention_speed(const AnalysisPlan& plan, MiniLLM& model) {
  const ModelConfig& c = model.config();
  const MachinePeaks before = model.measure_peaks();
  Json json{{"batch", 1},
            {"heads", c.n_heads},
            {"kv_heads", c.n_kv_heads},
            {"head_dim", c.head_dim},
            {"block", model.flash_block_size()},
            {"threads", plan.threads},
            {"rows", Json::array()}};
  for (int64_t tokens = 64; tokens <= std::min(plan.max_tokens, kLongestStandard); tokens *= 2) {
    const Inputs in = inputs(1, tokens, c.n_heads, c.n_kv_heads, c.head_dim);
    const AttentionOptions options{.block_size = model.flash_block_size(),
                                   .device = model.device(),
                                   .n_threads = plan.threads,
                                   .timed_runs = runs_for(in.gflop, before.float_gflop_s)};
    std::vector<double> flash, standard, ratios;
    for (int64_t round = 0; round < plan.repeats; ++round) {
      check_interrupt();
      flash.push_back(flash_attention(in.q, in.k, in.v, options).seconds);
      standard.push_back(standard_attention(in.q, in.k, in.v, options).seconds);
      ratios.push_back(share_of(standard.back(), flash.back()));
    }
    const double flash_rate = share_of(in.gflop, median(flash)), standard_rate = share_of(in.gflop, median(standard));
    json["rows"].push_back({{"tokens", tokens},
                            {"flash_seconds", median(flash)},
                            {"standard_seconds", median(standard)},
                            {"flash_gflop_s", flash_rate},
                            {"standard_gflop_s", standard_rate},
                            {"ratio", median(ratios)}});
  }
  const MachinePeaks peaks = larger(before, model.measure_peaks());
  json["limits"] = limits_json(peaks);
  for (Json& row : json["rows"]) row["of_peak"] = share_of(row["flash_gflop_s"].get<double>(), peaks.float_gflop_s);
  return json;
}

Json analyze_block_sizes(const AnalysisPlan& plan, MiniLLM& model) {
  const ModelConfig& c = model.config();
  const MachinePeaks before = model.measure_peaks();
  BlockRates rates;
  BlockShares shares;
  for (int64_t tokens = 64; tokens <= plan.max_tokens; tokens *= 2) {
    const Inputs in = inputs(1, tokens, c.n_heads, c.n_kv_heads, c.head_dim);
    std::map<int64_t, std::vector<double>> round_rates, round_shares;
    for (int64_t round = 0; round < plan.repeats; ++round) {
      double best = 0;
      for (const int64_t block : kBlocks) {
        check_interrupt();
        const AttentionOptions options{.block_size = block,
                                       .device = model.device(),
                                       .n_threads = plan.threads,
                                       .timed_runs = runs_for(in.gflop, before.float_gflop_s)};
        round_rates[block].push_back(share_of(in.gflop, flash_attention(in.q, in.k, in.v, options).seconds));
        best = std::max(best, round_rates[block].back());
      }
      for (const int64_t block : kBlocks) round_shares[block].push_back(share_of(round_rates[block].back(), best));
    }
    for (const int64_t block : kBlocks) {
      rates[tokens][block] = median(round_rates[block]);
      shares[tokens][block] = median(round_shares[block]);
    }
  }
  const MachinePeaks peaks = larger(before, model.measure_peaks());
  Json json{{"heads", c.n_heads},      {"kv_heads", c.n_kv_heads},     {"head_dim", c.head_dim},
            {"threads", plan.threads}, {"limits", limits_json(peaks)}, {"rows", Json::array()}};
  for (const auto& [tokens, by_block] : rates)
    for (const auto& [block, rate] : by_block)
      json["rows"].push_back({{"tokens", tokens},
                              {"block", block},
                              {"gflop_s", rate},
                              {"of_peak", share_of(rate, peaks.float_gflop_s)},
                              {"of_best", shares[tokens][block]}});
  int64_t choice = 0;
  for (const int64_t block : kBlocks)
    if (choice == 0 || overall(shares, block) > overall(shares, choice)) choice = block;
  const int64_t resolved = model.flash_block_size();
  json["best"] = {{"block", choice}, {"of_best", overall(shares, choice)}};
  json["resolved"] = {{"block", resolved}, {"of_best", overall(shares, resolved)}};
  json["advice"] = {advice_json("below 256 tokens", 64, 128, shares, true), advice_json("256 tokens and more", 128, 256, shares, false)};
  return json;
}

}  // namespace minillm::cli
