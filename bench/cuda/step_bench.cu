// step_bench.cu - the kernels of a decode step in the order of a model's layers, over random weights that the GPU makes itself, as one
// CUDA graph: seconds instead of minutes for a model of 8B. Usage: step_bench SHAPE FORMAT BATCH CONTEXT [VARIANT...]; SHAPE 1b, 8b or
// smol; FORMAT bf16, q4_0 or q8_0; VARIANT single (a kernel a product) or chain (up to 4 tokens). Variants are timed by turns, after their
// hidden states and logits have been compared bit for bit with the first one's. One JSON line each: the median step, the bytes it must
// read per second and their share of the read rate of the same minute, and the time of each kind of kernel alone (a graph of all layers).
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "backend/cuda/check.h"
#include "backend/cuda/operations.h"

namespace {

using namespace minillm;
using namespace minillm::cuda;
using Codes = DeviceTensor::Codes;

struct Shape {
  int64_t layers, width, heads, kv_heads, head, ffn, vocab;
};
const std::map<std::string, Shape> kShapes = {
    {"1b", {16, 2048, 32, 8, 64, 8192, 128256}}, {"8b", {32, 4096, 32, 8, 128, 14336, 128256}}, {"smol", {30, 576, 9, 3, 64, 1536, 49152}}};

__device__ uint32_t mix(uint64_t i) {
  i = (i ^ (i >> 30)) * 0xBF58476D1CE4E5B9ull;
  i = (i ^ (i >> 27)) * 0x94D049BB133111EBull;
  return static_cast<uint32_t>(i ^ (i >> 31));
}
/// Two bf16 or half values a word: sign and mantissa random, magnitude about `exponent`'s.
__global__ void fill(uint32_t* to, int64_t n, uint32_t keep, uint32_t set, uint64_t seed) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x)
    to[i] = (mix(static_cast<uint64_t>(i) + seed * 0x9E3779B97F4A7C15ull) & keep) | set;
}
__global__ void fill_floats(float* to, int64_t n, float value) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) to[i] = value;
}
__global__ void read_all(const uint4* from, int64_t n, uint32_t* out) {
  uint32_t sum = 0;
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i + 7 * step < n; i += 8 * step)
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const uint4 v = __ldcs(from + i + j * step);
      sum ^= v.x ^ v.y ^ v.z ^ v.w;
    }
  if (sum == 0x12345678u) *out = sum;
}

uint64_t next_seed = 1;
template <typename T>
T* room(int64_t n) {
  void* p = nullptr;
  MINILLM_CUDA(cudaMalloc(&p, static_cast<size_t>(n) * sizeof(T) + 256));
  MINILLM_CUDA(cudaMemset(p, 0, static_cast<size_t>(n) * sizeof(T) + 256));
  return static_cast<T*>(p);
}
DeviceTensor weight(const std::string& format, int64_t rows, int64_t cols) {
  DeviceTensor w;
  w.rows = rows, w.cols = w.stride = cols;
  if (format == "bf16") {
    auto* data = room<uint32_t>(rows * cols / 2);
    fill<<<1024, 256>>>(data, rows * cols / 2, 0x80FF80FFu, 0x3C003C00u, next_seed++);  // +-0.0078 to 0.03
    w.codes = Codes::kBF16, w.data = data;
    return w;
  }
  w.stride = (cols + 127) / 128 * 128;
  rows = (rows + 15) / 16 * 16;
  const bool nibbles = format == "q4_0";
  const int64_t words = rows * w.stride / (nibbles ? 8 : 4), scales = rows * w.stride / 64;
  auto* data = room<uint32_t>(words);
  auto* scale = room<uint32_t>(scales);
  fill<<<1024, 256>>>(data, words, 0xFFFFFFFFu, 0, next_seed++);
  fill<<<1024, 256>>>(scale, scales, 0x03FF03FFu, nibbles ? 0x18001800u : 0x08000800u, next_seed++);
  w.codes = nibbles ? Codes::kNibbles : Codes::kBytes, w.data = data, w.scale = scale, w.half_scales = true, w.group = 32;
  w.zero = nibbles ? 8.0f : 128.0f;
  return w;
}
int64_t bytes_of(const DeviceTensor& w) {
  const int64_t n = w.rows * w.stride;
  return w.codes == Codes::kBF16 ? 2 * n : (w.codes == Codes::kNibbles ? n / 2 : n) + n / 16;
}

struct Model {
  Shape s;
  int batch, context;
  struct Layer {
    DeviceTensor qkv, output, gate_up, down;
  };
  std::vector<Layer> layers;
  DeviceTensor head, table;
  float *norm, *x, *qkv, *attended, *logits, *angles, *frequencies;
  void *split, *split_gated, *cache, *decode, *best;
  int32_t *ids, *step_data;
  DeviceStep step;
  AttentionScalars scalars;
  int64_t weight_bytes = 0, page_bytes = 0;
  static constexpr int kPage = 64;

