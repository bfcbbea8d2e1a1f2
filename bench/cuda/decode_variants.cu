// decode_variants.cu - the decode attention kernel as the engine launches it, over one run of keys, pages of 64 and pages of 16: checked
// against attention by the book in double, then timed in CUDA graphs with a cold L2 cache (each launch reads other keys, from several
// times 60 MB). One JSON line a measurement. As a library it serves decode_peers.py.
// Build: nvcc decode_variants.cu attention_decode.cu, include path src and include.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "backend/cuda/operations.h"
#include "prefill_reference.cuh"

namespace minillm::cuda {
int multiprocessors() {
  static const int n = [] {
    int device = 0, count = 0;
    CHECK(cudaGetDevice(&device));
    CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
    return count;
  }();
  return n;
}
}  // namespace minillm::cuda

using namespace minillm::cuda;

struct Shape {
  int heads, kv_heads, d;
};

// Keys and values of each sequence are [head][page of the sequence][token][D], its pages taken in scattered order: contiguous keys are
// one page. What the kernel reads of a page and head is one piece, as in the engine's cache.
struct Layout {
  int page_tokens, n_pages;  ///< Of a sequence; pages hold room for the longest.
  KeyLayout of(const void* k, const void* v, const Shape& s, int batch) const {
    KeyLayout layout;
    layout.keys = k;
    layout.values = v;
    layout.dtype = minillm::Dtype::kBF16;
    layout.page_tokens = page_tokens;
    layout.page_stride = int64_t{page_tokens} * s.d;
    layout.token_stride = s.d;
    layout.head_stride = int64_t{n_pages} * page_tokens * s.d;
    layout.n_pages = int64_t{batch} * s.kv_heads * n_pages;
    return layout;
  }
  int page(int sequence, int i, int kv_heads) const {
    int step = n_pages / 2 + 1;
    while (std::gcd(step, n_pages) != 1) ++step;
    return sequence * kv_heads * n_pages + int(int64_t{i} * step % n_pages);
  }
};

/// A step of one token a sequence in device memory.
struct Step {
  std::vector<int32_t> all;
  int32_t* device = nullptr;
  DeviceStep step;

  Step(const std::vector<int>& lengths, const Layout& layout, const Shape& s) {
    const int n = int(lengths.size());
    for (int length : lengths) all.push_back(length - 1);
    for (int length : lengths) all.push_back(length);
    for (int i = 0; i < n; ++i) all.push_back(i * layout.n_pages);
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < layout.n_pages; ++j) all.push_back(layout.page(i, j, s.kv_heads));
    CHECK(cudaMalloc(&device, all.size() * 4));
    CHECK(cudaMemcpy(device, all.data(), all.size() * 4, cudaMemcpyHostToDevice));
    step.slots = device;
    step.key_counts = device + n;
    step.table_starts = device + 2 * n;
    step.tables = device + 3 * n;
    step.n_rows = n;
    step.max_keys = *std::max_element(lengths.begin(), lengths.end());
    step.one_row_each = true;
  }
  ~Step() { cudaFree(device); }
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;
};

static AttentionScalars scalars_of(const Shape& s) {
  AttentionScalars a;
  a.n_heads = s.heads, a.n_kv_heads = s.kv_heads, a.head_dim = s.d;
  a.scale = 1.0f / sqrtf(float(s.d));
  return a;
}

template <typename T>
static T* device_memory(size_t n) {
  T* data = nullptr;
  CHECK(cudaMalloc(&data, n * sizeof(T)));
  return data;
}

static void* zeroed_scratch(int rows, const AttentionScalars& a) {
  void* scratch = device_memory<char>(decode_scratch_bytes(rows, a));
  CHECK(cudaMemset(scratch, 0, decode_counter_bytes(a)));
  return scratch;
}

