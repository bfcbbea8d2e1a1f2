// prefill_variants.cu - every tile choice of the Hopper prefill kernel: checked against a plain kernel, then timed in CUDA graphs,
// interleaved. One JSON line a measurement.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "backend/cuda/sm90/attention_prefill.cuh"
#include "prefill_reference.cuh"

using namespace minillm::cuda::sm90;

static CUtensorMap make_map(const void* data, cuuint64_t (&dims)[4], cuuint64_t (&strides)[3], cuuint32_t (&box)[4]) {
  static auto encode = [] {
    void* f = nullptr;
    cudaDriverEntryPointQueryResult r;
    CHECK(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &f, cudaEnableDefault, &r));
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(f);
  }();
  CUtensorMap map;
  cuuint32_t unit[4] = {1, 1, 1, 1};
  CUresult r =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<void*>(data), dims, strides, box, unit, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (r != CUDA_SUCCESS) {
    std::printf("encode %d\n", int(r));
    std::exit(1);
  }
  return map;
}

static CUtensorMap make_map(const void* data, int d, int heads, int tokens, int batch, int box_rows) {
  cuuint64_t dims[4] = {cuuint64_t(d), cuuint64_t(heads), cuuint64_t(tokens), cuuint64_t(batch)};
  cuuint64_t strides[3] = {cuuint64_t(d) * 2, cuuint64_t(d) * heads * 2, cuuint64_t(d) * heads * tokens * 2};
  cuuint32_t box[4] = {64, 1, cuuint32_t(box_rows), 1};
  return make_map(data, dims, strides, box);
}

struct Tensors {
  bf16 *q, *k, *v, *out;
  float* lse;
  int* tickets;
};

// The same memory taken as pages [page][head][token][D] in scattered order; tiles as the engine lists them. Kept for the process: graphs
// hold the addresses.
struct Pages {
  StepTile* tiles;
  int32_t* table;
  CUtensorMap k, v;
};
static CUtensorMap make_page_map(const void* data, const Problem& s, int page, int box_rows) {
  const cuuint64_t row = cuuint64_t(s.d) * 2;
  cuuint64_t dims[4] = {cuuint64_t(s.d), cuuint64_t(page), cuuint64_t(s.kv_heads), cuuint64_t(s.batch) * (s.n_keys / page)};
  cuuint64_t strides[3] = {row, row * page, row * page * s.kv_heads};
  cuuint32_t box[4] = {64, cuuint32_t(box_rows), 1, 1};
  return make_map(data, dims, strides, box);
}

static Pages make_pages(const Problem& s, const Tensors& t, int page, int rows, int box_rows) {
  const int n = s.n_keys / page;
  std::vector<int32_t> table;
  for (int b = 0; b < s.batch; ++b)
    for (int i = 0; i < n; ++i) table.push_back(int(uint32_t(b * n + i) * 2654435761u % uint32_t(s.batch * n)) % (s.batch * n));
  std::vector<StepTile> tiles;
  for (int b = 0; b < s.batch; ++b)
    for (int row = (s.n_queries - 1) / rows * rows; row >= 0; row -= rows)
      tiles.push_back({b * s.n_queries + row, std::min(rows, s.n_queries - row), s.n_keys, row + 1 + s.n_keys - s.n_queries, b * n});
  Pages p{};
  CHECK(cudaMalloc(&p.tiles, tiles.size() * sizeof(StepTile)));
  CHECK(cudaMalloc(&p.table, table.size() * 4));
  CHECK(cudaMemcpy(p.tiles, tiles.data(), tiles.size() * sizeof(StepTile), cudaMemcpyHostToDevice));
  CHECK(cudaMemcpy(p.table, table.data(), table.size() * 4, cudaMemcpyHostToDevice));
  p.k = make_page_map(t.k, s, page, box_rows);
  p.v = make_page_map(t.v, s, page, box_rows);
  return p;
}

