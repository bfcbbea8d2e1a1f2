// memory.cpp - aligned_alloc and two counters; runs of huge pages for weights.
#include "backend/cpu/memory.h"

#include <sys/mman.h>

#include <cstdlib>

#include "base/bytes.h"
#include "minillm/error.h"

namespace minillm::cpu {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;  // From half of one on: fewer page faults and TLB misses.

constexpr size_t kRun = size_t{32} << 20;  // What weights are cut from; its untouched end costs nothing.

/// Throws Error{kOutOfMemory} naming the size.
std::shared_ptr<void> take(size_t bytes) {
  const bool huge = bytes >= kHugePage / 2;
  const size_t alignment = huge ? kHugePage : kAlignment;
  const auto padded = checked_add(bytes > 0 ? bytes : 1, alignment);
  void* data = nullptr;
  if (padded && *padded < uint64_t{1} << 62) data = std::aligned_alloc(alignment, (*padded - 1) / alignment * alignment);
  if (data == nullptr) throw Error(ErrorCode::kOutOfMemory, "cpu: no room for ", readable_bytes(bytes));
  if (huge) (void)madvise(data, (*padded - 1) / alignment * alignment, MADV_HUGEPAGE);  // Only a wish.
  return {data, std::free};
}

}  // namespace

Buffer CountedMemory::counted(void* data, size_t bytes, std::shared_ptr<void> owner) {
  const int64_t size = static_cast<int64_t>(bytes), now = count_->current.fetch_add(size) + size;
  int64_t peak = count_->peak.load();
  while (peak < now && !count_->peak.compare_exchange_weak(peak, now)) {
  }
  return Buffer(data, bytes, [count = count_, size, owner = std::move(owner)](void*) mutable {
    owner.reset();
    count->current.fetch_sub(size);
  });
}

Buffer CountedMemory::allocate(size_t bytes) {
  std::shared_ptr<void> owner = take(bytes);
  void* const data = owner.get();
  return counted(data, bytes, std::move(owner));
}

Buffer CountedMemory::allocate_weight(size_t bytes) {
  if (bytes > kRun / 4) return allocate(bytes);
  if (run_ == nullptr || bytes > kRun - run_used_) {
    run_ = take(kRun);
    run_used_ = 0;
  }
  uint8_t* const data = static_cast<uint8_t*>(run_.get()) + run_used_;
  run_used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return counted(data, bytes, run_);
}

}  // namespace minillm::cpu
