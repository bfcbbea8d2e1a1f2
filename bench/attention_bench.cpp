// attention_bench.cpp - attention on the CPU as a share of what the machine reaches: prefill against multiply-adds on
// registers, decode against plain reading. Each sample is probe, kernel, probe; the median of kernel / mean of its probes is
// printed, so that a noisy neighbour slows both. With one thread (the default) time is that thread's own processor time.
//   attention_bench [threads] [samples]                                                    the list below
//   attention_bench [threads] [samples] profile heads kv_heads width rows cached [copies]  one case, repeated
//   attention_bench [threads] [samples] answer                                             cases from standard input
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "backend/cpu/attention.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/isa.h"

namespace minillm::cpu {
namespace {

/// Memory to be read, in huge pages as far as the system gives them.
class HugeMemory {
 public:
  explicit HugeMemory(size_t bytes) : bytes_(bytes) {
    data_.reset(static_cast<char*>(std::aligned_alloc(size_t{2} << 20, bytes)));
    madvise(data_.get(), bytes, MADV_HUGEPAGE);
    std::memset(data_.get(), 1, bytes);
  }
  const char* data() const { return data_.get(); }
  size_t size() const { return bytes_; }

 private:
  size_t bytes_;
  std::unique_ptr<char, void (*)(void*)> data_{nullptr, [](void* p) { std::free(p); }};
};

struct Bench {
  int n_threads, n_samples;
  Isa isa = choose_isa(std::getenv("MINILLM_ISA") == nullptr ? "" : std::getenv("MINILLM_ISA"));
  ThreadPool pool{n_threads};
  const Kernels& kernels = kernels_of(isa);
  const AttentionKernels& attention_kernels = attention_kernels_of(name_of(isa));
  HugeMemory memory{size_t{640} << 20};
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
  /// What 16-bit keys and values allow: the rate of tiles of bfloat16 where there are any.
  double probe_16_bit_gflops() {
    if (kernels.probe_tiles == nullptr) return probe_gflops();
    const int64_t items = 8 * n_threads, steps = 2000;
    const double s = seconds([&] { pool.for_each(items, [&](int64_t, int) { kernels.probe_tiles(steps); }); });
    return 2e-9 * static_cast<double>(items * steps * kernels.probe_tile_macs) / s;
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
  int64_t copies = 1;  ///< Caches used in turn, so that none is found in the last-level cache.
};

/// One call of attention over a cache of its own, to be repeated.
class Case {
 public:
  Case(Bench& bench, const Shape& shape)
      : shape_(shape),
        n_pages_((shape.cached + shape.rows + kPageTokens - 1) / kPageTokens),
        attention_(
            bench.pool, bench.attention_kernels,
            [](size_t bytes) { return Buffer(std::aligned_alloc(64, (bytes + 63) / 64 * 64), bytes, [](void* p) { std::free(p); }); }),
        kv_({1, shape.n_kv_heads, shape.head_dim, kPageTokens, n_pages_ * shape.copies, shape.dtype}, bench.attention_kernels),
        q_(static_cast<size_t>(shape.rows * shape.n_heads * shape.head_dim), 0.01f),
        out_(q_.size()) {
    attention_.reserve({.max_rows = shape.rows,
                        .n_heads = shape.n_heads,
                        .n_kv_heads = shape.n_kv_heads,
                        .head_dim = shape.head_dim,
                        .max_context = n_keys(),
                        .max_sequences = 1});
    for (size_t i = 0; i < q_.size(); ++i) q_[i] = static_cast<float>((i * 15485863) % 2048) / 1024.0f - 1.0f;
    fill();
    params_.n_heads = shape.n_heads;
    params_.n_kv_heads = shape.n_kv_heads;
    params_.head_dim = shape.head_dim;
    params_.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
    params_.block_size = shape.block_size;
    params_.window = shape.window;
  }

  void run() {
    const Shape& s = shape_;
    const SequenceSlice slice{0, s.rows, s.cached, table_.data() + turn_ * n_pages_};
    turn_ = (turn_ + 1) % s.copies;
    attention_.attention({{}, {}, {&slice, 1}}, {out_.data(), Dtype::kF32, {s.rows, s.n_heads, s.head_dim}},
                         {q_.data(), Dtype::kF32, {s.rows, s.n_heads, s.head_dim}}, kv_, 0, params_, {});
  }