// For a Python harness: one call on the caller's memory and stream; `step` is slots, lengths, table starts, tables as in Step.
extern "C" size_t minillm_decode_scratch(int batch, int heads, int kv_heads, int d) {
  return decode_scratch_bytes(batch, scalars_of({heads, kv_heads, d}));
}
extern "C" void minillm_decode(void* k, void* v, void* q, void* out, void* scratch, int32_t* table, int batch, int n_keys, int heads,
                               int kv_heads, int d, int page_tokens, void* stream) {
  const Shape s{heads, kv_heads, d};
  const Layout layout{page_tokens, n_keys / page_tokens};
  DeviceStep step;
  step.slots = table;
  step.key_counts = table + batch;
  step.table_starts = table + 2 * batch;
  step.tables = table + 3 * batch;
  step.n_rows = batch;
  step.max_keys = n_keys;
  step.one_row_each = true;
  decode_attention(static_cast<float*>(out), nullptr, static_cast<float*>(q), layout.of(k, v, s, batch), step, scalars_of(s), scratch,
                   static_cast<cudaStream_t>(stream));
}
extern "C" void minillm_decode_table(int32_t* host, int batch, int n_keys, int kv_heads, int page_tokens) {
  const Layout layout{page_tokens, n_keys / page_tokens};
  const Step step(std::vector<int>(size_t(batch), n_keys), layout, {0, kv_heads, 0});
  std::memcpy(host, step.all.data(), step.all.size() * 4);
}

__global__ void fill_floats(float* x, size_t n, uint32_t seed) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x)
    x[i] = float(int((uint32_t(i) * 2654435761u ^ seed * 0x9E3779B9u) >> 8) % 4096 - 2048) / 1024.0f;
}

// NaN over the slots past each sequence's end: a result that they reach is NaN.
__global__ void poison(bf16* x, DeviceStep step, KeyLayout layout, int kv_heads, int d) {
  const int row = blockIdx.x, g = blockIdx.y, n_slots = int(layout.head_stride / d);
  for (int s = step.key_counts[row] + threadIdx.x; s < n_slots; s += blockDim.x) {
    const int64_t at = step.tables[step.table_starts[row] + s / layout.page_tokens] * layout.page_stride +
                       s % layout.page_tokens * layout.token_stride + g * layout.head_stride;
    for (int i = 0; i < d; ++i) x[at + i] = __ushort_as_bfloat16(0x7FFF);
  }
}

// One block a row and head; queries rounded as the kernel rounds them, everything else in double, in two passes.
__global__ void decode_reference(float* out, float* lse, const float* q, KeyLayout layout, DeviceStep step, AttentionScalars a) {
  extern __shared__ double weights[];
  const int row = blockIdx.x, head = blockIdx.y, g = head / (a.n_heads / a.n_kv_heads), n = step.key_counts[row], d = a.head_dim;
  const auto at = [&](int s) {
    return step.tables[step.table_starts[row] + s / layout.page_tokens] * layout.page_stride +
           s % layout.page_tokens * layout.token_stride + g * layout.head_stride;
  };
  const float* qr = q + (int64_t{row} * a.n_heads + head) * d;
  for (int s = threadIdx.x; s < n; s += blockDim.x) {
    double x = 0;
    for (int i = 0; i < d; ++i)
      x += double(__bfloat162float(__float2bfloat16(qr[i]))) * double(__bfloat162float(static_cast<const bf16*>(layout.keys)[at(s) + i]));
    weights[s] = x * double(a.scale);
  }
  __syncthreads();
  double top = -INFINITY, sum = 0;
  for (int s = 0; s < n; ++s) top = fmax(top, weights[s]);
  for (int s = 0; s < n; ++s) sum += exp(weights[s] - top);
  for (int i = threadIdx.x; i < d; i += blockDim.x) {
    double x = 0;
    for (int s = 0; s < n; ++s) x += exp(weights[s] - top) * double(__bfloat162float(static_cast<const bf16*>(layout.values)[at(s) + i]));
    out[(int64_t{row} * a.n_heads + head) * d + i] = float(x / sum);
  }
  if (threadIdx.x == 0) lse[row * a.n_heads + head] = float(top + log(sum));
}