template <typename Traits, int kPage = 0>
void launch(const Problem& s, const Tensors& t, cudaStream_t stream, bool want_lse) {
  PrefillParams p{};
  p.q = make_map(t.q, s.d, s.heads, s.n_queries, s.batch, Traits::kRows);
  p.k = make_map(t.k, s.d, s.kv_heads, s.n_keys, s.batch, Traits::kKeys);
  p.v = make_map(t.v, s.d, s.kv_heads, s.n_keys, s.batch, Traits::kKeys);
  p.out = make_map(t.out, s.d, s.heads, s.n_queries, s.batch, 64);
  p.lse = want_lse ? t.lse : nullptr;
  p.tickets = t.tickets;
  const int row_tiles = (s.n_queries + Traits::kRows - 1) / Traits::kRows;
  int group = 1;  // Of one sequence: keys of several together are slower at 512 to 4k, even where they fit.
  while (group * 2 <= s.heads && size_t(group) * 2 * s.n_keys * s.d * 4 / (s.heads / s.kv_heads) <= size_t(32) << 20) group *= 2;
  p.schedule = {row_tiles, s.heads, row_tiles * s.heads * s.batch, group, s.causal};
  p.n_queries = s.n_queries;
  p.n_keys = s.n_keys;
  p.heads_per_kv = s.heads / s.kv_heads;
  p.scale = 1.0f / sqrtf(float(s.d));
  if constexpr (kPage > 0) {
    static std::map<std::pair<const void*, int>, Pages> known;  // By address and length: memory is used again.
    p.box_keys = std::gcd(kPage, Traits::kKeys);
    const auto key = std::pair<const void*, int>(t.k, s.n_keys);
    if (known.count(key) == 0) known[key] = make_pages(s, t, kPage, Traits::kRows, p.box_keys);
    const Pages& pages = known[key];
    p.q = make_map(t.q, s.d, s.heads, s.n_queries * s.batch, 1, Traits::kRows);
    p.out = make_map(t.out, s.d, s.heads, s.n_queries * s.batch, 1, 64);
    p.k = pages.k, p.v = pages.v, p.step_tiles = pages.tiles, p.tables = pages.table;
    p.page_tokens = kPage;
    p.rows_out = t.out;
    p.schedule = {row_tiles * s.batch, s.heads, row_tiles * s.heads * s.batch, group, false};
  }
  static int sms = 0;
  const size_t bytes = sizeof(PrefillShared<Traits>);
  if (!sms) {
    CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
    CHECK(cudaFuncSetAttribute(attention_prefill_kernel<Traits>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)));
  }
  attention_prefill_kernel<Traits><<<std::min(sms, p.schedule.n_tiles), Traits::kThreads, bytes, stream>>>(p);
  CHECK(cudaGetLastError());
}

struct Variant {
  std::string name;
  int d;
  bool causal;
  std::function<void(const Problem&, const Tensors&, cudaStream_t, bool)> run;
};
template <int d, int wg, int keys, bool causal>
Variant variant() {
  using Traits = PrefillTraits<bf16, d, wg, keys, causal>;
  return {std::to_string(64 * wg) + "x" + std::to_string(keys), d, causal, launch<Traits>};
}
// Timed only: their keys are other keys; the conformance tests check them.
template <int d, int wg, int keys, int page>
Variant paged() {
  using Traits = PrefillTraits<bf16, d, wg, keys, true, true>;
  return {std::to_string(64 * wg) + "x" + std::to_string(keys) + " pages of " + std::to_string(page), d, true, launch<Traits, page>};
}
static const std::vector<Variant> kPaged = {
    paged<128, 2, 128, 16>(), paged<128, 2, 128, 64>(), paged<64, 2, 128, 16>(), paged<64, 2, 128, 64>(),
    paged<64, 3, 128, 64>(),  paged<256, 2, 80, 16>(),  paged<256, 2, 64, 64>(),
};
static const std::vector<Variant> kVariants = {
    variant<128, 2, 128, true>(), variant<128, 2, 176, true>(), variant<128, 2, 176, false>(), variant<128, 2, 128, false>(),
    variant<64, 3, 128, true>(),  variant<64, 2, 128, true>(),  variant<64, 2, 192, true>(),   variant<64, 3, 128, false>(),
    variant<256, 2, 80, true>(),  variant<256, 2, 80, false>(),
};

static Tensors make(const Problem& s) {
  Tensors t;
  const size_t nq = size_t(s.batch) * s.n_queries * s.heads * s.d, nk = size_t(s.batch) * s.n_keys * s.kv_heads * s.d;
  CHECK(cudaMalloc(&t.q, nq * 2));
  CHECK(cudaMalloc(&t.k, nk * 2));
  CHECK(cudaMalloc(&t.v, nk * 2));
  CHECK(cudaMalloc(&t.out, nq * 2));
  CHECK(cudaMalloc(&t.lse, nq / s.d * 4));
  CHECK(cudaMalloc(&t.tickets, 8));
  CHECK(cudaMemset(t.tickets, 0, 8));
  fill<<<1024, 256>>>(t.q, nq, 1);
  fill<<<1024, 256>>>(t.k, nk, 2);
  fill<<<1024, 256>>>(t.v, nk, 3);
  CHECK(cudaMemset(t.out, 0xFF, nq * 2));
  CHECK(cudaDeviceSynchronize());
  return t;
}
static void destroy(Tensors& t) {
  cudaFree(t.q);
  cudaFree(t.k);
  cudaFree(t.v);
  cudaFree(t.out);
  cudaFree(t.lse);
  cudaFree(t.tickets);
}