  Model(const Shape& shape, const std::string& format, int n_rows, int n_context) : s(shape), batch(n_rows), context(n_context) {
    for (int64_t i = 0; i < s.layers; ++i) {
      layers.push_back({weight(format, (s.heads + 2 * s.kv_heads) * s.head, s.width), weight(format, s.width, s.heads * s.head),
                        weight(format, 2 * s.ffn, s.width), weight(format, s.width, s.ffn)});
      for (const DeviceTensor* w : {&layers.back().qkv, &layers.back().output, &layers.back().gate_up, &layers.back().down})
        weight_bytes += bytes_of(*w);
    }
    head = weight(format, s.vocab, s.width);
    weight_bytes += bytes_of(head);
    table = weight("bf16", batch, s.width);
    norm = room<float>(s.width);
    fill_floats<<<8, 256>>>(norm, s.width, 1.0f);
    x = room<float>(batch * s.width), qkv = room<float>(batch * (s.heads + 2 * s.kv_heads) * s.head);
    attended = room<float>(batch * s.heads * s.head), logits = room<float>(batch * s.vocab), angles = room<float>(batch * s.head);
    frequencies = room<float>(s.head / 2);
    fill_floats<<<1, 256>>>(frequencies, s.head / 2, 0.01f);
    const int64_t widest = std::max({s.width, s.ffn, s.heads * s.head});
    split = room<char>(static_cast<int64_t>(split_input_bytes(64, widest)));
    split_gated = room<char>(static_cast<int64_t>(split_input_bytes(64, s.ffn)));
    scalars = {static_cast<int>(s.heads), static_cast<int>(s.kv_heads), static_cast<int>(s.head), 0.125f};
    const int64_t pages = context / kPage + 1, page = s.layers * 2 * s.kv_heads * kPage * s.head;
    page_bytes = page * 2;
    auto* cached = room<uint32_t>(batch * pages * page / 2);
    fill<<<1024, 256>>>(cached, batch * pages * page / 2, 0x83FF83FFu, 0x38003800u, next_seed++);
    cache = cached;
    decode = room<char>(static_cast<int64_t>(decode_scratch_bytes(batch, scalars)));
    best = room<char>(static_cast<int64_t>(argmax_scratch_bytes()));
    ids = room<int32_t>(64);
    std::vector<int32_t> host;
    for (int part = 0; part < 5; ++part)
      for (int r = 0; r < batch; ++r)
        host.push_back(part == 0 ? r : part == 3 ? context + 1 : part == 4 ? static_cast<int32_t>(r * pages) : context);
    for (int64_t i = 0; i < batch * pages; ++i) host.push_back(static_cast<int32_t>((i * 7919 + 13) % (batch * pages)));
    step_data = room<int32_t>(static_cast<int64_t>(host.size()));
    MINILLM_CUDA(cudaMemcpy(step_data, host.data(), host.size() * 4, cudaMemcpyHostToDevice));
    step.tokens = step_data, step.positions = step_data + batch, step.slots = step_data + 2 * batch;
    step.key_counts = step_data + 3 * batch, step.table_starts = step_data + 4 * batch, step.tables = step_data + 5 * batch;
    step.n_rows = batch, step.one_row_each = true;
  }