static bool check(const Shape& s, const std::vector<int>& lengths, int page_tokens) {
  const int batch = int(lengths.size()), longest = *std::max_element(lengths.begin(), lengths.end());
  const Layout layout{page_tokens == 0 ? (longest + 63) / 16 * 16 : page_tokens, page_tokens == 0 ? 1 : longest / page_tokens + 2};
  const Step step(lengths, layout, s);
  const AttentionScalars a = scalars_of(s);
  const size_t n_kv = size_t(batch) * s.kv_heads * layout.n_pages * layout.page_tokens * s.d, n_out = size_t(batch) * s.heads * s.d;
  bf16 *k = device_memory<bf16>(n_kv), *v = device_memory<bf16>(n_kv);
  float *q = device_memory<float>(n_out), *out = device_memory<float>(n_out), *want = device_memory<float>(n_out);
  float *lse = device_memory<float>(n_out / s.d), *want_lse = device_memory<float>(n_out / s.d);
  void* scratch = zeroed_scratch(batch, a);
  fill<<<512, 256>>>(k, n_kv, 1);
  fill<<<512, 256>>>(v, n_kv, 2);
  fill_floats<<<64, 256>>>(q, n_out, 3);
  const KeyLayout keys = layout.of(k, v, s, batch);
  poison<<<dim3(batch, s.kv_heads), 128>>>(k, step.step, keys, s.kv_heads, s.d);
  poison<<<dim3(batch, s.kv_heads), 128>>>(v, step.step, keys, s.kv_heads, s.d);
  CHECK(cudaFuncSetAttribute(decode_reference, cudaFuncAttributeMaxDynamicSharedMemorySize, 200 * 1024));
  decode_reference<<<dim3(batch, s.heads), 256, longest * 8>>>(want, want_lse, q, keys, step.step, a);
  CHECK(cudaGetLastError());
  std::vector<float> got(n_out), again(n_out), ref(n_out), got_lse(n_out / s.d), ref_lse(n_out / s.d);
  for (auto* into : {&got, &again}) {
    CHECK(cudaMemset(out, 0xFF, n_out * 4));
    decode_attention(out, lse, q, keys, step.step, a, scratch, nullptr);
    CHECK(cudaMemcpy(into->data(), out, n_out * 4, cudaMemcpyDeviceToHost));
  }
  CHECK(cudaMemcpy(ref.data(), want, n_out * 4, cudaMemcpyDeviceToHost));
  CHECK(cudaMemcpy(got_lse.data(), lse, n_out / s.d * 4, cudaMemcpyDeviceToHost));
  CHECK(cudaMemcpy(ref_lse.data(), want_lse, n_out / s.d * 4, cudaMemcpyDeviceToHost));
  double worst = 0, worst_lse = 0;
  size_t bad = 0;
  // Weights are rounded to bf16, 2^-9 each, at random; values are of size 1 and their average of 1 / sqrt(keys) or more.
  for (size_t i = 0; i < n_out; ++i) {
    const double error = std::abs(double(got[i]) - ref[i]);
    bad += !(error <= 4e-3 + 4e-3 * std::abs(ref[i]));
    if (!(error <= worst)) worst = error;
  }
  for (size_t i = 0; i < got_lse.size(); ++i)
    if (const double error = std::abs(double(got_lse[i]) - ref_lse[i]); !(error <= worst_lse)) worst_lse = error;
  bool same = std::memcmp(got.data(), again.data(), n_out * 4) == 0;
  const size_t row_floats = size_t(s.heads) * s.d;
  for (int row = 0; batch > 1 && row < batch; row += 1 + batch / 7) {  // A row alone has the bits it has in the batch.
    DeviceStep alone = step.step;
    alone.slots += row, alone.key_counts += row, alone.table_starts += row, alone.n_rows = 1;
    decode_attention(out, nullptr, q + row * row_floats, keys, alone, a, scratch, nullptr);
    CHECK(cudaMemcpy(again.data(), out, row_floats * 4, cudaMemcpyDeviceToHost));
    same &= std::memcmp(got.data() + row * row_floats, again.data(), row_floats * 4) == 0;
  }
  const bool good = bad == 0 && worst_lse < 1e-4 && same;
  if (!good)
    std::printf(
        "{\"what\":\"check\",\"h\":%d,\"g\":%d,\"d\":%d,\"b\":%d,\"longest\":%d,\"page\":%d,\"worst\":%.6f,\"lse\":%.7f,\"bad\":%zu,"
        "\"same\":%d}\n",
        s.heads, s.kv_heads, s.d, batch, longest, page_tokens, worst, worst_lse, bad, same);
  std::fflush(stdout);
  for (void* x : {(void*)k, (void*)v, (void*)q, (void*)out, (void*)want, (void*)lse, (void*)want_lse, scratch}) cudaFree(x);
  return good;
}