  double flops() const {
    double pairs = 0;  // Of a query and a key that it sees.
    for (int64_t i = 0; i < shape_.rows; ++i) {
      const int64_t seen = shape_.cached + i + 1;
      pairs += static_cast<double>(shape_.window > 0 ? std::min(seen, shape_.window) : seen);
    }
    return 4 * pairs * static_cast<double>(shape_.n_heads * shape_.head_dim);
  }
  double bytes() const { return static_cast<double>(kv_.bytes() / shape_.copies); }
  std::string name() const {
    const Shape& s = shape_;
    return std::string(name_of(s.dtype)) + " d" + std::to_string(s.head_dim) + " " + std::to_string(s.n_heads) + "/" +
           std::to_string(s.n_kv_heads) + " " + std::to_string(s.rows) + " x " + std::to_string(n_keys()) + " block " +
           std::to_string(s.block_size) + (s.window > 0 ? " window " + std::to_string(s.window) : "");
  }

 private:
  static constexpr int64_t kPageTokens = 64;

  int64_t n_keys() const { return shape_.cached + shape_.rows; }

  void fill() {
    const int64_t width = shape_.n_kv_heads * shape_.head_dim, all = n_pages_ * shape_.copies;
    kv_.commit(all);
    for (int64_t i = 0; i < all; ++i) table_.push_back(static_cast<int32_t>(i));
    std::vector<float> one(static_cast<size_t>(width));
    for (int64_t t = 0; t < n_keys(); ++t) {
      for (size_t i = 0; i < one.size(); ++i)
        one[i] = static_cast<float>((static_cast<size_t>(t) * 7919 + i * 104729) % 2048) / 1024.0f - 1.0f;
      const ConstTensorView view{one.data(), Dtype::kF32, {1, shape_.n_kv_heads, shape_.head_dim}};
      kv_.write(0, static_cast<int32_t>(t / kPageTokens), t % kPageTokens, view, view);
    }
    for (int64_t i = n_pages_; i < all; ++i) kv_.copy_page(static_cast<int32_t>(i % n_pages_), static_cast<int32_t>(i));
  }

  Shape shape_;
  int64_t n_pages_, turn_ = 0;
  CpuAttention attention_;
  CpuKvStorage kv_;
  std::vector<float> q_, out_;
  std::vector<int32_t> table_;
  AttentionParams params_;
};

/// Enough copies that all of them together are twice the probe's memory, which is past the last-level cache.
int64_t copies_past_cache(const Bench& bench, const Shape& s) {
  const int64_t element = s.dtype == Dtype::kF32 ? 4 : 2, bytes = 2 * s.n_kv_heads * s.head_dim * (s.cached + s.rows) * element;
  return std::max<int64_t>(1, static_cast<int64_t>(bench.memory.size()) / bytes);
}

void run(Bench& bench, Shape s) {
  if (s.rows < 16) s.copies = copies_past_cache(bench, s);
  Case attention(bench, s);
  const auto work = [&] { attention.run(); };
  if (s.rows >= 16)
    bench.report(attention.name(), "GF/s", 1e-9 * attention.flops(),
                 s.dtype == Dtype::kF32 ? &Bench::probe_gflops : &Bench::probe_16_bit_gflops, work);
  else
    bench.report(attention.name(), "GB/s", 1e-9 * attention.bytes(), &Bench::probe_gbps, work);
}

void run_list(Bench& bench) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16})
    for (const int64_t width : {64, 128})
      run(bench, {.n_heads = 8, .n_kv_heads = 2, .head_dim = width, .rows = 1024, .cached = 0, .dtype = dtype});
  run(bench, {.n_heads = 9, .n_kv_heads = 3, .head_dim = 64, .rows = 512, .cached = 0});
  run(bench, {.n_heads = 4, .n_kv_heads = 1, .head_dim = 256, .rows = 512, .cached = 0});
  run(bench, {.n_heads = 8, .n_kv_heads = 2, .head_dim = 64, .rows = 1024, .cached = 0, .block_size = 32});
  run(bench, {.n_heads = 8, .n_kv_heads = 2, .head_dim = 64, .rows = 1024, .cached = 0, .block_size = 512});
  run(bench, {.n_heads = 9, .n_kv_heads = 3, .head_dim = 64, .rows = 512, .cached = 7600});
  run(bench, {.n_heads = 8, .n_kv_heads = 2, .head_dim = 64, .rows = 2048, .cached = 0, .window = 512});
  for (const Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16}) {
    run(bench, {.n_heads = 32, .n_kv_heads = 8, .head_dim = 128, .rows = 1, .cached = 32767, .dtype = dtype});
    run(bench, {.n_heads = 9, .n_kv_heads = 3, .head_dim = 64, .rows = 1, .cached = 32767, .dtype = dtype});
  }
  run(bench, {.n_heads = 9, .n_kv_heads = 3, .head_dim = 64, .rows = 1, .cached = 2000});
  run(bench, {.n_heads = 8, .n_kv_heads = 8, .head_dim = 128, .rows = 1, .cached = 32767});
  run(bench, {.n_heads = 64, .n_kv_heads = 8, .head_dim = 128, .rows = 1, .cached = 32767});
}

