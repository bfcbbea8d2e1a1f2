// cuda_backend.cpp - memory, steps, and the choice of a kernel for each operation.
#include "backend/cuda/cuda_backend.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <ranges>

#include "backend/cuda/check.h"
#include "backend/cuda/sm90/attention_step.h"
#include "base/bytes.h"
#include "base/check.h"
#include "minillm/metrics.h"

namespace minillm {

std::unique_ptr<Backend> make_cuda_backend(int index, const BackendOptions&) { return std::make_unique<cuda::CudaBackend>(index); }

}  // namespace minillm

namespace minillm::cuda {
namespace {

constexpr int64_t kTileRowsOfStep = 64;  ///< Rows of one sequence that one block attends for.

using WideTile = std::array<int32_t, sm90::kStepTileInts>;

/// The step's rows in tiles for the Hopper kernel (sm90::StepTile). Sequence after sequence, so that their keys stay in L2, the longest
/// first; in each the last rows first, which see the most keys. The last tiles are so the shortest.
void add_wide_tiles(std::vector<WideTile>& tiles, const Batch& batch, int64_t page_tokens, int64_t tile_rows) {
  struct Sequence {
    int64_t n_keys, n_rows, first_row, table;
  };
  std::vector<Sequence> sequences;
  int64_t first_row = 0, table = 0;
  for (const SequenceSlice& slice : batch.sequences) {
    if (slice.n_rows == 0) continue;
    sequences.push_back({slice.n_cached + slice.n_rows, slice.n_rows, first_row, table});
    table += ceil_div(slice.n_cached + slice.n_rows, page_tokens);
    first_row += slice.n_rows;
  }
  std::ranges::stable_sort(sequences, std::ranges::greater(), &Sequence::n_keys);
  for (const Sequence& s : sequences)
    for (int64_t i = (s.n_rows - 1) / tile_rows * tile_rows; i >= 0; i -= tile_rows)
      tiles.push_back({static_cast<int32_t>(s.first_row + i), static_cast<int32_t>(std::min(tile_rows, s.n_rows - i)),
                       static_cast<int32_t>(s.n_keys), static_cast<int32_t>(s.n_keys - s.n_rows + i + 1), static_cast<int32_t>(s.table)});
}

/// Whether a backend of this process makes chains on a device.
std::atomic<bool>& chains_on(int device) {
  static std::array<std::atomic<bool>, 64> devices;
  return devices[static_cast<size_t>(device) % devices.size()];
}

}  // namespace

CudaBackend::CudaBackend(int index) : index_(index) {
  int n_devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&n_devices);
  if (status != cudaSuccess) throw Error(ErrorCode::kDevice, "cuda: no usable driver: ", cudaGetErrorString(status));
  if (index < 0 || index >= n_devices) throw Error(ErrorCode::kDevice, "cuda:", index, ": this machine has ", n_devices, " GPU(s)");
  MINILLM_CUDA(cudaSetDevice(index));
  cudaDeviceProp properties{};
  MINILLM_CUDA(cudaGetDeviceProperties(&properties, index));
  if (properties.major < 8)
    throw Error(ErrorCode::kUnsupported, "cuda:", index, ": ", properties.name, " is sm_", properties.major, properties.minor,
                "; sm_80 or newer is needed");
  description_ = "cuda:" + std::to_string(index) + " (" + properties.name + ")";
  MINILLM_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  n_multiprocessors_ = properties.multiProcessorCount;
  has_wgmma_ = properties.major == 9;
  tickets_ = allocate(2 * sizeof(int));
  MINILLM_CUDA(cudaMemsetAsync(tickets_.data(), 0, tickets_.bytes(), stream_));
  chain_barrier_ = allocate(sizeof(unsigned int));
  MINILLM_CUDA(cudaMemsetAsync(chain_barrier_.data(), 0, chain_barrier_.bytes(), stream_));
  joined_.reserve(kMostChained);
  argmax_scratch_ = allocate(argmax_scratch_bytes());
  MINILLM_CUDA(cudaMemsetAsync(argmax_scratch_.data(), 0, argmax_scratch_.bytes(), stream_));
  may_chain_ = !chains_on(index).exchange(true);
}

CudaBackend::~CudaBackend() {
  (void)cudaStreamSynchronize(stream_);
  forget_records();
  (void)cudaStreamDestroy(stream_);
  if (may_chain_) chains_on(index_) = false;
}

Buffer CudaBackend::allocate(size_t bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, std::max<size_t>(bytes, 1));
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();  // The caller may recover, and the next launch check must not see it.
    throw Error(ErrorCode::kOutOfMemory, "cuda: no room for ", readable_bytes(bytes));
  }
  check(status, "cudaMalloc");
  ++n_allocations_;
  memory_->current += static_cast<int64_t>(bytes);
  memory_->peak = std::max(memory_->peak, memory_->current);
  return {data, bytes, [memory = memory_, bytes](void* p) {
            memory->current -= static_cast<int64_t>(bytes);
            (void)cudaFree(p);  // Waits for queued kernels that may use it.
          }};
}

