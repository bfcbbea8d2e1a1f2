// memory.cpp - aligned_alloc and two counters.
#include "backend/cpu/memory.h"

#include <sys/mman.h>

#include <cstdlib>

#include "base/bytes.h"
#include "minillm/error.h"

namespace minillm::cpu {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;  // From two of them on, fewer page faults and TLB misses.

}  // namespace

Buffer CountedMemory::allocate(size_t bytes) {
  const bool huge = bytes >= 2 * kHugePage;
  const size_t alignment = huge ? kHugePage : kAlignment;
  const auto padded = checked_add(bytes > 0 ? bytes : 1, alignment);
  void* data = nullptr;
  if (padded && *padded < uint64_t{1} << 62) data = std::aligned_alloc(alignment, (*padded - 1) / alignment * alignment);
  if (data == nullptr) throw Error(ErrorCode::kOutOfMemory, "cpu: no room for ", readable_bytes(bytes));
  if (huge) (void)madvise(data, bytes, MADV_HUGEPAGE);  // Only a wish.

  const int64_t size = static_cast<int64_t>(bytes), now = count_->current.fetch_add(size) + size;
  int64_t peak = count_->peak.load();
  while (peak < now && !count_->peak.compare_exchange_weak(peak, now)) {
  }
  return Buffer(data, bytes, [count = count_, size](void* memory) {
    std::free(memory);
    count->current.fetch_sub(size);
  });
}

}  // namespace minillm::cpu
