// cmd_analyze.cpp - `minillm analyze`: what attention and the cache cost on this machine, measured, as tables or one JSON object.
//   {"minillm", "commit", "compiler", "date", "machine": {"processor", "device", "threads", "memory_bytes", "limits"}, "model": {...},
//    "attention_memory", "attention_speed", "block_sizes", "cache_growth", "cache_memory", "generation", "batches"}
// Each section has "rows"; analysis.h says what is in them. The tables are printed from the same object.
#include <cstdio>
#include <memory>

#include "analysis.h"
#include "build_info.h"
#include "commands.h"
#include "terminal.h"

namespace minillm::cli {
namespace {

struct AnalyzeFlags {
  AnalysisPlan plan;
  std::string random;
  bool json = false;
};

/// A column of a table: title, key of the row, how a value is shown.
struct Column {
  const char* title;
  const char* key;
  enum class Show : uint8_t { kCount, kText, kMegabytes, kMillis, kRate, kTimes, kPercent } show;
};
using Show = Column::Show;

std::string shown(const Json& value, Show show) {
  if (show == Show::kText) return value.get<std::string>();
  char text[64];
  const double number = value.get<double>();
  switch (show) {
    case Show::kCount:
      std::snprintf(text, sizeof(text), "%.0f", number);
      break;
    case Show::kMegabytes:
      std::snprintf(text, sizeof(text), "%.2f MiB", number / 1048576);
      break;
    case Show::kMillis:
      std::snprintf(text, sizeof(text), "%.2f ms", 1e3 * number);
      break;
    case Show::kRate:
      std::snprintf(text, sizeof(text), "%.1f", number);
      break;
    case Show::kTimes:
      std::snprintf(text, sizeof(text), "%.2fx", number);
      break;
    case Show::kPercent:
      std::snprintf(text, sizeof(text), "%.0f%%", 100 * number);
      break;
    case Show::kText:
      break;
  }
  return text;
}

void print_table(const std::string& title, const Json& section, const std::vector<Column>& columns) {
  print("\n" + title + "\n");
  std::string line;
  const auto cell = [&line](const std::string& text) { line += std::string(text.size() < 14 ? 14 - text.size() : 1, ' ') + text; };
  for (const Column& column : columns) cell(column.title);
  print(line + "\n");
  for (const Json& row : section.at("rows")) {
    line.clear();
    for (const Column& column : columns) cell(shown(row.at(column.key), column.show));
    print(line + "\n");
  }
}

void print_advice(const Json& section) {
  char line[200];
  std::snprintf(line, sizeof(line), "best over all lengths: %lld (%.0f%% of the best at each); this model uses %lld (%.0f%%)\n",
                static_cast<long long>(section["best"]["block"].get<int64_t>()), 100 * section["best"]["of_best"].get<double>(),
                static_cast<long long>(section["resolved"]["block"].get<int64_t>()), 100 * section["resolved"]["of_best"].get<double>());
  print(line);
  for (const Json& advice : section["advice"]) {
    std::snprintf(line, sizeof(line), "rule of thumb, blocks of %lld to %lld %s: %s (%.0f%% of the best)\n",
                  static_cast<long long>(advice["blocks"][0].get<int64_t>()), static_cast<long long>(advice["blocks"][1].get<int64_t>()),
                  advice["range"].get<std::string>().c_str(), advice["verdict"].get<std::string>().c_str(),
                  100 * advice["of_best"].get<double>());
    print(line);
  }
}

void print_report(const Json& report) {
  const Json& machine = report["machine"];
  print(machine["processor"].get<std::string>() + ", " + machine["device"].get<std::string>() + "; " +
        report["model"]["name"].get<std::string>() + "; " + report["commit"].get<std::string>() + ", " +
        report["compiler"].get<std::string>() + ", " + report["date"].get<std::string>() + "\n");
  char line[160];
  std::snprintf(line, sizeof(line), "limits: reads %.1f GB/s, %.0f GFLOP/s in float32, %.0f in int8\n",
                machine["limits"]["read_gb_s"].get<double>(), machine["limits"]["float_gflop_s"].get<double>(),
                machine["limits"]["quantised_gflop_s"].get<double>());
  print(line);
  print_table(
      "Memory that attention allocates (batch 2, 8 heads of 64, block 128, 2 threads)", report["attention_memory"],
      {{"tokens", "tokens", Show::kCount}, {"standard", "standard_bytes", Show::kMegabytes}, {"flash", "flash_bytes", Show::kMegabytes}});
  print_table("Flash attention beside standard attention (one causal sequence, the model's heads)", report["attention_speed"],
              {{"tokens", "tokens", Show::kCount},
               {"standard", "standard_seconds", Show::kMillis},
               {"flash", "flash_seconds", Show::kMillis},
               {"flash GFLOP/s", "flash_gflop_s", Show::kRate},
               {"of peak", "of_peak", Show::kPercent},
               {"faster", "ratio", Show::kTimes}});
  print_table("Block size of flash attention", report["block_sizes"],
              {{"tokens", "tokens", Show::kCount},
               {"block", "block", Show::kCount},
               {"GFLOP/s", "gflop_s", Show::kRate},
               {"of peak", "of_peak", Show::kPercent},
               {"of best", "of_best", Show::kPercent}});
  print_advice(report["block_sizes"]);
  print_table("The cache while it grows and shrinks (one row)", report["cache_growth"],
              {{"after", "after", Show::kText},
               {"tokens", "tokens", Show::kCount},
               {"held", "bytes", Show::kMegabytes},
               {"needed", "needed_bytes", Show::kMegabytes}});
  print_table("Preallocated caches of 'small' for " + std::to_string(report["cache_memory"]["tokens"].get<int64_t>()) +
                  " tokens (twice its context)",
              report["cache_memory"],
              {{"batch", "batch", Show::kCount},
               {"dtype", "dtype", Show::kText},
               {"computed", "computed_bytes", Show::kMegabytes},
               {"measured", "measured_bytes", Show::kMegabytes}});
  print_table("New tokens a second, one sequence", report["generation"],
              {{"context", "context", Show::kCount},
               {"with cache", "incremental_tok_s", Show::kRate},
               {"recomputed", "recomputed_tok_s", Show::kRate},
               {"faster", "ratio", Show::kTimes},
               {"of peak", "of_peak", Show::kPercent}});
  print_table("New tokens a second, rows of unequal length together", report["batches"],
              {{"batch", "batch", Show::kCount},
               {"tokens/s", "tok_s", Show::kRate},
               {"of batch 1", "ratio", Show::kTimes},
               {"of peak", "of_peak", Show::kPercent}});
}

Json model_json(const MeasuredModel& measured) {
  const ModelConfig& c = measured.model.config();
  return {{"name", measured.name},
          {"parameters", c.n_parameters()},
          {"weight_bytes", measured.model.weight_bytes()},
          {"n_layers", c.n_layers},
          {"n_heads", c.n_heads},
          {"n_kv_heads", c.n_kv_heads},
          {"head_dim", c.head_dim},
          {"context_length", c.context_length},
          {"kv_dtype", name_of(c.kv_dtype)},
          {"flash_block_size", measured.model.flash_block_size()}};
}

int run_analyze(AnalyzeFlags flags) {
  MeasuredModel measured = load_measured(flags.plan.flags, flags.random);
  flags.plan.threads = threads_of(flags.plan.flags);
  Json report = build_json();
  report["machine"] = {{"processor", processor_name()},
                       {"device", measured.model.device_description()},
                       {"threads", flags.plan.threads},
                       {"memory_bytes", main_memory_bytes()},
                       {"limits", limits_json(measured.model.measure_peaks())}};
  report["model"] = model_json(measured);
  const auto section = [&](const char* name, auto&& measure) {
    note(std::string("measuring ") + name);
    report[name] = measure();
  };
  section("attention_memory", [&] { return analyze_attention_memory(flags.plan); });
  section("attention_speed", [&] { return analyze_attention_speed(flags.plan, measured.model); });
  section("block_sizes", [&] { return analyze_block_sizes(flags.plan, measured.model); });
  section("cache_growth", [&] { return analyze_cache_growth(flags.plan, measured.model); });
  section("cache_memory", [] { return analyze_cache_memory(); });
  section("generation", [&] { return analyze_generation(flags.plan, measured); });
  section("batches", [&] { return analyze_batches(flags.plan, measured); });
  if (flags.json)
    print(json_line(report));
  else
    print_report(report);
  return kExitDone;
}

}  // namespace

Run add_analyze(CLI::App& app) {
  auto flags = std::make_shared<AnalyzeFlags>();
  app.add_option("--max-tokens", flags->plan.max_tokens, "longest sequence to measure")
      ->check(CLI::Range(int64_t{64}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--repeats", flags->plan.repeats, "rounds; medians are reported")
      ->check(CLI::Range(int64_t{1}, int64_t{1000}))
      ->capture_default_str();
  app.add_option("--random", flags->random,
                 "random weights of a known shape: smollm2-135m, llama-3.2-1b, llama-3.1-8b, small, medium, large");
  add_model_flag(app, flags->plan.flags);
  add_device_flags(app, flags->plan.flags);
  add_attention_flags(app, flags->plan.flags);
  app.add_flag("--json", flags->json, "print one JSON object: every table with its limits, the machine, the day and the commit");
  return [flags] { return run_analyze(*flags); };
}

}  // namespace minillm::cli