void CudaBackend::upload(void* to, const void* from_host, size_t bytes) {
  if (bytes == 0) return;
  MINILLM_CUDA(cudaMemcpyAsync(to, from_host, bytes, cudaMemcpyHostToDevice, stream()));
  MINILLM_CUDA(cudaStreamSynchronize(stream()));
}

void CudaBackend::download(void* to_host, const void* from, size_t bytes) {
  if (bytes > 0) MINILLM_CUDA(cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, stream()));
  MINILLM_CUDA(cudaStreamSynchronize(stream()));
}

void CudaBackend::sync() { MINILLM_CUDA(cudaStreamSynchronize(stream())); }

std::unique_ptr<KvStorage> CudaBackend::make_kv_storage(const KvShape& shape) {
  return std::make_unique<CudaKvStorage>(shape, index_, stream());
}

std::unique_ptr<PackedWeight> CudaBackend::pack(std::span<const ConstTensorView> tensors, WeightRole, std::optional<Dtype> convert_to) {
  return pack_weight(*this, tensors, convert_to);
}

void* CudaBackend::keep(Buffer& buffer, size_t bytes) {
  if (buffer.bytes() < bytes) {
    (void)stream();  // What waits may use the buffer.
    forget_records();
    buffer = Buffer();  // Freed first: both at once may not fit.
    buffer = allocate(bytes);
  }
  return buffer.data();
}

const float* CudaBackend::constants(std::span<const float> values) {
  if (values.empty()) return nullptr;
  for (const Constants& known : constants_)
    if (std::ranges::equal(known.host, values)) return static_cast<const float*>(known.device.data());
  constants_.push_back({{values.begin(), values.end()}, allocate(values.size_bytes())});
  upload(constants_.back().device.data(), values.data(), values.size_bytes());
  return static_cast<const float*>(constants_.back().device.data());
}

void CudaBackend::reserve_workspace(const WorkspaceShape& shape) {
  const int64_t n_allocations = n_allocations_;
  Backend::reserve_workspace(shape);
  if (n_allocations_ != n_allocations) forget_records();
  const int64_t widest = std::max({shape.hidden, shape.ffn, shape.n_heads * shape.head_dim});
  keep(narrow_, static_cast<size_t>(shape.max_rows * widest) * sizeof(uint16_t));
  keep(split_inputs_, split_input_bytes(std::min(shape.max_rows, kFewTokens), widest));
  keep(split_gated_, split_input_bytes(std::min(shape.max_rows, kFewTokens / 2), shape.ffn));
  keep(step_buffer_, static_cast<size_t>(17 * shape.max_rows + shape.max_sequences * ceil_div(shape.max_context, 16)) * sizeof(int32_t));
  keep(rows_buffer_, static_cast<size_t>(std::max<int64_t>(shape.max_logit_rows, 1)) * sizeof(int32_t));
  reserve_choice(std::max<int64_t>(shape.max_logit_rows, 1));
}

void CudaBackend::begin_step(const Batch& batch) {
  Backend::begin_step(batch);
  step_page_tokens_ = 0;
  if (batch.page_tokens > 0) {
    lay_out_step(batch.page_tokens);
    return;
  }
  // Tokens and positions are needed before any cache is named.
  const size_t n = batch.tokens.size();
  step_host_.assign(batch.tokens.begin(), batch.tokens.end());
  step_host_.insert(step_host_.end(), batch.positions.begin(), batch.positions.end());
  auto* data = static_cast<int32_t*>(keep(step_buffer_, std::max<size_t>(5 * n, 1) * sizeof(int32_t)));
  const size_t n_there = batch.follows_choice ? n : 0;  // What was chosen lies where tokens go.
  staging_.send(data + n_there, step_host_.data() + n_there, (2 * n - n_there) * sizeof(int32_t), stream());
  step_ = {};
  step_.tokens = data;
  step_.positions = data + n;
  step_.n_rows = static_cast<int64_t>(n);
}

