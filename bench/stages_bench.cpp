// stages_bench.cpp - where a step's time goes: every stage of a prefill and of decode steps, beside what the machine can do.
//   time      wall time of the stage in one step, and its share of the step
//   waiting   the part of that in which a thread had no work left: barriers and uneven shares
//   GB/s      packed weights, and keys and values, that the stage must read
//   GMAC/s    multiply-adds of the stage, the low terms of activations not counted
//   of peak   the larger share: of the read rate, or of the int8 rate (attention: float; steps of many rows with AMX: tiles of bf16), each
//             measured right before
// Method: the loops of the thread pool are observed; an operation's last loops are its product (and what follows it), those before it,
//   and what it does outside loops, norms and quantising. Medians over the steps.
// Usage: stages_bench MODEL [threads] [steps] [tokens in the cache]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "io/tensor_source.h"
#include "minillm/metrics.h"
#include "model/config_reader.h"
#include "model/model_impl.h"

namespace minillm {
namespace {

using Clock = std::chrono::steady_clock;
double now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

enum Stage { kEmbed, kQuantise, kQkv, kAppend, kAttention, kOutput, kGateUp, kDown, kHead, kStages };
constexpr const char* kNames[] = {"embed, angles",  "norm, quantise", "q/k/v", "rotate, append", "attention", "output",
                                  "gate, up, act.", "down",           "head"};

struct StageTime {
  double seconds = 0, waiting = 0;
};

/// The CPU backend, its operations timed. A stage is the last `n_last` loops of an operation, its quantising the rest.
class TimedBackend final : public cpu::CpuBackend {
 public:
  TimedBackend(int n_threads, cpu::Isa isa) : CpuBackend({.n_threads = n_threads}, isa) {
    pool().observe([this](const LoopTime& loop) { loops_.push_back(loop); });
  }

  void reset() { stages_.assign(kStages, {}); }
  const StageTime& stage(int i) const { return stages_[static_cast<size_t>(i)]; }

  void embed(TensorView out, const PackedWeight& table, float scale) override {
    time({kEmbed}, kEmbed, [&] { CpuBackend::embed(out, table, scale); });
  }
  void rope_angles(TensorView angles, std::span<const float> frequencies) override {
    time({kEmbed}, kEmbed, [&] { CpuBackend::rope_angles(angles, frequencies); });
  }
  void attention_input(TensorView q, ConstTensorView x, const AttentionInput& w, ConstTensorView angles, KvStorage& kv,
                       int64_t layer) override {
    time({kQkv, kAppend}, kQuantise, [&] { CpuBackend::attention_input(q, x, w, angles, kv, layer); });
  }
  void attention(TensorView out, ConstTensorView q, const KvStorage& kv, int64_t layer, const AttentionParams& params,
                 TensorView lse) override {
    time({}, kAttention, [&] { CpuBackend::attention(out, q, kv, layer, params, lse); });
  }
  void attention_output(TensorView x, ConstTensorView attended, const PackedWeight& w, ConstTensorView post_norm, float eps) override {
    const Stage stage = attended.dim(1) == w.cols() && in_feed_forward_ ? kDown : kOutput;
    time({stage}, kQuantise, [&] { CpuBackend::attention_output(x, attended, w, post_norm, eps); });
  }
  void feed_forward_input(TensorView gated, ConstTensorView x, const FeedForward& w) override {
    time({kGateUp}, kQuantise, [&] { CpuBackend::feed_forward_input(gated, x, w); });
  }
  void feed_forward_to_tiles(const cpu::RoundedRows& gated, ConstTensorView x, const FeedForward& w) override {
    time({kGateUp}, kQuantise, [&] { CpuBackend::feed_forward_to_tiles(gated, x, w); });
  }
  void feed_forward_from_tiles(TensorView x, const cpu::RoundedRows& gated, const FeedForward& w) override {
    time({kDown}, kQuantise, [&] { CpuBackend::feed_forward_from_tiles(x, gated, w); });
  }
  void feed_forward_output(TensorView x, ConstTensorView gated, const FeedForward& w) override {
    in_feed_forward_ = true;
    CpuBackend::feed_forward_output(x, gated, w);
    in_feed_forward_ = false;
  }
  void head(TensorView logits, ConstTensorView x, std::span<const int32_t> rows, ConstTensorView norm, float eps, const PackedWeight& w,
            float softcap_value) override {
    time({kHead}, kQuantise, [&] { CpuBackend::head(logits, x, rows, norm, eps, w, softcap_value); });
  }

