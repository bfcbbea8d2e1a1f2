// staging.h - pinned host memory, so that copies to and from the device run while the host goes on.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>

namespace minillm::cuda {

/// Host memory that the device's copy engine reads and writes itself.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(size_t bytes);
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  ~PinnedBuffer();
  /// At least so many bytes; what was there is lost if it grows.
  void grow(size_t bytes);
  void* data() const noexcept { return data_; }
  size_t bytes() const noexcept { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

/// A point in a stream.
class Event {
 public:
  Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event();
  void record(cudaStream_t stream);
  /// Until the stream is past the last record(); at once without one.
  cudaError_t wait() const noexcept { return cudaEventSynchronize(event_); }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Small uploads that do not wait: the source may change as soon as send() returns.
class Staging {
 public:
  void send(void* to, const void* from, size_t bytes, cudaStream_t stream);

 private:
  struct Slot {
    PinnedBuffer memory;
    Event copied;
  };
  std::array<Slot, 8> slots_;  ///< In turn: a step uses two or three, and two steps are under way.
  size_t next_ = 0;
};

}  // namespace minillm::cuda