static void time_all(const Shape& s, int batch, int n_keys) {
  const AttentionScalars a = scalars_of(s);
  const size_t n_kv = size_t(batch) * s.kv_heads * n_keys * s.d, bytes = 4 * n_kv;
  const int copies = int(std::clamp<size_t>((size_t{300} << 20) / bytes + 1, 2, 48));
  std::vector<bf16*> k, v;
  for (int i = 0; i < copies; ++i)
    for (auto* list : {&k, &v}) list->push_back(device_memory<bf16>(n_kv)), fill<<<1024, 256>>>(list->back(), n_kv, uint32_t(i));
  float *q = device_memory<float>(size_t(batch) * s.heads * s.d), *out = device_memory<float>(size_t(batch) * s.heads * s.d);
  fill_floats<<<64, 256>>>(q, size_t(batch) * s.heads * s.d, 3);
  void* scratch = zeroed_scratch(batch, a);
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  cudaEvent_t begin, end;
  CHECK(cudaEventCreate(&begin));
  CHECK(cudaEventCreate(&end));
  const int pages[] = {n_keys, 64, 16};
  std::vector<cudaGraphExec_t> graphs;
  std::vector<Step*> steps;
  for (int page : pages) {
    const Layout layout{page, n_keys / page};
    steps.push_back(new Step(std::vector<int>(size_t(batch), n_keys), layout, s));
    cudaGraph_t graph;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < copies; ++i)
      decode_attention(out, nullptr, q, layout.of(k[i], v[i], s, batch), steps.back()->step, a, scratch, stream);
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&graphs.emplace_back(), graph, 0));
  }
  std::vector<float> times[3];
  for (int round = -1; round < 9; ++round)
    for (int i = 0; i < 3; ++i) {
      float ms;
      CHECK(cudaEventRecord(begin, stream));
      CHECK(cudaGraphLaunch(graphs[i], stream));
      CHECK(cudaEventRecord(end, stream));
      CHECK(cudaEventSynchronize(end));
      CHECK(cudaEventElapsedTime(&ms, begin, end));
      if (round >= 0) times[i].push_back(ms / float(copies) * 1000);
    }
  std::printf("{\"what\":\"time\",\"h\":%d,\"g\":%d,\"d\":%d,\"b\":%d,\"s\":%d", s.heads, s.kv_heads, s.d, batch, n_keys);
  const char* names[] = {"contiguous", "pages of 64", "pages of 16"};
  for (int i = 0; i < 3; ++i) {
    std::sort(times[i].begin(), times[i].end());
    std::printf(",\"%s\":{\"us\":%.2f,\"tb_s\":%.3f}", names[i], times[i][4], double(bytes) / times[i][4] / 1e6);
  }
  std::printf("}\n");
  std::fflush(stdout);
  for (auto graph : graphs) cudaGraphExecDestroy(graph);
  for (auto* step : steps) delete step;
  for (auto* list : {&k, &v})
    for (bf16* x : *list) cudaFree(x);
  for (void* x : {(void*)q, (void*)out, scratch}) cudaFree(x);
}

int main(int argc, char** argv) {
  bool good = true;
  int n_checks = 0;
  std::vector<int> ragged;
  for (int i = 0; i < 64; ++i) ragged.push_back(1 + i * i * 2);
  for (const Shape& s : {Shape{32, 8, 128},
                         {9, 3, 64},
                         {32, 8, 64},
                         {8, 8, 128},
                         {16, 1, 64},
                         {4, 1, 256},
                         {12, 1, 80},
                         {8, 4, 96},
                         {16, 2, 192},
                         {32, 2, 256}})
    for (const auto& lengths : std::vector<std::vector<int>>{{1}, {17}, {339}, {1024}, {5000}, {64, 65, 1, 800, 16}, {20000}, ragged})
      for (int page : {0, 16, 64, 48}) ++n_checks, good &= check(s, lengths, page);
  std::printf("{\"what\":\"correct\",\"checks\":%d,\"good\":%d}\n", n_checks, good);
  std::fflush(stdout);
  if (argc > 1 && std::string(argv[1]) == "time")
    for (const Shape& s : {Shape{32, 8, 128}, {9, 3, 64}})
      for (int batch : {1, 8, 64})
        for (int n_keys : {1024, 8192, 32768}) time_all(s, batch, n_keys);
  return !good;
}
