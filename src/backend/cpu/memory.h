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
  /// The same for weights: cut from runs of huge pages, one after the other, since a model is read from its first weight to its
  /// last for every token. A run goes back with the last weight in it; the newest one stays for the next.
  Buffer allocate_weight(size_t bytes);
  MemoryUse use() const noexcept { return {count_->current.load(), count_->peak.load()}; }
  void reset_peak() noexcept { count_->peak.store(count_->current.load()); }

 private:
  struct Count {
    std::atomic<int64_t> current{0}, peak{0};
  };
  Buffer counted(void* data, size_t bytes, std::shared_ptr<void> owner);

  std::shared_ptr<Count> count_ = std::make_shared<Count>();
  std::shared_ptr<void> run_;  ///< Where weights are cut from.
  size_t run_used_ = 0;
};

}  // namespace minillm::cpu
