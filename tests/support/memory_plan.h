// memory_plan.h - the memory plan against what loading a model and running a long step takes on a device.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "minillm/file_info.h"
#include "minillm/kv_cache.h"
#include "minillm/model.h"
#include "support/random.h"

namespace minillm::test {

/// Weights, cache and their sum with the workspace are within 1% of the plan for 4 sequences of 1,024 tokens.
inline void expect_plan_is_what_a_run_takes(const std::string& path, Device device, Dtype kv_dtype = Dtype::kF16) {
  constexpr int64_t kContext = 1024, kBatch = 4;
  const MemoryPlan plan = plan_memory(inspect(path), kContext, kBatch, kv_dtype, device);
  MiniLLM model = MiniLLM::load(path, {.device = device, .context_length = kContext});
  KVCache cache(model.config(), {.batch_size = kBatch, .max_length = kContext, .device = device, .dtype = kv_dtype});
  const auto forward = [&](int64_t n_each) {
    std::vector<std::vector<TokenId>> rows;
    for (uint64_t row = 0; row < kBatch; ++row) rows.push_back(random_ids(row, n_each, model.config().vocab_size));
    model.forward(Tensor::from_ids(rows), {.kv_cache = &cache, .last_logits_only = true});
  };
  const int64_t n_each = model.step_rows() / kBatch;
  for (int64_t n = 0; n < kContext - 1; n += n_each) forward(std::min(n_each, kContext - 1 - n));
  forward(1);  // Decode has scratch of its own.
  const MemoryReport report = model.memory();
  const auto within_1_percent = [](int64_t planned, int64_t measured, const char* what) {
    EXPECT_NEAR(static_cast<double>(planned), static_cast<double>(measured), 0.01 * static_cast<double>(measured)) << what;
  };
  within_1_percent(plan.weights, report.weights, "weights");
  within_1_percent(plan.kv_cache, cache.bytes(), "cache");
  within_1_percent(plan.total(), report.weights + report.workspace + cache.bytes(), "total");
  testing::Test::RecordProperty("planned_workspace", std::to_string(plan.workspace));
  testing::Test::RecordProperty("measured_workspace", std::to_string(report.workspace));
}

}  // namespace minillm::test
