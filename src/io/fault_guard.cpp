// fault_guard.cpp - the table of guarded ranges and the handler that reads it.
#include "io/fault_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <mutex>
#include <utility>

#include "minillm/error.h"

namespace minillm {

/// Free while `begin` is 0. `end` is written before `begin`, so that the handler never sees half a range.
struct FaultGuard::Slot {
  std::atomic<uintptr_t> begin{0}, end{0};
  std::atomic<bool> faulted{false};
};

/// Static storage: the handler may run at any time and allocates nothing.
struct FaultSlots {
  static std::array<FaultGuard::Slot, 4096> slots;
  static std::mutex taking;  ///< Of slots; the handler does not need it.
  static uintptr_t page_bytes;
  static struct sigaction previous;

  static void install();
  static void handle(int signal, siginfo_t* info, void* context);
};

std::array<FaultGuard::Slot, 4096> FaultSlots::slots;
std::mutex FaultSlots::taking;
uintptr_t FaultSlots::page_bytes = 4096;
struct sigaction FaultSlots::previous;

static_assert(std::atomic<uintptr_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free, "a handler must not wait");

void FaultSlots::install() {
  page_bytes = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  struct sigaction action {};
  action.sa_sigaction = &FaultSlots::handle;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, &previous);  // Cannot fail: the signal exists and may be caught.
}

void FaultSlots::handle(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  // A signal that a program sent has no address: what stands there means something else.
  const uintptr_t address = info->si_code == BUS_ADRERR ? reinterpret_cast<uintptr_t>(info->si_addr) : 0;
  for (FaultGuard::Slot& slot : slots) {
    const uintptr_t begin = slot.begin.load(std::memory_order_acquire);
    if (begin == 0 || address < begin || address >= slot.end.load(std::memory_order_relaxed)) continue;
    void* page = reinterpret_cast<void*>(address / page_bytes * page_bytes);
    if (::mmap(page, page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) break;
    slot.faulted.store(true, std::memory_order_relaxed);
    errno = saved_errno;
    return;  // The read is tried again and finds zeros.
  }
  errno = saved_errno;
  if ((previous.sa_flags & SA_SIGINFO) != 0) return previous.sa_sigaction(signal, info, context);
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) return previous.sa_handler(signal);
  ::sigaction(SIGBUS, &previous, nullptr);  // The read is tried again and does what it would have done without us.
}

FaultGuard::FaultGuard(const void* data, size_t size) {
  static std::once_flag installed;
  std::call_once(installed, &FaultSlots::install);
  const std::lock_guard lock(FaultSlots::taking);
  for (Slot& slot : FaultSlots::slots) {
    if (slot.begin.load(std::memory_order_relaxed) != 0) continue;
    const auto begin = reinterpret_cast<uintptr_t>(data);
    slot.faulted.store(false, std::memory_order_relaxed);
    // Up to the end of the last page: the kernel maps whole pages.
    slot.end.store((begin + size + FaultSlots::page_bytes - 1) / FaultSlots::page_bytes * FaultSlots::page_bytes,
                   std::memory_order_relaxed);
    slot.begin.store(begin, std::memory_order_release);
    slot_ = &slot;
    return;
  }
  throw Error(ErrorCode::kCapacity, "mapped files: ", FaultSlots::slots.size(), " are open already");
}

FaultGuard::~FaultGuard() {
  if (slot_ != nullptr) slot_->begin.store(0, std::memory_order_release);
}

FaultGuard::FaultGuard(FaultGuard&& other) noexcept : slot_(std::exchange(other.slot_, nullptr)) {}

FaultGuard& FaultGuard::operator=(FaultGuard&& other) noexcept {
  std::swap(slot_, other.slot_);
  return *this;
}

bool FaultGuard::faulted() const noexcept { return slot_ != nullptr && slot_->faulted.load(std::memory_order_relaxed); }

}  // namespace minillm
