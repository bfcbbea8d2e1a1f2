// kv_storage.cpp - the mapping behind the pages, and single tokens in and out of it.
#include "backend/cpu/kv_storage.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "base/dtype.h"
#include "base/half.h"

namespace minillm::cpu {
namespace {

/// Far above any model, small enough that no product below overflows.
constexpr int64_t kMaxHeadDim = 4096, kMaxLayers = 65536, kMaxHeads = 65536;

void check_shape(const KvShape& shape) {
  const auto refuse = [](const char* what, int64_t met, const char* expected) {
    throw Error(ErrorCode::kInvalidArgument, "kv storage: ", what, " ", met, ": expected ", expected);
  };
  if (shape.n_layers < 1 || shape.n_layers > kMaxLayers) refuse("layers", shape.n_layers, "1 to 65536");
  if (shape.n_kv_heads < 1 || shape.n_kv_heads > kMaxHeads) refuse("heads", shape.n_kv_heads, "1 to 65536");
  if (shape.head_dim < 2 || shape.head_dim > kMaxHeadDim || shape.head_dim % 2 != 0)
    refuse("head width", shape.head_dim, "an even number from 2 to 4096");
  if (shape.page_tokens < 16 || shape.page_tokens > 1024 || shape.page_tokens % 16 != 0)
    refuse("page tokens", shape.page_tokens, "a multiple of 16 from 16 to 1024");
  if (shape.max_pages < 0 || shape.max_pages > INT32_MAX) refuse("pages", shape.max_pages, "0 to 2147483647");
}

size_t system_page() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

size_t round_to_system_page(size_t bytes) {
  const size_t page = system_page();
  return (bytes + page - 1) / page * page;
}

float widen_one(KvElement element, const std::byte* at) {
  if (element == KvElement::kF32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  if (element == KvElement::kF8) return f8_to_float(static_cast<uint8_t>(*at));
  uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return element == KvElement::kF16 ? half_to_float(bits) : bfloat16_to_float(bits);
}

}  // namespace

KvElement kv_element(Dtype dtype) {
  if (dtype == Dtype::kF32) return KvElement::kF32;
  if (dtype == Dtype::kF16) return KvElement::kF16;
  if (dtype == Dtype::kBF16) return KvElement::kBF16;
  if (dtype == Dtype::kF8) return KvElement::kF8;
  throw Error(ErrorCode::kInvalidArgument, "kv storage: dtype ", name_of(dtype), ": expected ", kCacheDtypes);
}

CpuKvStorage::CpuKvStorage(const KvShape& shape, const AttentionKernels& kernels)
    : KvStorage(shape), kernels_(kernels), element_(kv_element(shape.dtype)) {
  check_shape(shape);
  element_bytes_ = static_cast<int64_t>(block_bytes(shape.dtype));
  value_width_ = round_up(shape.head_dim, kKeyPanel);
  panel_bytes_ = kKeyPanel * shape.head_dim * element_bytes_;
  value_bytes_ = value_width_ * element_bytes_;
  panels_per_page_ = shape.page_tokens / kKeyPanel;
  keys_bytes_ = panels_per_page_ * panel_bytes_;
  head_bytes_ = keys_bytes_ + shape.page_tokens * value_bytes_;
  page_stride_ = shape.n_layers * shape.n_kv_heads * head_bytes_;  // At most 2^32 * 2^26.
  const auto total = checked_mul(static_cast<uint64_t>(page_stride_), static_cast<uint64_t>(shape.max_pages));
  if (!total || *total > static_cast<uint64_t>(INT64_MAX) / 2)
    throw Error(ErrorCode::kOutOfMemory, "kv storage: ", shape.max_pages, " pages of ", readable_bytes(static_cast<uint64_t>(page_stride_)),
                " exceed the address space");
  mapped_bytes_ = round_to_system_page(static_cast<size_t>(*total));
  if (mapped_bytes_ == 0) return;
  void* mapped = mmap(nullptr, mapped_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED)
    throw Error(ErrorCode::kOutOfMemory, "kv storage: cannot reserve ", readable_bytes(mapped_bytes_), ": ", std::strerror(errno));
  base_ = static_cast<std::byte*>(mapped);
}

CpuKvStorage::~CpuKvStorage() {
  if (base_ != nullptr) munmap(base_, mapped_bytes_);
}

void CpuKvStorage::commit(int64_t n_pages) {
  if (n_pages < 0 || n_pages > shape().max_pages)
    throw Error(ErrorCode::kCapacity, "kv storage: ", n_pages, " pages asked for, 0 to ", shape().max_pages, " possible");
  const size_t now = round_to_system_page(static_cast<size_t>(n_pages_ * page_stride_));
  const size_t wanted = round_to_system_page(static_cast<size_t>(n_pages * page_stride_));
  if (wanted > now && mprotect(base_ + now, wanted - now, PROT_READ | PROT_WRITE) != 0)
    throw Error(ErrorCode::kOutOfMemory, "kv storage: no room for ", readable_bytes(wanted), ": ", std::strerror(errno));
  // Advice only: where it is taken, decode walks a large cache with fewer page-table misses (docs/SPEED.md).
  if (wanted > now) madvise(base_ + now, wanted - now, MADV_HUGEPAGE);
  if (wanted < now) {  // Neither call can fail on a private mapping of ours.
    madvise(base_ + wanted, now - wanted, MADV_DONTNEED);
    mprotect(base_ + wanted, now - wanted, PROT_NONE);
  }
  n_pages_ = n_pages;
}

void CpuKvStorage::copy_page(int32_t from, int32_t to) {
  check_place(0, from, 0, 0);
  check_place(0, to, 0, 0);
  if (from != to) std::memcpy(base_ + to * page_stride_, base_ + from * page_stride_, static_cast<size_t>(page_stride_));
}

void CpuKvStorage::check_place(int64_t layer, int32_t page, int64_t slot, int64_t n_tokens) const {
  MINILLM_CHECK(page >= 0 && page < n_pages_, "page ", page, " of ", n_pages_, " committed");
  MINILLM_CHECK(layer >= 0 && layer < shape().n_layers, "layer ", layer, " of ", shape().n_layers);
  MINILLM_CHECK(slot >= 0 && n_tokens >= 0 && slot + n_tokens <= shape().page_tokens, "slots ", slot, " + ", n_tokens, " of ",
                shape().page_tokens);
}

void CpuKvStorage::store(int64_t layer, int32_t page, int64_t head, int64_t slot, const float* k, const float* v) noexcept {
  const auto element = static_cast<size_t>(element_);
  std::byte* block = head_block(layer, page, head);
  kernels_.store_key[element](block + slot / kKeyPanel * panel_bytes_, slot % kKeyPanel, k, shape().head_dim);
  kernels_.narrow[element](block + keys_bytes_ + slot * value_bytes_, v, shape().head_dim);
}

void CpuKvStorage::write(int64_t layer, int32_t page, int64_t slot, ConstTensorView k, ConstTensorView v) {
  const int64_t n_tokens = k.dim(0), heads = shape().n_kv_heads, width = shape().head_dim;
  check_place(layer, page, slot, n_tokens);
  MINILLM_CHECK(k.n_elements() == n_tokens * heads * width && v.n_elements() == k.n_elements(), "k of ", k.n_elements(), ", v of ",
                v.n_elements(), " elements");
  const float* keys = k.f32();
  const float* values = v.f32();
  for (int64_t t = 0; t < n_tokens; ++t)
    for (int64_t g = 0; g < heads; ++g) store(layer, page, g, slot + t, keys + (t * heads + g) * width, values + (t * heads + g) * width);
}

void CpuKvStorage::read(int64_t layer, int32_t page, int64_t slot, TensorView k, TensorView v) const {
  const int64_t n_tokens = k.dim(0), heads = shape().n_kv_heads, width = shape().head_dim;
  check_place(layer, page, slot, n_tokens);
  MINILLM_CHECK(k.n_elements() == n_tokens * heads * width && v.n_elements() == k.n_elements(), "k of ", k.n_elements(), ", v of ",
                v.n_elements(), " elements");
  float* keys = k.f32();
  float* values = v.f32();
  for (int64_t t = 0; t < n_tokens; ++t) {
    const int64_t at = slot + t;
    for (int64_t g = 0; g < heads; ++g) {
      const std::byte* block = head_block(layer, page, g);
      const std::byte* key = block + at / kKeyPanel * panel_bytes_ + at % kKeyPanel * element_bytes_;
      const std::byte* value = block + keys_bytes_ + at * value_bytes_;
      for (int64_t d = 0; d < width; ++d) {
        *keys++ = widen_one(element_, key + d * kKeyPanel * element_bytes_);
        *values++ = widen_one(element_, value + d * element_bytes_);
      }
    }
  }
}

}  // namespace minillm::cpu
