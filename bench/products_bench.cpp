// products_bench.cpp - matrix products of one thread against the machine's limits, for every weight type.
//   decode   one row against weights that no cache holds: GB/s of packed weights, share of the read probe
//   prefill  many rows: 10^9 multiply-adds a second, share of the int8 (or float) probe; the low terms of activations count, too
// Activations: one unit of four is fine (see backend/cpu/isa/quantise.cpp), the same for every row.
// Method: probe, kernel, probe; the median of kernel / mean probe over the samples whose two probes agree within 15%. Time is that
//   of the thread, so that other programs disturb less; clocks and shared cores move kernel and probe alike.
// Usage: products_bench [rows of the weight] [K] [tokens]
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "base/dtype.h"
#include "support/quantised.h"

namespace minillm::cpu {
namespace {

constexpr int64_t kProbeBytes = int64_t{64} << 20;
constexpr double kColdBytes = 128e6;
constexpr int kSamples = 31;

double seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct Rate {
  double best = 0;   ///< Amount a second.
  double share = 0;  ///< Median of rate / probe rate.
};

/// `work` does `amount`; `probe` does `probe_amount` at the limit.
template <typename Work, typename Probe>
Rate measure(double amount, double probe_amount, Work&& work, Probe&& probe) {
  std::vector<double> shares;
  Rate rate;
  for (int i = 0; i < kSamples; ++i) {
    const double t0 = seconds();
    probe();
    const double t1 = seconds();
    work();
    const double t2 = seconds();
    probe();
    const double t3 = seconds();
    const double before = probe_amount / (t1 - t0), after = probe_amount / (t3 - t2), got = amount / (t2 - t1);
    if (std::max(before, after) > 1.15 * std::min(before, after)) continue;
    rate.best = std::max(rate.best, got);
    shares.push_back(2 * got / (before + after));
  }
  if (shares.empty()) return rate;
  std::sort(shares.begin(), shares.end());
  rate.share = shares[shares.size() / 2];
  return rate;
}

class Bench {
 public:
  Bench(int64_t n, int64_t k, int64_t n_tokens)
      : n_(n),
        k_(k),
        n_tokens_(n_tokens),
        kernels_(kernels_of(isa_)),
        probe_memory_(memory_.allocate(kProbeBytes)),
        x_(test::randn(1, n_tokens * k)),
        out_(static_cast<size_t>(n_tokens * n)) {
    std::memset(probe_memory_.data(), 1, kProbeBytes);
    for (size_t i = 0; i < x_.size(); ++i)
      if (i / kUnit % 4 == 0) x_[i] *= 8;
  }

  void run(Dtype dtype) {
    const auto rows = test::random_rows(dtype, 2, n_, k_);
    const ConstTensorView view(rows.data(), dtype, {n_, k_});
    std::vector<std::unique_ptr<CpuWeight>> weights;
    do {
      weights.push_back(pack_weight({&view, 1}, WeightRole::kProduct, {}, pool_, [this](size_t bytes) { return memory_.allocate(bytes); }));
    } while (static_cast<double>(weights[0]->bytes()) * static_cast<double>(weights.size()) < kColdBytes);

    const double cold = static_cast<double>(weights[0]->bytes()) * static_cast<double>(weights.size());
    const Rate decode = measure(
        cold, static_cast<double>(kProbeBytes),
        [&] {
          for (const auto& w : weights) multiply(1, *w);
        },
        [&] { sink_ = kernels_.probe_read(probe_memory_.data(), kProbeBytes); });

    const bool quantised = is_quantised(dtype);
    const int64_t probe_macs = quantised ? kernels_.probe_int8_macs : kernels_.probe_float_macs, steps = 500'000'000 / probe_macs;
    const double n_terms = quantised ? 1.25 : 1;
    const Rate prefill = measure(
        n_terms * static_cast<double>(n_ * k_ * n_tokens_), static_cast<double>(steps * probe_macs),
        [&] { multiply(n_tokens_, *weights[0]); }, [&] { sink_ = quantised ? kernels_.probe_int8(steps) : kernels_.probe_float(steps); });
    std::printf("%-5s decode %5.1f GB/s, %3.0f%% of reading   prefill %4.0f GMAC/s, %3.0f%% of peak\n", std::string(name_of(dtype)).c_str(),
                1e-9 * decode.best, 100 * decode.share, 1e-9 * prefill.best, 100 * prefill.share);
  }

 private:
  void multiply(int64_t n_tokens, const CpuWeight& w) {
    products_.matmul({out_.data(), Dtype::kF32, {n_tokens, n_}}, {x_.data(), Dtype::kF32, {n_tokens, k_}}, w);
  }

  int64_t n_, k_, n_tokens_;
  Isa isa_ = choose_isa(std::getenv("MINILLM_ISA") == nullptr ? "" : std::getenv("MINILLM_ISA"));
  const Kernels& kernels_;
  CountedMemory memory_;
  ThreadPool pool_{1};
  Products products_{pool_, kernels_, [this](size_t bytes) { return memory_.allocate(bytes); }};
  Buffer probe_memory_;
  std::vector<float> x_, out_;
  volatile float sink_ = 0;
};

}  // namespace
}  // namespace minillm::cpu

int main(int argc, char** argv) {
  using namespace minillm;
  const auto argument = [&](int i, int64_t otherwise) { return argc > i ? std::atoll(argv[i]) : otherwise; };
  cpu::Bench bench(argument(1, 1536), argument(2, 1536), argument(3, 252));
  const int64_t k = argument(2, 1536);
  for (Dtype dtype : test::kBlockFormats)
    if (k % block_elements(dtype) == 0) bench.run(dtype);
  for (Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16}) bench.run(dtype);
}