/// One upload: tokens, positions, slots, key counts, table starts, each [T], the tiles of rows, those for Hopper, then the block tables.
void CudaBackend::lay_out_step(int64_t page_tokens) {
  const size_t n = batch_.tokens.size();
  size_t n_tiles = 0;
  for (const SequenceSlice& sequence : batch_.sequences) n_tiles += static_cast<size_t>(ceil_div(sequence.n_rows, kTileRowsOfStep));
  std::vector<WideTile> wide;
  size_t first_of_list[std::size(sm90::kStepTileRows) + 1] = {};
  for (size_t list = 0; list < std::size(sm90::kStepTileRows); ++list) {
    if (has_wgmma_ && n > static_cast<size_t>(kFewTokens)) add_wide_tiles(wide, batch_, page_tokens, sm90::kStepTileRows[list]);
    first_of_list[list + 1] = wide.size();
  }
  const size_t first_tile = 5 * n, first_wide = first_tile + 2 * n_tiles, first_table = first_wide + wide.size() * sm90::kStepTileInts;
  step_host_.resize(first_table);
  std::ranges::copy(batch_.tokens, step_host_.begin());
  std::ranges::copy(batch_.positions, step_host_.begin() + static_cast<ptrdiff_t>(n));
  size_t row = 0, tile = first_tile;
  step_.max_keys = 0;
  for (const SequenceSlice& sequence : batch_.sequences) {
    const int64_t n_keys = sequence.n_cached + sequence.n_rows;
    const size_t table = step_host_.size() - first_table;
    step_.max_keys = std::max(step_.max_keys, n_keys);
    for (int64_t i = 0; i < sequence.n_rows; i += kTileRowsOfStep) {
      step_host_[tile++] = static_cast<int32_t>(static_cast<int64_t>(row) + i);
      step_host_[tile++] = static_cast<int32_t>(std::min(kTileRowsOfStep, sequence.n_rows - i));
    }
    for (int64_t i = 0; i < sequence.n_rows; ++i, ++row) {
      step_host_[2 * n + row] = static_cast<int32_t>(sequence.n_cached + i);
      step_host_[3 * n + row] = static_cast<int32_t>(n_keys);
      step_host_[4 * n + row] = static_cast<int32_t>(table);
    }
    if (sequence.n_rows > 0) step_host_.insert(step_host_.end(), sequence.pages, sequence.pages + ceil_div(n_keys, page_tokens));
  }
  for (size_t i = 0; i < wide.size(); ++i)
    std::ranges::copy(wide[i], step_host_.begin() + static_cast<ptrdiff_t>(first_wide + i * sm90::kStepTileInts));
  auto* data = static_cast<int32_t*>(keep(step_buffer_, std::max<size_t>(step_host_.size(), 1) * sizeof(int32_t)));
  const size_t n_there = batch_.follows_choice ? n : 0;  // What was chosen lies where tokens go.
  staging_.send(data + n_there, step_host_.data() + n_there, (step_host_.size() - n_there) * sizeof(int32_t), stream());
  step_.tokens = data;
  step_.positions = data + n;
  step_.slots = data + 2 * n;
  step_.key_counts = data + 3 * n;
  step_.table_starts = data + 4 * n;
  step_.tiles = data + first_tile;
  for (size_t list = 0; list < std::size(sm90::kStepTileRows); ++list) {
    step_.wide_tiles[list] = data + first_wide + first_of_list[list] * sm90::kStepTileInts;
    step_.n_wide_tiles[list] = static_cast<int64_t>(first_of_list[list + 1] - first_of_list[list]);
  }
  step_.tables = data + first_table;
  step_.n_table_pages = static_cast<int64_t>(step_host_.size() - first_table);
  step_.n_rows = static_cast<int64_t>(n);
  step_.n_tiles = static_cast<int64_t>(n_tiles);
  step_.one_row_each = n_tiles == n && batch_.sequences.size() == n;
  step_page_tokens_ = page_tokens;
}

const DeviceStep& CudaBackend::step_on(const CudaKvStorage& kv) {
  if (step_page_tokens_ != kv.shape().page_tokens) lay_out_step(kv.shape().page_tokens);
  return step_;
}

MachinePeaks CudaBackend::measure_peaks() {
  constexpr size_t kBytes = size_t{1} << 30;
  constexpr int64_t kSide = 8192;
  const Buffer from = allocate(kBytes), to = allocate(kBytes);
  if (!dense_) dense_ = std::make_unique<DenseProduct>(allocate(kDenseWorkspaceBytes));
  cudaEvent_t begin = nullptr, end = nullptr;
  MINILLM_CUDA(cudaEventCreate(&begin));
  MINILLM_CUDA(cudaEventCreate(&end));
  const auto seconds = [&](auto&& work) {
    double best = 0;
    for (int i = 0; i < 4; ++i) {  // The first warms up.
      MINILLM_CUDA(cudaEventRecord(begin, stream()));
      work();
      MINILLM_CUDA(cudaEventRecord(end, stream()));
      MINILLM_CUDA(cudaEventSynchronize(end));
      float ms = 0;
      MINILLM_CUDA(cudaEventElapsedTime(&ms, begin, end));
      best = best == 0 ? ms : std::min<double>(best, ms);
    }
    return best * 1e-3;
  };
  MachinePeaks peaks;
  peaks.read_gb_s = 2e-9 * static_cast<double>(kBytes) /
                    seconds([&] { MINILLM_CUDA(cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, stream())); });
  peaks.float_gflop_s =
      2e-9 * static_cast<double>(kSide * kSide * kSide) / seconds([&] {
        dense_->run(to.data(), from.data(), from.data(), {Dtype::kBF16, Dtype::kF32, kSide, kSide, kSide, kSide}, stream());
      });
  (void)cudaEventDestroy(begin);
  (void)cudaEventDestroy(end);
  return peaks;
}

}  // namespace minillm::cuda