  KeyLayout layout(int64_t layer) const {
    KeyLayout k;
    const int64_t part = s.kv_heads * kPage * s.head;
    k.keys = static_cast<const uint16_t*>(cache) + layer * 2 * part;
    k.values = static_cast<const uint16_t*>(cache) + (layer * 2 + 1) * part;
    k.dtype = Dtype::kF16, k.page_tokens = kPage, k.page_stride = page_bytes / 2, k.token_stride = s.head, k.head_stride = kPage * s.head;
    k.n_pages = batch * (context / kPage + 1);
    return k;
  }
  FewTokenProduct product(const DeviceTensor& w, const float* in, bool normed, float* out, int64_t stride, Epilogue epilogue) const {
    FewTokenProduct p;
    p.w = w, p.x = in, p.norm = normed ? norm : nullptr, p.eps = 1e-5f, p.n_tokens = batch, p.out = out, p.out_stride = stride;
    p.epilogue = epilogue, p.split_inputs = batch > 1 ? split : nullptr;
    return p;
  }
  FewTokenProduct qkv_of(int64_t i) const {
    return product(layers[static_cast<size_t>(i)].qkv, x, true, qkv, layers[0].qkv.rows, Epilogue::kStore);
  }
  FewTokenProduct output_of(int64_t i) const {
    return product(layers[static_cast<size_t>(i)].output, attended, false, x, s.width, Epilogue::kAdd);
  }
  FewTokenProduct gate_up_of(int64_t i) const {
    FewTokenProduct p = product(layers[static_cast<size_t>(i)].gate_up, x, true, nullptr, 0, Epilogue::kGated);
    p.split_out = split_gated, p.next = layers[static_cast<size_t>(i)].down;
    return p;
  }
  FewTokenProduct down_of(int64_t i) const {
    FewTokenProduct p = product(layers[static_cast<size_t>(i)].down, nullptr, false, x, s.width, Epilogue::kAdd);
    p.split_inputs = split_gated, p.is_split = true;
    return p;
  }
  FewTokenProduct head_of() const { return product(head, x, true, logits, s.vocab, Epilogue::kStore); }
  void run(std::vector<FewTokenProduct> products, cudaStream_t t) const {
    for (FewTokenProduct& p : products) {
      if (!chained) few_token_product(p, t);
    }
    if (chained) product_chain(products, barrier, t);
  }
  void run_attention(int64_t i, cudaStream_t t) const {
    const AppendInputs in{qkv,     nullptr,
                          nullptr, nullptr,
                          angles,  {scalars.n_heads, scalars.n_kv_heads, scalars.head_dim, scalars.head_dim, RopeLayout::kHalves, 1e-5f}};
    append_and_attend(attended, in, layout(i), step, scalars, decode, t);
  }
  void run_step(cudaStream_t t) const {
    embed(x, table, step.tokens, batch, 1.0f, t);
    rope_angles(angles, step.positions, frequencies, batch, s.head / 2, t);
    run({qkv_of(0)}, t);
    for (int64_t i = 0; i < s.layers; ++i) {
      run_attention(i, t);
      run({output_of(i), gate_up_of(i), down_of(i), i + 1 < s.layers ? qkv_of(i + 1) : head_of()}, t);
    }
    argmax(ids, logits, batch, s.vocab, best, t);
  }
  bool chained = false;
  unsigned int* barrier = room<unsigned int>(64);
};

