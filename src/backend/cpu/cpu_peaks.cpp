// cpu_peaks.cpp - what this machine reaches: every "percent of peak" is a percentage of these, measured in the same process.
// Best of several short runs on all threads: other programs can only make a run slower.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "minillm/metrics.h"

namespace minillm::cpu {
namespace {

constexpr int64_t kReadBytes = int64_t{256} << 20;  ///< Far above the caches of one process's share.
constexpr int64_t kReadItem = int64_t{4} << 20;
constexpr int kItems = 16;  ///< A thread; small enough that the last one to finish does not matter.

/// Best rate of `runs` calls of work() which do `amount` each.
template <typename F>
double best_rate(double amount, int runs, F&& work) {
  double best = 0;
  for (int i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, amount / seconds.count());
  }
  return best;
}

}  // namespace

MachinePeaks CpuBackend::measure_peaks() {
  constexpr int64_t kFloatSteps = 20000, kInt8Steps = 20000, kTileSteps = 20000;
  MachinePeaks peaks;
  const int64_t n_items = int64_t{kItems} * pool_.n_threads();
  std::vector<float> sink(static_cast<size_t>(pool_.n_threads()));
  const auto keep = [&sink](int thread, float value) { sink[static_cast<size_t>(thread)] += value; };

  const Buffer memory = allocate(static_cast<size_t>(kReadBytes));
  const uint8_t* data = static_cast<const uint8_t*>(memory.data());
  pool_.for_each(kReadBytes / kReadItem, [&](int64_t item, int) {  // Touched, so that it is there to be read.
    std::memset(static_cast<uint8_t*>(memory.data()) + item * kReadItem, static_cast<int>(item), static_cast<size_t>(kReadItem));
  });
  peaks.read_gb_s = best_rate(static_cast<double>(kReadBytes) * 1e-9, 5, [&] {
    pool_.for_each(kReadBytes / kReadItem,
                   [&](int64_t item, int thread) { keep(thread, kernels_.probe_read(data + item * kReadItem, kReadItem)); });
  });
  const auto flops = [&](int64_t steps, int64_t macs) { return 2e-9 * static_cast<double>(n_items * steps * macs); };
  peaks.float_gflop_s = best_rate(flops(kFloatSteps / kItems, kernels_.probe_float_macs), 5, [&] {
    pool_.for_each(n_items, [&](int64_t, int thread) { keep(thread, kernels_.probe_float(kFloatSteps / kItems)); });
  });
  peaks.quantised_gflop_s = best_rate(flops(kInt8Steps / kItems, kernels_.probe_int8_macs), 5, [&] {
    pool_.for_each(n_items, [&](int64_t, int thread) { keep(thread, kernels_.probe_int8(kInt8Steps / kItems)); });
  });
  if (kernels_.probe_tiles != nullptr)
    peaks.bf16_gflop_s = best_rate(flops(kTileSteps / kItems, kernels_.probe_tile_macs), 5, [&] {
      pool_.for_each(n_items, [&](int64_t, int thread) { keep(thread, kernels_.probe_tiles(kTileSteps / kItems)); });
    });
  return peaks;
}

}  // namespace minillm::cpu
