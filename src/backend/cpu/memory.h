// memory.h - host memory for buffers and weights: 64-byte aligned, counted, in huge pages where that is worth asking for.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "backend/backend.h"
#include "backend/buffer.h"

namespace minillm::cpu {

/// Counts what it has given out. Buffers may outlive it: they share the counter.
class CountedMemory {
 public:
  /// Uninitialised. Throws Error{kOutOfMemory} naming the size.
  Buffer allocate(size_t bytes);
  MemoryUse use() const noexcept { return {count_->current.load(), count_->peak.load()}; }
  void reset_peak() noexcept { count_->peak.store(count_->current.load()); }

 private:
  struct Count {
    std::atomic<int64_t> current{0}, peak{0};
  };
  std::shared_ptr<Count> count_ = std::make_shared<Count>();
};

}  // namespace minillm::cpu
