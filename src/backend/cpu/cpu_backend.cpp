// cpu_backend.cpp - memory, products and operations on rows.
#include "backend/cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "backend/cpu/attention_matrix.h"
#include "backend/cpu/pack.h"
#include "base/bytes.h"
#include "base/check.h"
#include "minillm/metrics.h"

namespace minillm::cpu {
namespace {

constexpr int64_t kParallelElements = 16384;  ///< Less work than this is done before another thread has noticed.
constexpr int64_t kItemElements = 8192;       ///< Rows are handed out in runs of about this much.

std::string_view forced_isa() {
  const char* name = std::getenv("MINILLM_ISA");
  return name == nullptr ? "" : name;
}

int64_t widest_input(const WorkspaceShape& shape) { return std::max({shape.hidden, shape.ffn, shape.n_heads * shape.head_dim}); }

}  // namespace

const Kernels& kernels_of(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return scalar::kernels();
    case Isa::kAvx2:
      return avx2::kernels();
    case Isa::kAvxVnni:
      return avx_vnni::kernels();
    case Isa::kAvx512Vnni:
    case Isa::kAvx512Bf16:  // Its instructions serve attention only.
      return avx512_vnni::kernels();
    case Isa::kAmx:
      return amx::kernels();
  }
  throw Error(ErrorCode::kInternal, "instruction set ", static_cast<int>(isa));
}

CpuBackend::CpuBackend(const BackendOptions& options, Isa isa)
    : isa_(isa),
      kernels_(kernels_of(isa)),
      pool_(options.n_threads),
      products_(pool_, kernels_, [this](size_t n) { return memory_.allocate(n); }),
      attention_(pool_, attention_kernels_of(name_of(isa)), [this](size_t n) { return memory_.allocate(n); }) {}

std::string CpuBackend::description() const {
  return "cpu (" + std::string(name_of(isa_)) + ", " + std::to_string(pool_.n_threads()) +
         (pool_.n_threads() == 1 ? " thread)" : " threads)");
}

void CpuBackend::for_rows(int64_t n_rows, int64_t row_elements, FunctionRef<void(int64_t)> body) {
  const FlushSubnormals flush;
  if (n_rows * row_elements < kParallelElements) {
    for (int64_t row = 0; row < n_rows; ++row) body(row);
    return;
  }
  const int64_t run = std::max<int64_t>(1, kItemElements / std::max<int64_t>(1, row_elements));
  for_each_row(pool_, n_rows, run, [&](int64_t row, int) { body(row); });
}

void CpuBackend::upload(void* to, const void* from_host, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from_host, bytes);
}
void CpuBackend::download(void* to_host, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to_host, from, bytes);
}

std::unique_ptr<PackedWeight> CpuBackend::pack(std::span<const ConstTensorView> tensors, WeightRole role, std::optional<Dtype> convert_to) {
  return pack_weight(tensors, role, convert_to, pool_, [this](size_t bytes) { return memory_.allocate_weight(bytes); });
}

void CpuBackend::reserve_workspace(const WorkspaceShape& shape) {
  Backend::reserve_workspace(shape);
  products_.reserve(std::max(shape.max_rows, shape.max_logit_rows), widest_input(shape));
  attention_.reserve(shape);
}

void CpuBackend::embed(TensorView out, const PackedWeight& table, float scale) {
  const CpuWeight& w = own(table);
  const auto tokens = batch_.tokens;
  MINILLM_CHECK(out.dim(0) == static_cast<int64_t>(tokens.size()) && out.dim(1) == w.cols(), "out ", out.dim(0), " x ", out.dim(1));
  if (w.role() == WeightRole::kProduct) throw Error(ErrorCode::kInvalidArgument, "embed: the weight was packed for products only");
  for (TokenId token : tokens)
    if (token < 0 || token >= w.rows()) throw Error(ErrorCode::kInvalidArgument, "token ", token, ": the table has ", w.rows(), " rows");
  for_rows(out.dim(0), 8 * w.cols(), [&](int64_t t) {  // An element costs several operations.
    float* row = out.f32() + t * w.cols();
    w.look_up(tokens[static_cast<size_t>(t)], row);
    if (scale != 1.0f)
      for (int64_t i = 0; i < w.cols(); ++i) row[i] *= scale;
  });
}