 private:
  void add(Stage stage, const LoopTime& loop) {
    StageTime& to = stages_[stage];
    to.seconds += loop.seconds;
    to.waiting += loop.seconds - loop.busy_seconds / pool().n_threads();
  }
  /// The last loops of `work` are those of `last`; everything else is `rest`.
  void time(std::initializer_list<Stage> last, Stage rest, const std::function<void()>& work) {
    loops_.clear();
    const double start = now();
    work();
    double serial = now() - start;
    const size_t n_rest = loops_.size() - std::min(loops_.size(), last.size());
    for (size_t i = 0; i < loops_.size(); ++i) {
      serial -= loops_[i].seconds;
      add(i < n_rest ? rest : last.begin()[i - n_rest], loops_[i]);
    }
    add(rest, {.seconds = serial, .busy_seconds = serial});  // One thread works.
  }

  std::vector<LoopTime> loops_;
  std::vector<StageTime> stages_ = std::vector<StageTime>(kStages);
  bool in_feed_forward_ = false;
};

struct Work {
  double bytes = 0, macs = 0;
  bool in_floats = false;
};

Work work_of(int stage, const MiniLLM::Impl& model, double n_rows, double n_sequences, double cached) {
  const ModelConfig& c = model.config;
  const auto layers = static_cast<double>(c.n_layers);
  const auto product = [&](const PackedWeight& w, double rows, double times) {
    return Work{times * static_cast<double>(w.bytes()), times * rows * static_cast<double>(w.rows() * w.cols()), false};
  };
  const LayerWeights& w = model.weights.layers[0];
  const double keys = cached + (n_rows / n_sequences + 1) / 2, width = static_cast<double>(c.head_dim);
  switch (stage) {
    case kQkv:
      return product(*w.qkv, n_rows, layers);
    case kOutput:
      return product(*w.output, n_rows, layers);
    case kGateUp:
      return product(*w.gate_up, n_rows, layers);
    case kDown:
      return product(*w.down, n_rows, layers);
    case kHead:
      return product(model.weights.head(), n_sequences, 1);
    case kAttention:
      return {layers * n_sequences * cached * 2 * static_cast<double>(c.n_kv_heads) * width * 2,
              layers * n_rows * keys * 2 * static_cast<double>(c.n_heads) * width, true};
    default:
      return {};
  }
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class Bench {
 public:
  Bench(const std::string& path, int n_threads) {
    const auto source = open_tensor_source(path);
    const ModelConfig config = read_config(*source);
    const char* isa = std::getenv("MINILLM_ISA");
    backend_ = std::make_shared<TimedBackend>(n_threads, cpu::choose_isa(isa == nullptr ? "" : isa));
    Weights weights = load_weights(config, *source, *backend_, {});
    model_ = std::make_unique<MiniLLM::Impl>(config, backend_, std::move(weights), 0);
  }

  /// `n_tokens` a sequence and step, after `cached` ones.
  void run(const char* name, int64_t n_sequences, int64_t n_tokens, int64_t cached, int n_steps) {
    const MachinePeaks peaks = backend_->measure_peaks();
    KVCacheOptions options{.batch_size = n_sequences, .max_length = cached + n_tokens};
    KVCache cache(model_->config, options);
    for (int64_t at = 0; at < cached; at += 512) forward(cache, n_sequences, std::min<int64_t>(512, cached - at));
    std::vector<double> times[kStages], waits[kStages], steps;
    for (int i = -2; i < n_steps; ++i) {  // Two to warm up.
      cache.crop(cached);
      backend_->reset();
      const double start = now();
      forward(cache, n_sequences, n_tokens);
      if (i < 0) continue;
      steps.push_back(now() - start);
      for (int s = 0; s < kStages; ++s) {
        times[s].push_back(backend_->stage(s).seconds);
        waits[s].push_back(backend_->stage(s).waiting);
      }
    }
    print(name, n_sequences, n_tokens, cached, peaks, times, waits, median(steps));
  }

 private:
  void forward(KVCache& cache, int64_t n_sequences, int64_t n_tokens) {
    Tensor ids({n_sequences, n_tokens}, Dtype::kI32);
    for (int32_t& id : ids.values<int32_t>()) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;  // Knuth's MMIX generator.
      id = static_cast<int32_t>((state_ >> 33) % static_cast<uint64_t>(model_->config.vocab_size));
    }
    model_->forward(ids, {.kv_cache = &cache, .last_logits_only = true});
  }

  void print(const char* name, int64_t n_sequences, int64_t n_tokens, int64_t cached, const MachinePeaks& peaks,
             const std::vector<double> (&times)[kStages], const std::vector<double> (&waits)[kStages], double step) {
    const auto rows = static_cast<double>(n_sequences * n_tokens), sequences = static_cast<double>(n_sequences);
    std::printf("%s: %.0f tokens/s, a step of %.3f ms; read %.1f GB/s, float %.0f, int8 %.0f and tiles %.0f GMAC/s\n", name, rows / step,
                1e3 * step, peaks.read_gb_s, peaks.float_gflop_s / 2, peaks.quantised_gflop_s / 2, peaks.bf16_gflop_s / 2);
    // Products of many rows are computed on tiles, where there are any.
    const double product_peak = (rows >= cpu::TileProducts::kFewestRows ? peaks.most_gflop_s() : peaks.quantised_gflop_s) / 2;
    std::printf("| stage | ms | of the step | waiting | GB/s | GMAC/s | of peak |\n|---|---|---|---|---|---|---|\n");
    double rest = step, all_waiting = 0, all_macs = 0, all_bytes = 0;
    for (int s = 0; s < kStages; ++s) {
      const double time = median(times[s]), waiting = median(waits[s]);
      const Work work = work_of(s, *model_, rows, sequences, static_cast<double>(cached));
      rest -= time;
      all_waiting += waiting;
      if (!work.in_floats) all_macs += work.macs;
      all_bytes += work.bytes;
      line(kNames[s], time, step, waiting, work, work.in_floats ? peaks.float_gflop_s / 2 : product_peak, peaks.read_gb_s);
    }
    line("between operations", rest, step, rest / 2, {}, 1, 1);
    line("all", step, step, all_waiting, {all_bytes, all_macs, false}, product_peak, peaks.read_gb_s);
    std::printf("\n");
  }

  static void line(const char* name, double time, double step, double waiting, const Work& work, double gmac_peak, double read_peak) {
    const double gb_s = work.bytes / time / 1e9, gmac_s = work.macs / time / 1e9;
    std::printf("| %s | %.3f | %.1f%% | %.1f%% |", name, 1e3 * time, 100 * time / step, 100 * waiting / step);
    if (work.macs == 0)
      std::printf(" | | |\n");
    else
      std::printf(" %.1f | %.0f | %.0f%% |\n", gb_s, gmac_s, 100 * std::max(gb_s / read_peak, gmac_s / gmac_peak));
  }

  std::shared_ptr<TimedBackend> backend_;
  std::unique_ptr<MiniLLM::Impl> model_;
  uint64_t state_ = 1;
};

}  // namespace
}  // namespace minillm

int main(int argc, char** argv) {
  using namespace minillm;
  if (argc < 2) {
    std::fprintf(stderr, "usage: stages_bench MODEL [threads] [steps] [tokens in the cache]\n");
    return 2;
  }
  const auto argument = [&](int i, int otherwise) { return argc > i ? std::atoi(argv[i]) : otherwise; };
  Bench bench(argv[1], argument(2, 0));
  const int n_steps = argument(3, 61), cached = argument(4, 32);
  bench.run("prefill of 512", 1, 512, 0, std::max(1, n_steps / 8));
  bench.run("decode", 1, 1, cached, n_steps);
  bench.run("decode, batch 16", 16, 1, cached, n_steps);
}
