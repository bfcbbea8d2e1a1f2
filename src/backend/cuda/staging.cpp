// staging.cpp - see staging.h.
#include "backend/cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "backend/cuda/check.h"
#include "base/bytes.h"

namespace minillm::cuda {

PinnedBuffer::PinnedBuffer(size_t bytes) { grow(bytes); }
PinnedBuffer::~PinnedBuffer() { (void)cudaFreeHost(data_); }

void PinnedBuffer::grow(size_t bytes) {
  if (bytes <= bytes_) return;
  (void)cudaFreeHost(data_);
  data_ = nullptr;
  bytes_ = 0;
  if (cudaHostAlloc(&data_, bytes, cudaHostAllocDefault) != cudaSuccess) {
    data_ = nullptr;
    (void)cudaGetLastError();  // The caller may recover, and the next launch check must not see it.
    throw Error(ErrorCode::kOutOfMemory, "cuda: no room for ", readable_bytes(bytes), " of pinned host memory");
  }
  bytes_ = bytes;
}

Event::Event() { MINILLM_CUDA(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
Event::~Event() { (void)cudaEventDestroy(event_); }
void Event::record(cudaStream_t stream) { MINILLM_CUDA(cudaEventRecord(event_, stream)); }

void Staging::send(void* to, const void* from, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return;
  constexpr size_t kLeast = 4096;
  Slot& slot = slots_[next_];
  next_ = (next_ + 1) % slots_.size();
  MINILLM_CUDA(slot.copied.wait());
  slot.memory.grow(std::max(bytes, kLeast));
  std::memcpy(slot.memory.data(), from, bytes);
  MINILLM_CUDA(cudaMemcpyAsync(to, slot.memory.data(), bytes, cudaMemcpyHostToDevice, stream));
  slot.copied.record(stream);
}

}  // namespace minillm::cuda
