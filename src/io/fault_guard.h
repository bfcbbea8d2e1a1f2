// fault_guard.h - a mapped file that is cut short while it is mapped reads as zeros instead of killing the process.
// The kernel raises SIGBUS on a touch of a page that the file no longer has. From the first guard on, a handler for SIGBUS is
// installed in the process: a fault inside a guarded range puts a page of zeros there and is remembered; every other fault goes
// to the handler that was there before. faulted() then says that what was read is not the file.
// Threads: any; the handler touches atomics and calls mmap only.
#pragma once

#include <cstddef>

namespace minillm {

class FaultGuard {
 public:
  /// Guards nothing.
  FaultGuard() = default;
  /// Guards the mapping [data, data + size), which must be unmapped only after the guard is gone.
  /// Throws Error{kCapacity} if 4096 mappings are guarded already.
  FaultGuard(const void* data, size_t size);
  ~FaultGuard();
  FaultGuard(FaultGuard&& other) noexcept;
  FaultGuard& operator=(FaultGuard&& other) noexcept;

  /// True if some page could not be read since the guard was made.
  bool faulted() const noexcept;

 private:
  struct Slot;
  friend struct FaultSlots;
  Slot* slot_ = nullptr;
};

}  // namespace minillm
