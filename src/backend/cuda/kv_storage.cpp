// kv_storage.cpp - mapping memory behind a reserved range, and the host's view of a page.
#include "backend/cuda/kv_storage.h"

#include <algorithm>
#include <vector>

#include "backend/cuda/check.h"
#include "backend/cuda/driver.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/dequantise.h"
#include "base/dtype.h"

namespace minillm::cuda {
namespace {

CUmemAllocationProp properties(int device) {
  CUmemAllocationProp p{};
  p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  p.location = {CU_MEM_LOCATION_TYPE_DEVICE, device};
  return p;
}

}  // namespace

CudaKvStorage::CudaKvStorage(const KvShape& shape, int device, cudaStream_t stream) : KvStorage(shape), device_(device), stream_(stream) {
  if (shape.page_tokens < 16 || shape.page_tokens > 1024 || shape.page_tokens % 16 != 0)
    throw Error(ErrorCode::kInvalidArgument, "cuda: pages of ", shape.page_tokens, " tokens; expected a multiple of 16 from 16 to 1024");
  if (!is_cache_dtype(shape.dtype))
    throw Error(ErrorCode::kInvalidArgument, "cuda: a cache of ", name_of(shape.dtype), "; expected ", kCacheDtypes);
  const CUmemAllocationProp p = properties(device);
  MINILLM_DRIVER(driver().granularity(&granularity_, &p, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
  const auto total = checked_mul(static_cast<uint64_t>(shape.page_bytes()), static_cast<uint64_t>(shape.max_pages));
  if (!total || *total > uint64_t{1} << 46)
    throw Error(ErrorCode::kOutOfMemory, "cuda: no addresses for ", shape.max_pages, " pages of ",
                readable_bytes(static_cast<uint64_t>(shape.page_bytes())));
  reserved_ = std::max<size_t>(granularity_, (*total + granularity_ - 1) / granularity_ * granularity_);
  if (driver().reserve(&base_, reserved_, 0, 0, 0) != CUDA_SUCCESS)
    throw Error(ErrorCode::kOutOfMemory, "cuda: no addresses for ", readable_bytes(reserved_), " of keys and values");
}

CudaKvStorage::~CudaKvStorage() {
  (void)cudaStreamSynchronize(stream_);  // Queued kernels may still use the pages.
  if (mapped_ > 0) (void)driver().unmap(base_, mapped_);
  for (CUmemGenericAllocationHandle chunk : chunks_) (void)driver().release(chunk);
  if (base_ != 0) (void)driver().free_addresses(base_, reserved_);
}

void CudaKvStorage::commit(int64_t n_pages) {
  MINILLM_CHECK(n_pages >= 0 && n_pages <= shape().max_pages, n_pages, " pages of ", shape().max_pages);
  const auto bytes = static_cast<size_t>(n_pages * shape().page_bytes());
  const size_t want = (bytes + granularity_ - 1) / granularity_ * granularity_;
  if (want < mapped_) MINILLM_CUDA(cudaStreamSynchronize(stream_));
  while (mapped_ > want) {
    mapped_ -= granularity_;
    MINILLM_DRIVER(driver().unmap(base_ + mapped_, granularity_));
    MINILLM_DRIVER(driver().release(chunks_.back()));
    chunks_.pop_back();
  }
  const CUmemAllocationProp p = properties(device_);
  const size_t before = mapped_;
  while (mapped_ < want) {
    CUmemGenericAllocationHandle chunk = 0;
    if (driver().create(&chunk, granularity_, &p, 0) != CUDA_SUCCESS) {
      const size_t met = mapped_;
      commit(static_cast<int64_t>(before) / shape().page_bytes());  // As it was.
      throw Error(ErrorCode::kOutOfMemory, "cuda: no room for ", readable_bytes(want), " of keys and values; got ", readable_bytes(met));
    }
    MINILLM_DRIVER(driver().map(base_ + mapped_, granularity_, 0, chunk, 0));
    chunks_.push_back(chunk);
    const CUmemAccessDesc access{p.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    MINILLM_DRIVER(driver().set_access(base_ + mapped_, granularity_, &access, 1));
    mapped_ += granularity_;
  }
  committed_bytes_ = static_cast<int64_t>(bytes);
}

std::byte* CudaKvStorage::at(int64_t layer, int32_t page, int part, int64_t head, int64_t slot) const {
  const KvShape& s = shape();
  const int64_t row = (((page * s.n_layers + layer) * 2 + part) * s.n_kv_heads + head) * s.page_tokens + slot;
  return reinterpret_cast<std::byte*>(base_) + row * s.head_dim * static_cast<int64_t>(block_bytes(s.dtype));
}

void CudaKvStorage::copy_page(int32_t from, int32_t to) {
  MINILLM_CUDA(cudaMemcpyAsync(at(0, to, 0, 0, 0), at(0, from, 0, 0, 0), static_cast<size_t>(shape().page_bytes()),
                               cudaMemcpyDeviceToDevice, stream_));
}

KeyLayout CudaKvStorage::layout(int64_t layer) const {
  const KvShape& s = shape();
  const int64_t part = s.n_kv_heads * s.page_tokens * s.head_dim;
  return {at(layer, 0, 0, 0, 0),
          at(layer, 0, 1, 0, 0),
          s.dtype,
          static_cast<int>(s.page_tokens),
          2 * s.n_layers * part,
          s.head_dim,
          s.page_tokens * s.head_dim,
          0,
          s.max_pages};
}

void CudaKvStorage::write(int64_t layer, int32_t page, int64_t slot, ConstTensorView k, ConstTensorView v) {
  const KvShape& s = shape();
  const int64_t n = k.dim(0), row_size = s.head_dim * static_cast<int64_t>(block_bytes(s.dtype));
  std::vector<std::byte> rows(static_cast<size_t>(n * row_size));
  for (int part = 0; part < 2; ++part)
    for (int64_t g = 0; g < s.n_kv_heads; ++g) {
      const float* from = (part == 0 ? k : v).f32() + g * s.head_dim;
      for (int64_t i = 0; i < n; ++i) narrow_row(s.dtype, rows.data() + i * row_size, from + i * s.n_kv_heads * s.head_dim, s.head_dim);
      MINILLM_CUDA(cudaMemcpyAsync(at(layer, page, part, g, slot), rows.data(), rows.size(), cudaMemcpyHostToDevice, stream_));
      MINILLM_CUDA(cudaStreamSynchronize(stream_));  // `rows` is used again.
    }
}

void CudaKvStorage::read(int64_t layer, int32_t page, int64_t slot, TensorView k, TensorView v) const {
  const KvShape& s = shape();
  const int64_t n = k.dim(0), row_size = s.head_dim * static_cast<int64_t>(block_bytes(s.dtype));
  std::vector<std::byte> rows(static_cast<size_t>(n * row_size));
  for (int part = 0; part < 2; ++part)
    for (int64_t g = 0; g < s.n_kv_heads; ++g) {
      MINILLM_CUDA(cudaMemcpyAsync(rows.data(), at(layer, page, part, g, slot), rows.size(), cudaMemcpyDeviceToHost, stream_));
      MINILLM_CUDA(cudaStreamSynchronize(stream_));
      float* to = (part == 0 ? k : v).f32() + g * s.head_dim;
      for (int64_t i = 0; i < n; ++i) dequantise_row(s.dtype, rows.data() + i * row_size, to + i * s.n_kv_heads * s.head_dim, s.head_dim);
    }
}

}  // namespace minillm::cuda