/// Cases from standard input, for bench/attention_peers.py: a line "type heads kv_heads width rows cached" makes one, each
/// line "run" repeats it and answers "seconds flops bytes", each line "probe" answers "GF/s GB/s".
int answer(Bench& bench) {
  std::unique_ptr<Case> attention;
  std::string line;
  while (std::getline(std::cin, line)) {
    if (line == "probe") {
      std::printf("%.2f %.3f\n", bench.probe_16_bit_gflops(), bench.probe_gbps());
    } else if (line == "run" && attention != nullptr) {
      bench.probe_gflops();  // Wakes the threads, as the products before attention do in a model.
      const double seconds = bench.seconds([&] { attention->run(); });
      std::printf("%.9f %.0f %.0f\n", seconds, attention->flops(), attention->bytes());
    } else {
      char type[8] = {};
      Shape s{};
      if (std::sscanf(line.c_str(), "%7s %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64, type, &s.n_heads, &s.n_kv_heads,
                      &s.head_dim, &s.rows, &s.cached) != 6)
        return 1;
      s.dtype = std::string(type) == "f32" ? Dtype::kF32 : std::string(type) == "bf16" ? Dtype::kBF16 : Dtype::kF16;
      if (s.rows < 16) s.copies = copies_past_cache(bench, s);
      attention.reset();
      attention = std::make_unique<Case>(bench, s);
      attention->run();
      std::printf("%s\n", attention->name().c_str());
    }
    std::fflush(stdout);
  }
  return 0;
}

/// The one case given on the command line, repeated without probes, for a profiler.
int profile(Bench& bench, int argc, char** argv) {
  const auto number = [&](int i) { return std::strtoll(argv[i], nullptr, 10); };
  Shape s{.n_heads = number(4), .n_kv_heads = number(5), .head_dim = number(6), .rows = number(7), .cached = number(8)};
  if (s.rows < 16) s.copies = argc > 9 ? number(9) : copies_past_cache(bench, s);
  Case attention(bench, s);
  const double seconds = bench.seconds([&] {
    for (int i = 0; i < bench.n_samples; ++i) attention.run();
  });
  std::printf("%s: %.1f GF/s, %.2f GB/s\n", attention.name().c_str(), 1e-9 * attention.flops() * bench.n_samples / seconds,
              1e-9 * attention.bytes() * bench.n_samples / seconds);
  return 0;
}

}  // namespace
}  // namespace minillm::cpu

int main(int argc, char** argv) {
  using namespace minillm;
  const int n_threads = argc > 1 ? std::atoi(argv[1]) : 1, n_samples = argc > 2 ? std::atoi(argv[2]) : 30;
  const std::string mode = argc > 3 ? argv[3] : "";
  cpu::Bench bench{n_threads, n_samples};
  if (mode == "answer") return cpu::answer(bench);
  if (mode == "profile" && argc > 8) return cpu::profile(bench, argc, argv);
  std::printf("%s, %d threads: %.0f GF/s, %.1f GB/s\n", bench.attention_kernels.name, n_threads, bench.probe_gflops(), bench.probe_gbps());
  cpu::run_list(bench);
  return 0;
}
