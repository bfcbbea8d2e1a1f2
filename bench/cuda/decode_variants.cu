// decode_variants.cu - the decode attention kernel as the engine launches it, over one run of keys, pages of 64 and pages of 16, in
// bfloat16 and in 8 bits: checked against attention by the book in double, then timed by turns in CUDA graphs with a cold L2 cache (each
// launch reads other keys, from several times 60 MB). One JSON line a measurement. As a library it serves decode_peers.py.
// Build: nvcc decode_variants.cu attention_decode.cu, include path src and include.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "decode_reference.cuh"

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
                               int kv_heads, int d, int page_tokens, int is_f8, void* stream) {
  const Shape s{heads, kv_heads, d};
  const Layout layout{page_tokens, n_keys / page_tokens, is_f8 ? Dtype::kF8 : Dtype::kBF16};
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

static bool check(const Shape& s, const std::vector<int>& lengths, int page_tokens, Dtype dtype) {
  const int batch = int(lengths.size()), longest = *std::max_element(lengths.begin(), lengths.end());
  const Layout layout{page_tokens == 0 ? (longest + 63) / 16 * 16 : page_tokens, page_tokens == 0 ? 1 : longest / page_tokens + 2, dtype};
  const Step step(lengths, layout, s);
  const AttentionScalars a = scalars_of(s);
  const size_t n_kv = size_t(batch) * s.kv_heads * layout.n_pages * layout.page_tokens * s.d, n_out = size_t(batch) * s.heads * s.d;
  void *k = device_memory<char>(n_kv * element_bytes(dtype)), *v = device_memory<char>(n_kv * element_bytes(dtype));
  float *q = device_memory<float>(n_out), *out = device_memory<float>(n_out), *want = device_memory<float>(n_out);
  float *lse = device_memory<float>(n_out / s.d), *want_lse = device_memory<float>(n_out / s.d);
  void* scratch = zeroed_scratch(batch, a);
  fill_cache(k, dtype, n_kv, 1);
  fill_cache(v, dtype, n_kv, 2);
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
        "{\"what\":\"check\",\"f8\":%d,\"h\":%d,\"g\":%d,\"d\":%d,\"b\":%d,\"longest\":%d,\"page\":%d,\"worst\":%.6f,\"lse\":%.7f,\"bad\":%"
        "zu,"
        "\"same\":%d}\n",
        dtype == Dtype::kF8, s.heads, s.kv_heads, s.d, batch, longest, page_tokens, worst, worst_lse, bad, same);
  std::fflush(stdout);
  for (void* x : {(void*)k, (void*)v, (void*)q, (void*)out, (void*)want, (void*)lse, (void*)want_lse, scratch}) cudaFree(x);
  return good;
}

struct TimedVariant {
  const char* name;
  Dtype dtype;
  int page;  ///< 0: all keys.
};
constexpr TimedVariant kTimed[] = {{"contiguous", Dtype::kBF16, 0},    {"pages of 64", Dtype::kBF16, 64},
                                   {"pages of 16", Dtype::kBF16, 16},  {"f8 contiguous", Dtype::kF8, 0},
                                   {"f8 pages of 64", Dtype::kF8, 64}, {"f8 pages of 16", Dtype::kF8, 16}};

static void time_all(const Shape& s, int batch, int n_keys) {
  constexpr int kVariants = int(std::size(kTimed));
  const AttentionScalars a = scalars_of(s);
  const size_t n_kv = size_t(batch) * s.kv_heads * n_keys * s.d;
  struct Caches {
    size_t bytes;  ///< Of keys and values.
    std::vector<void*> k, v;
  } caches[2] = {{4 * n_kv, {}, {}}, {2 * n_kv, {}, {}}};
  for (Caches& c : caches) {
    const Dtype dtype = &c == caches ? Dtype::kBF16 : Dtype::kF8;
    const int copies = int(std::clamp<size_t>((size_t{300} << 20) / c.bytes + 1, 2, 48));
    for (int i = 0; i < copies; ++i)
      for (auto* list : {&c.k, &c.v}) list->push_back(device_memory<char>(c.bytes / 2)), fill_cache(list->back(), dtype, n_kv, uint32_t(i));
  }
  float *q = device_memory<float>(size_t(batch) * s.heads * s.d), *out = device_memory<float>(size_t(batch) * s.heads * s.d);
  fill_floats<<<64, 256>>>(q, size_t(batch) * s.heads * s.d, 3);
  void* scratch = zeroed_scratch(batch, a);
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  cudaEvent_t begin, end;
  CHECK(cudaEventCreate(&begin));
  CHECK(cudaEventCreate(&end));
  std::vector<cudaGraphExec_t> graphs;
  std::vector<Step*> steps;
  for (const TimedVariant& variant : kTimed) {
    const int page = variant.page == 0 ? n_keys : variant.page;
    const Layout layout{page, n_keys / page, variant.dtype};
    const Caches& c = caches[variant.dtype == Dtype::kF8];
    steps.push_back(new Step(std::vector<int>(size_t(batch), n_keys), layout, s));
    cudaGraph_t graph;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (size_t i = 0; i < c.k.size(); ++i)
      decode_attention(out, nullptr, q, layout.of(c.k[i], c.v[i], s, batch), steps.back()->step, a, scratch, stream);
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&graphs.emplace_back(), graph, 0));
  }
  std::vector<float> times[kVariants];
  for (int round = -1; round < 9; ++round)
    for (int i = 0; i < kVariants; ++i) {
      float ms;
      CHECK(cudaEventRecord(begin, stream));
      CHECK(cudaGraphLaunch(graphs[i], stream));
      CHECK(cudaEventRecord(end, stream));
      CHECK(cudaEventSynchronize(end));
      CHECK(cudaEventElapsedTime(&ms, begin, end));
      if (round >= 0) times[i].push_back(ms / float(caches[kTimed[i].dtype == Dtype::kF8].k.size()) * 1000);
    }
  std::printf("{\"what\":\"time\",\"h\":%d,\"g\":%d,\"d\":%d,\"b\":%d,\"s\":%d", s.heads, s.kv_heads, s.d, batch, n_keys);
  for (int i = 0; i < kVariants; ++i) {
    std::sort(times[i].begin(), times[i].end());
    const auto bytes = double(caches[kTimed[i].dtype == Dtype::kF8].bytes);
    std::printf(",\"%s\":{\"us\":%.2f,\"tb_s\":%.3f}", kTimed[i].name, times[i][4], bytes / times[i][4] / 1e6);
  }
  std::printf(",\"f8 gain\":%.3f}\n", times[1][4] / times[4][4]);
  std::fflush(stdout);
  for (auto graph : graphs) cudaGraphExecDestroy(graph);
  for (auto* step : steps) delete step;
  for (Caches& c : caches)
    for (auto* list : {&c.k, &c.v})
      for (void* x : *list) cudaFree(x);
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
      for (int page : {0, 16, 64, 48})
        for (Dtype dtype : {Dtype::kBF16, Dtype::kF8}) ++n_checks, good &= check(s, lengths, page, dtype);
  std::printf("{\"what\":\"correct\",\"checks\":%d,\"good\":%d}\n", n_checks, good);
  std::fflush(stdout);
  if (argc > 1 && std::string(argv[1]) == "time")
    for (const Shape& s : {Shape{32, 8, 128}, {9, 3, 64}})
      for (int batch : {1, 8, 64})
        for (int n_keys : {1024, 8192, 32768}) time_all(s, batch, n_keys);
  return !good;
}
