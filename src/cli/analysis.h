// analysis.h - the measurements of `minillm analyze`. Each section is one JSON object with "rows"; sections that measure speed also hold
// "limits", what the machine reached in the same minute, so that shares of a peak are shares of what was there to be had.
#pragma once

#include <cstdint>
#include <vector>

#include "json_text.h"
#include "measured_model.h"

namespace minillm::cli {

struct AnalysisPlan {
  int64_t max_tokens = 2048;  ///< Longest sequence of any section.
  int64_t repeats = 3;        ///< Rounds; medians are reported.
  int threads = 2;
  ModelFlags flags;
};

/// {"read_gb_s", "float_gflop_s", "quantised_gflop_s", "bf16_gflop_s"}, measured now.
Json limits_json(const MachinePeaks& peaks);

/// Limits are measured before and after a section: the larger is what the machine reached.
MachinePeaks larger(const MachinePeaks& a, const MachinePeaks& b);

/// Peak bytes that attention allocates beyond its inputs and output: batch 2, 8 heads of 64, block 128, two threads.
Json analyze_attention_memory(const AnalysisPlan& plan);
/// Flash and standard attention by turns, one causal sequence with the model's heads.
Json analyze_attention_speed(const AnalysisPlan& plan, MiniLLM& model);
/// Every block size by turns at each length; which one is best, what the model resolves 0 to, and what the rule of thumb is worth.
Json analyze_block_sizes(const AnalysisPlan& plan, MiniLLM& model);
/// Bytes that a cache holds while it grows, after it was cropped, and after reset.
Json analyze_cache_growth(const AnalysisPlan& plan, MiniLLM& model);
/// Bytes of caches preallocated for twice the context of `small`, batch 4 to 16: computed and measured.
Json analyze_cache_memory();
/// New tokens a second with the cache, and without it by computing the whole sequence again.
Json analyze_generation(const AnalysisPlan& plan, MeasuredModel& measured);
/// Decoded tokens a second, all rows together, rows of unequal length, batch 1 to 16.
Json analyze_batches(const AnalysisPlan& plan, MeasuredModel& measured);

}  // namespace minillm::cli