void CpuBackend::rope_angles(TensorView angles, std::span<const float> inverse_frequencies) {
  const int64_t half = static_cast<int64_t>(inverse_frequencies.size());
  MINILLM_CHECK(angles.dim(0) == static_cast<int64_t>(batch_.positions.size()) && angles.dim(1) == 2 * half, "angles ", angles.dim(0),
                " x ", angles.dim(1));
  for_rows(angles.dim(0), 64 * half, [&](int64_t t) {  // A sine and a cosine in double: about 40 ns.
    float* row = angles.f32() + t * 2 * half;
    for (int64_t i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(batch_.positions[static_cast<size_t>(t)]) * static_cast<double>(inverse_frequencies[static_cast<size_t>(i)]);
      row[i] = static_cast<float>(std::cos(angle));
      row[half + i] = static_cast<float>(std::sin(angle));
    }
  });
}

void CpuBackend::rms_norm(TensorView out, ConstTensorView x, ConstTensorView weight, float eps) {
  const int64_t n = x.dim(1);
  MINILLM_CHECK(weight.n_elements() == n && out.dim(0) == x.dim(0) && out.dim(1) == n, "x ", x.dim(0), " x ", n, ", weight ",
                weight.n_elements());
  for_rows(x.dim(0), n, [&](int64_t t) { kernels_.rms_norm(out.f32() + t * n, x.f32() + t * n, weight.f32(), n, eps); });
}

void CpuBackend::matmul(TensorView out, ConstTensorView x, const PackedWeight& w) { products_.matmul(out, x, own(w)); }

void CpuBackend::add(TensorView x, ConstTensorView y) {
  MINILLM_CHECK(x.n_elements() == y.n_elements(), x.n_elements(), " and ", y.n_elements(), " elements");
  const int64_t n_rows = x.dim(0), n = n_rows == 0 ? 0 : x.n_elements() / n_rows;
  for_rows(n_rows, n, [&](int64_t t) { kernels_.add(x.f32() + t * n, y.f32() + t * n, n); });
}

void CpuBackend::gated_activation(TensorView out, ConstTensorView gate_up, Activation activation) {
  const int64_t n = out.dim(1);
  MINILLM_CHECK(gate_up.dim(0) == out.dim(0) && gate_up.dim(1) == 2 * n, "gate_up ", gate_up.dim(0), " x ", gate_up.dim(1), ", out ", n);
  const auto kernel = activation == Activation::kSilu ? kernels_.gate_silu : kernels_.gate_gelu;
  for_rows(out.dim(0), 4 * n, [&](int64_t t) {  // An exponential and a division each.
    const float* gate = gate_up.f32() + t * 2 * n;
    kernel(out.f32() + t * n, gate, gate + n, n);
  });
}

void CpuBackend::gather_rows(TensorView out, ConstTensorView x, std::span<const int32_t> rows) {
  const int64_t n = x.dim(1);
  MINILLM_CHECK(out.dim(0) == static_cast<int64_t>(rows.size()) && out.dim(1) == n, "out ", out.dim(0), " x ", out.dim(1));
  for (size_t i = 0; i < rows.size(); ++i) {
    MINILLM_CHECK(rows[i] >= 0 && rows[i] < x.dim(0), "row ", rows[i], " of ", x.dim(0));
    std::memcpy(out.f32() + static_cast<int64_t>(i) * n, x.f32() + rows[i] * n, static_cast<size_t>(n) * sizeof(float));
  }
}

void CpuBackend::softcap(TensorView x, float c) {
  const int64_t n_rows = x.dim(0), n = n_rows == 0 ? 0 : x.n_elements() / n_rows;
  for_rows(n_rows, 4 * n, [&](int64_t t) { kernels_.softcap(x.f32() + t * n, n, c); });
}

int64_t CpuBackend::default_block_size(int64_t) const { return 128; }

}  // namespace minillm::cpu

namespace minillm {

int64_t cpu_tile_bytes(const WorkspaceShape& shape) {
  if (cpu::choose_isa(cpu::forced_isa()) != cpu::Isa::kAmx) return 0;
  const int n_threads = ThreadPool::default_threads();
  return cpu::TileProducts::bytes(shape.max_rows, cpu::widest_input(shape), n_threads) +
         cpu::MatrixScratch::bytes(shape.head_dim) * n_threads;
}

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options) {
  return std::make_unique<cpu::CpuBackend>(options, cpu::choose_isa(cpu::forced_isa()));
}

}  // namespace minillm
