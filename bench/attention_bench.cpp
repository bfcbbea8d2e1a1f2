// attention_bench.cpp - attention on the CPU as a share of what the machine reaches: prefill against multiply-adds on
// registers, decode against plain reading. Each sample is probe, kernel, probe; the median of kernel / mean of its probes is
// printed, so that a noisy neighbour slows both. With one thread (the default) time is that thread's own processor time.
//   attention_bench [threads] [samples]
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "backend/cpu/attention.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/isa.h"

namespace minillm::cpu {
namespace {

struct Bench {
  int n_threads, n_samples;
  Isa isa = choose_isa(std::getenv("MINILLM_ISA") == nullptr ? "" : std::getenv("MINILLM_ISA"));
  ThreadPool pool{n_threads};
  const Kernels& kernels = kernels_of(isa);
  const AttentionKernels& attention_kernels = attention_kernels_of(name_of(isa));
  std::vector<char> memory = std::vector<char>(size_t{192} << 20, 1);
  float sink = 0;

  double now() const {
    timespec t;
    clock_gettime(n_threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  }
  double seconds(const std::function<void()>& work) const {
    const double start = now();
    work();
    return now() - start;
  }
  double probe_gflops() {
    const int64_t items = 8 * n_threads, steps = 2000;
    const double s = seconds([&] { pool.for_each(items, [&](int64_t, int) { kernels.probe_float(steps); }); });
    return 2e-9 * static_cast<double>(items * steps * kernels.probe_float_macs) / s;
  }
  double probe_gbps() {
    constexpr int64_t kItem = 2 << 20;
    const int64_t items = static_cast<int64_t>(memory.size()) / kItem;
    const double s = seconds([&] { pool.for_each(items, [&](int64_t i, int) { kernels.probe_read(memory.data() + i * kItem, kItem); }); });
    return 1e-9 * static_cast<double>(memory.size()) / s;
  }

  /// Prints the median rate and the median share of the probes around each sample.
  void report(const std::string& name, const char* unit, double amount, double (Bench::*probe)(), const std::function<void()>& work) {
    std::vector<double> rates, shares;
    work();
    double before = (this->*probe)();
    for (int i = 0; i < n_samples; ++i) {
      const double rate = amount / seconds(work), after = (this->*probe)();
      rates.push_back(rate);
      shares.push_back(2 * rate / (before + after));
      before = after;
    }
    const auto at = [](std::vector<double>& x, size_t percent) {
      std::sort(x.begin(), x.end());
      return x[x.size() * percent / 100];
    };
    std::printf("%-44s %7.1f %s  of peak: median %.2f, best tenth %.2f\n", name.c_str(), at(rates, 50), unit, at(shares, 50),
                at(shares, 90));
    std::fflush(stdout);
  }
};

struct Shape {
  int64_t n_heads, n_kv_heads, head_dim, rows, cached;
  int64_t block_size = 128, window = 0;
  Dtype dtype = Dtype::kF16;
};

void run(Bench& bench, const Shape& s) {
  const int64_t page_tokens = 64, n_keys = s.cached + s.rows, n_pages = (n_keys + page_tokens - 1) / page_tokens;
  CpuAttention attention(bench.pool, bench.attention_kernels, [](size_t bytes) {
    return Buffer(std::aligned_alloc(64, (bytes + 63) / 64 * 64), bytes, [](void* p) { std::free(p); });
  });
  attention.reserve({.max_rows = s.rows,
                     .n_heads = s.n_heads,
                     .n_kv_heads = s.n_kv_heads,
                     .head_dim = s.head_dim,
                     .max_context = n_keys,
                     .max_sequences = 1});
  CpuKvStorage kv({1, s.n_kv_heads, s.head_dim, page_tokens, n_pages, s.dtype}, bench.attention_kernels);
  kv.commit(n_pages);
  std::vector<float> one(static_cast<size_t>(s.n_kv_heads * s.head_dim));
  std::vector<int32_t> table;
  for (int64_t i = 0; i < n_pages; ++i) table.push_back(static_cast<int32_t>(i));
  for (int64_t t = 0; t < n_keys; ++t) {
    for (size_t i = 0; i < one.size(); ++i)
      one[i] = static_cast<float>((static_cast<size_t>(t) * 7919 + i * 104729) % 2048) / 1024.0f - 1.0f;
    const ConstTensorView view{one.data(), Dtype::kF32, {1, s.n_kv_heads, s.head_dim}};
    kv.write(0, static_cast<int32_t>(t / page_tokens), t % page_tokens, view, view);
  }
  std::vector<float> q(static_cast<size_t>(s.rows * s.n_heads * s.head_dim), 0.01f), out(q.size());
  const SequenceSlice slice{0, s.rows, s.cached, table.data()};
  AttentionParams p;
  p.n_heads = s.n_heads;
  p.n_kv_heads = s.n_kv_heads;
  p.head_dim = s.head_dim;
  p.scale = 0.1f;
  p.block_size = s.block_size;
  p.window = s.window;
  double pairs = 0;  // Of a query and a key that it sees.
  for (int64_t i = 0; i < s.rows; ++i) {
    const int64_t seen = s.cached + i + 1;
    pairs += static_cast<double>(s.window > 0 ? std::min(seen, s.window) : seen);
  }
  const auto work = [&] {
    attention.attention({{}, {}, {&slice, 1}}, {out.data(), Dtype::kF32, {s.rows, s.n_heads, s.head_dim}},
                        {q.data(), Dtype::kF32, {s.rows, s.n_heads, s.head_dim}}, kv, 0, p, {});
  };
  std::string name = std::string(name_of(s.dtype)) + " d" + std::to_string(s.head_dim) + " " + std::to_string(s.n_heads) + "/" +
                     std::to_string(s.n_kv_heads) + " " + std::to_string(s.rows) + " x " + std::to_string(n_keys) + " block " +
                     std::to_string(s.block_size) + (s.window > 0 ? " window " + std::to_string(s.window) : "");
  if (s.rows >= 16)
    bench.report(name, "GF/s", 4e-9 * pairs * static_cast<double>(s.n_heads * s.head_dim), &Bench::probe_gflops, work);
  else
    bench.report(name, "GB/s", 1e-9 * static_cast<double>(kv.bytes()), &Bench::probe_gbps, work);
}

}  // namespace
}  // namespace minillm::cpu

int main(int argc, char** argv) {
  using namespace minillm;
  const int n_threads = argc > 1 ? std::atoi(argv[1]) : 1, n_samples = argc > 2 ? std::atoi(argv[2]) : 30;
  cpu::Bench bench{n_threads, n_samples};
  std::printf("%s, %d threads: %.0f GF/s, %.1f GB/s\n", bench.attention_kernels.name, n_threads, bench.probe_gflops(), bench.probe_gbps());
  for (const Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16})
    for (const int64_t width : {64, 128})
      cpu::run(bench, {.n_heads = 8, .n_kv_heads = 2, .head_dim = width, .rows = 1024, .cached = 0, .dtype = dtype});
  cpu::run(bench, {.n_heads = 9, .n_kv_heads = 3, .head_dim = 64, .rows = 512, .cached = 0});
  cpu::run(bench, {.n_heads = 4, .n_kv_heads = 1, .head_dim = 256, .rows = 512, .cached = 0});
  cpu::run(bench, {.n_heads = 8, .n_kv_heads = 2, .head_dim = 64, .rows = 1024, .cached = 0, .block_size = 32});
  cpu::run(bench, {.n_heads = 8, .n_kv_heads = 2, .head_dim = 64, .rows = 1024, .cached = 0, .block_size = 512});
  cpu::run(bench, {.n_heads = 4, .n_kv_heads = 1, .head_dim = 64, .rows = 64, .cached = 8000});
  cpu::run(bench, {.n_heads = 8, .n_kv_heads = 2, .head_dim = 64, .rows = 2048, .cached = 0, .window = 512});
  for (const Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16}) {
    cpu::run(bench, {.n_heads = 32, .n_kv_heads = 8, .head_dim = 128, .rows = 1, .cached = 32767, .dtype = dtype});
    cpu::run(bench, {.n_heads = 9, .n_kv_heads = 3, .head_dim = 64, .rows = 1, .cached = 131071, .dtype = dtype});
  }
  cpu::run(bench, {.n_heads = 8, .n_kv_heads = 8, .head_dim = 128, .rows = 1, .cached = 32767});
  cpu::run(bench, {.n_heads = 64, .n_kv_heads = 8, .head_dim = 128, .rows = 1, .cached = 32767});
  return 0;
}