static bool check(const Variant& var, const Problem& s) {
  Tensors t = make(s);
  var.run(s, t, 0, true);
  CHECK(cudaDeviceSynchronize());
  const int row_step = s.n_queries > 1500 ? 37 : 1, rows = (s.n_queries + row_step - 1) / row_step;
  const size_t n = size_t(s.batch) * s.n_queries * s.heads * s.d;
  float *want, *want_lse;
  CHECK(cudaMalloc(&want, n * 4));
  CHECK(cudaMalloc(&want_lse, n / s.d * 4));
  CHECK(cudaFuncSetAttribute(reference, cudaFuncAttributeMaxDynamicSharedMemorySize, 200 * 1024));
  reference<<<dim3(rows, s.heads, s.batch), 256, s.n_keys * 8>>>(t.q, t.k, t.v, want, want_lse, s, 1.0f / sqrtf(float(s.d)), row_step);
  CHECK(cudaDeviceSynchronize());
  std::vector<bf16> got(n);
  std::vector<float> ref(n), gl(n / s.d), rl(n / s.d);
  CHECK(cudaMemcpy(got.data(), t.out, n * 2, cudaMemcpyDeviceToHost));
  CHECK(cudaMemcpy(ref.data(), want, n * 4, cudaMemcpyDeviceToHost));
  CHECK(cudaMemcpy(gl.data(), t.lse, n / s.d * 4, cudaMemcpyDeviceToHost));
  CHECK(cudaMemcpy(rl.data(), want_lse, n / s.d * 4, cudaMemcpyDeviceToHost));
  double worst = 0, worst_lse = 0;
  size_t bad = 0;
  for (size_t b = 0; b < size_t(s.batch); ++b)
    for (int r = 0; r < s.n_queries; r += row_step)
      for (int h = 0; h < s.heads; ++h) {
        const size_t o = ((b * s.n_queries + r) * s.heads + h) * s.d;
        for (int i = 0; i < s.d; ++i) {
          const double g = __bfloat162float(got[o + i]), e = std::abs(g - ref[o + i]);
          if (!(e <= 0.01 + 0.01 * std::abs(ref[o + i]))) {
            if (bad++ == 0) std::printf("  first bad b%zu r%d h%d i%d got %f want %f\n", b, r, h, i, g, ref[o + i]);
          }
          if (!(e <= worst)) worst = e;
        }
        const size_t l = (b * s.heads + h) * s.n_queries + r;
        const double e = gl[l] == rl[l] ? 0 : std::abs(gl[l] - rl[l]);
        if (!(e <= worst_lse)) worst_lse = e;
      }
  if (bad || !(worst_lse < 1e-3))
    std::printf(
        "{\"what\":\"check\",\"d\":%d,\"tile\":\"%s\",\"causal\":%d,\"b\":%d,\"sq\":%d,\"sk\":%d,\"h\":%d,\"g\":%d,\"worst\":%.5f,\"lse\":%"
        ".6f,\"bad\":%zu}\n",
        s.d, var.name.c_str(), s.causal, s.batch, s.n_queries, s.n_keys, s.heads, s.kv_heads, worst, worst_lse, bad);
  std::fflush(stdout);
  cudaFree(want);
  cudaFree(want_lse);
  destroy(t);
  return bad == 0 && worst_lse < 1e-3;
}

// SM cycles and nanoseconds of a short spin: the clock right after a measurement.
__global__ void clock_probe(long long* out) {
  long long c = clock64(), t, t0;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t0));
  do {
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
  } while (t - t0 < 20000);
  out[0] = clock64() - c;
  out[1] = t - t0;
}

