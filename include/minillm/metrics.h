// metrics.h - what a run cost: time, bytes, and the machine's limits to compare with.
#pragma once

#include <cstdint>

namespace minillm {

/// Wall time and tokens of the two phases of generation.
struct Timings {
  int64_t prefill_tokens = 0, decode_tokens = 0;
  double prefill_seconds = 0, decode_seconds = 0;
  double prefill_tok_s() const noexcept { return prefill_seconds > 0 ? static_cast<double>(prefill_tokens) / prefill_seconds : 0; }
  double decode_tok_s() const noexcept { return decode_seconds > 0 ? static_cast<double>(decode_tokens) / decode_seconds : 0; }
};

/// Device memory in bytes.
struct MemoryReport {
  int64_t weights = 0, workspace = 0, peak = 0;
};

/// What this machine reaches, measured when asked for: the denominators of every "percent of peak".
struct MachinePeaks {
  double read_gb_s = 0;          ///< Main memory read rate.
  double float_gflop_s = 0;      ///< fp32 multiply-adds, counted as two.
  double quantised_gflop_s = 0;  ///< int8 multiply-adds, counted as two; 0 where products are not quantised.
  double bf16_gflop_s = 0;       ///< bfloat16 multiply-adds on matrix tiles (AMX), counted as two; 0 where there are none.
  /// What no product can be faster than.
  double most_gflop_s() const noexcept {
    const double plain = float_gflop_s > quantised_gflop_s ? float_gflop_s : quantised_gflop_s;
    return plain > bf16_gflop_s ? plain : bf16_gflop_s;
  }
};

}  // namespace minillm