cudaGraphExec_t capture(cudaStream_t stream, const std::function<void(cudaStream_t)>& work) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  MINILLM_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  work(stream);
  MINILLM_CUDA(cudaStreamEndCapture(stream, &graph));
  MINILLM_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  MINILLM_CUDA(cudaGraphDestroy(graph));
  return exec;
}
double microseconds(cudaStream_t stream, int repeats, const std::function<void()>& work) {
  static cudaEvent_t begin = nullptr, end = nullptr;
  if (begin == nullptr) {
    MINILLM_CUDA(cudaEventCreate(&begin));
    MINILLM_CUDA(cudaEventCreate(&end));
  }
  MINILLM_CUDA(cudaEventRecord(begin, stream));
  for (int i = 0; i < repeats; ++i) work();
  MINILLM_CUDA(cudaEventRecord(end, stream));
  MINILLM_CUDA(cudaEventSynchronize(end));
  float ms = 0;
  MINILLM_CUDA(cudaEventElapsedTime(&ms, begin, end));
  return ms * 1e3 / repeats;
}
double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}
uint64_t checksum(const float* device, int64_t n, bool& finite) {
  std::vector<float> host(static_cast<size_t>(n));
  MINILLM_CUDA(cudaMemcpy(host.data(), device, host.size() * 4, cudaMemcpyDeviceToHost));
  uint64_t sum = 1469598103934665603ull;
  for (float f : host) {
    uint32_t bits = 0;
    std::memcpy(&bits, &f, 4);
    sum = (sum ^ bits) * 1099511628211ull;
    finite = finite && f == f && f < 1e30f && f > -1e30f;
  }
  return sum;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 5 || kShapes.count(argv[1]) == 0) return std::fprintf(stderr, "step_bench SHAPE FORMAT BATCH CONTEXT [VARIANT...]\n"), 2;
  std::vector<std::string> variants(argv + 5, argv + argc);
  if (variants.empty()) variants = {"single", "chain"};
  cudaStream_t stream = nullptr;
  MINILLM_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  constexpr int64_t kRead = int64_t{4} << 30;
  auto* memory = room<char>(2 * kRead);
  const auto reads = [&] {
    read_all<<<132 * 8, 512, 0, stream>>>(reinterpret_cast<const uint4*>(memory), 2 * kRead / 16, reinterpret_cast<uint32_t*>(memory));
  };
  const auto copies = [&] { MINILLM_CUDA(cudaMemcpyAsync(memory, memory + kRead, kRead, cudaMemcpyDeviceToDevice, stream)); };
  microseconds(stream, 1, reads), microseconds(stream, 1, copies);
  const double read_gb_s = 2e-3 * kRead / microseconds(stream, 3, reads), copy_gb_s = 2e-3 * kRead / microseconds(stream, 3, copies);
  MINILLM_CUDA(cudaFree(memory));
  Model model(kShapes.at(argv[1]), argv[2], std::atoi(argv[3]), std::atoi(argv[4]));
  MINILLM_CUDA(cudaDeviceSynchronize());
  struct Run {
    cudaGraphExec_t step;
    std::vector<double> us;
    double kinds[6];
    bool equal, finite;
  };
  std::vector<Run> runs;
  uint64_t first[2] = {};
  const int64_t layers = model.s.layers;
  const std::function<void(cudaStream_t)> kinds[6] = {
      [&](cudaStream_t t) {
        for (int64_t i = 0; i < layers; ++i) model.run({model.qkv_of(i)}, t);
      },
      [&](cudaStream_t t) {
        for (int64_t i = 0; i < layers; ++i) model.run_attention(i, t);
      },
      [&](cudaStream_t t) {
        for (int64_t i = 0; i < layers; ++i) model.run({model.output_of(i)}, t);
      },
      [&](cudaStream_t t) {
        for (int64_t i = 0; i < layers; ++i) model.run({model.gate_up_of(i)}, t);
      },
      [&](cudaStream_t t) {
        for (int64_t i = 0; i < layers; ++i) model.run({model.down_of(i)}, t);
      },
      [&](cudaStream_t t) { model.run({model.head_of()}, t), model.run({model.head_of()}, t); }};
  for (size_t v = 0; v < variants.size(); ++v) {
    model.chained = variants[v] == "chain";
    Run run{};
    run.finite = true;
    run.step = capture(stream, [&](cudaStream_t t) { model.run_step(t); });
    MINILLM_CUDA(cudaGraphLaunch(run.step, stream));
    MINILLM_CUDA(cudaStreamSynchronize(stream));
    const uint64_t sums[2] = {checksum(model.x, model.batch * model.s.width, run.finite),
                              checksum(model.logits, model.batch * model.s.vocab, run.finite)};
    if (v == 0) std::copy(sums, sums + 2, first);
    run.equal = sums[0] == first[0] && sums[1] == first[1];
    for (int k = 0; k < 6; ++k) {
      const cudaGraphExec_t exec = capture(stream, kinds[k]);
      std::vector<double> us;
      for (int i = 0; i < 4; ++i) us.push_back(microseconds(stream, 2, [&] { MINILLM_CUDA(cudaGraphLaunch(exec, stream)); }));
      run.kinds[k] = median(us) / static_cast<double>(k == 5 ? 2 : layers);
      MINILLM_CUDA(cudaGraphExecDestroy(exec));
    }
    runs.push_back(run);
  }
  for (int round = 0; round < 7; ++round)
    for (Run& run : runs) {
      MINILLM_CUDA(cudaGraphLaunch(run.step, stream));
      run.us.push_back(microseconds(stream, 6, [&] { MINILLM_CUDA(cudaGraphLaunch(run.step, stream)); }));
    }
  const Model::Layer& l = model.layers[0];
  const double must = static_cast<double>(model.weight_bytes) +
                      static_cast<double>(model.batch) * model.context * static_cast<double>(model.page_bytes) / Model::kPage;
  for (size_t v = 0; v < variants.size(); ++v) {
    const Run& r = runs[v];
    const double us = median(r.us);
    std::printf(
        "{\"shape\":\"%s\",\"format\":\"%s\",\"batch\":%d,\"context\":%d,\"variant\":\"%s\",\"equal\":%s,\"finite\":%s,\"step_us\":%.1f,"
        "\"of_read\":%.3f,\"gb_s\":%.0f,\"us\":{\"qkv\":%.2f,\"attention\":%.2f,\"output\":%.2f,\"gate_up\":%.2f,\"down\":%.2f,\"head\":%."
        "2f},"
        "\"product_gb_s\":[%.0f,%.0f,%.0f,%.0f,%.0f],\"read_gb_s\":%.0f,\"copy_gb_s\":%.0f}\n",
        argv[1], argv[2], model.batch, model.context, variants[v].c_str(), r.equal ? "true" : "false", r.finite ? "true" : "false", us,
        1e-3 * must / us / read_gb_s, 1e-3 * must / us, r.kinds[0], r.kinds[1], r.kinds[2], r.kinds[3], r.kinds[4], r.kinds[5],
        1e-3 * static_cast<double>(bytes_of(l.qkv)) / r.kinds[0], 1e-3 * static_cast<double>(bytes_of(l.output)) / r.kinds[2],
        1e-3 * static_cast<double>(bytes_of(l.gate_up)) / r.kinds[3], 1e-3 * static_cast<double>(bytes_of(l.down)) / r.kinds[4],
        1e-3 * static_cast<double>(bytes_of(model.head)) / r.kinds[5], read_gb_s, copy_gb_s);
    std::fflush(stdout);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "step_bench: %s\n", error.what());
  return 1;
}