static void time_all(int d, bool causal, int seq) {
  const Problem s{std::max(1, 16384 / seq), seq, seq, 2048 / d, 2048 / d, d, causal};
  Tensors t = make(s);
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  cudaEvent_t a, b;
  CHECK(cudaEventCreate(&a));
  CHECK(cudaEventCreate(&b));
  std::vector<std::pair<std::string, cudaGraphExec_t>> graphs;
  const int repeats = 8;
  std::vector<Variant> all = kVariants;
  if (causal) all.insert(all.end(), kPaged.begin(), kPaged.end());
  for (const Variant& var : all) {
    if (var.d != d || var.causal != causal) continue;
    var.run(s, t, stream, false);
    CHECK(cudaStreamSynchronize(stream));
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < repeats; ++i) var.run(s, t, stream, false);
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    graphs.push_back({var.name, exec});
  }
  std::vector<std::vector<float>> times(graphs.size());
  static long long* probe = nullptr;
  if (!probe) CHECK(cudaMallocHost(&probe, 16));
  double mhz = 0;
  int n_mhz = 0;
  for (int round = 0; round < 9; ++round)
    for (size_t i = 0; i < graphs.size(); ++i) {
      CHECK(cudaEventRecord(a, stream));
      CHECK(cudaGraphLaunch(graphs[i].second, stream));
      CHECK(cudaEventRecord(b, stream));
      CHECK(cudaEventSynchronize(b));
      float ms;
      CHECK(cudaEventElapsedTime(&ms, a, b));
      times[i].push_back(ms / repeats);
      clock_probe<<<1, 1, 0, stream>>>(probe);
      CHECK(cudaStreamSynchronize(stream));
      mhz += probe[0] * 1e3 / probe[1];
      ++n_mhz;
    }
  std::printf("{\"what\":\"time\",\"d\":%d,\"causal\":%d,\"s\":%d,\"mhz\":%.0f,\"tflops\":{", d, causal, seq, mhz / n_mhz);
  for (size_t i = 0; i < graphs.size(); ++i) {
    std::sort(times[i].begin(), times[i].end());
    const double flop = 4.0 * s.batch * s.heads * double(seq) * seq * d * (causal ? 0.5 : 1.0);
    std::printf("%s\"%s\":%.0f", i ? "," : "", graphs[i].first.c_str(), flop / times[i][times[i].size() / 2] / 1e9);
  }
  std::printf("}}\n");
  std::fflush(stdout);
  destroy(t);
}

// For a Python harness: runs variant `name` on the caller's memory and stream; tickets are two zeroed ints.
extern "C" int minillm_prefill(const char* name, void* q, void* k, void* v, void* out, void* tickets, int batch, int n_queries, int n_keys,
                               int heads, int kv_heads, int d, int causal, void* stream) {
  std::vector<Variant> all = kVariants;
  all.insert(all.end(), kPaged.begin(), kPaged.end());
  for (const Variant& var : all)
    if (var.name == name && var.d == d && var.causal == (causal != 0)) {
      var.run({batch, n_queries, n_keys, heads, kv_heads, d, causal != 0},
              {(bf16*)q, (bf16*)k, (bf16*)v, (bf16*)out, nullptr, (int*)tickets}, (cudaStream_t)stream, false);
      return 0;
    }
  return 1;
}

int main(int argc, char** argv) {
  if (argc > 4 && std::string(argv[1]) == "one") {  // one D CAUSAL S TILE: a few launches, for a profiler
    const int d = std::atoi(argv[2]), seq = std::atoi(argv[4]);
    const bool causal = std::atoi(argv[3]) != 0;
    const Problem s{std::max(1, 16384 / seq), seq, seq, 2048 / d, 2048 / d, d, causal};
    Tensors t = make(s);
    for (const Variant& v : kVariants)
      if (v.d == d && v.causal == causal && v.name == argv[5])
        for (int i = 0; i < 3; ++i) v.run(s, t, 0, false);
    CHECK(cudaDeviceSynchronize());
    return 0;
  }
  bool good = true;
  for (const Variant& v : kVariants)
    for (auto [b, sq, sk, h, g] : std::vector<std::array<int, 5>>{{1, 128, 128, 2, 2},
                                                                  {2, 113, 203, 4, 2},
                                                                  {1, 64, 1000, 3, 1},
                                                                  {1, 1023, 1024, 2, 1},
                                                                  {1, 300, 200, 2, 2},
                                                                  {1, 4224, 4224, 2, 1},
                                                                  {3, 1, 239, 4, 4}})
      good &= check(v, Problem{b, sq, sk, h, g, v.d, v.causal});
  std::printf("correct: %d\n", good);
  std::fflush(stdout);
  if (argc > 1 && std::string(argv[1]) == "time")
    for (int d : {128, 64, 256})
      for (int seq : {512, 1024, 2048, 4096, 8192, 16384})
        for (bool causal : {true, false}) {
          if (!causal && seq != 512 && seq != 4096 && seq != 16384) continue;
          time_all(d, causal, seq);
        }
  return !good;
}
