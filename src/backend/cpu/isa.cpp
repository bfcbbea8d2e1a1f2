// isa.cpp - the processor's answer to CPUID, through the compiler's runtime, which also asks whether the registers are enabled.
#include "backend/cpu/isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

#include "minillm/error.h"

namespace minillm::cpu {
namespace {

/// Conversions of float16. Asked of the processor itself: clang 14's __builtin_cpu_supports does not know the name.
bool has_f16c() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

/// Tiles of bf16: the processor's and the kernel's word for it. Linux gives a process the tile registers (8 KiB a thread) on request
/// only; threads that start later inherit them. Source: Intel SDM volume 1 chapter 13; Linux, arch/x86/xstate.rst.
bool has_amx() noexcept {
  constexpr unsigned kAmxBf16 = 1U << 22, kAmxTile = 1U << 24;  // EDX of leaf 7.
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kAmxTile) == 0 || (d & kAmxBf16) == 0) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
}

constexpr Isa kAll[] = {Isa::kScalar, Isa::kAvx2, Isa::kAvx512Vnni, Isa::kAvx512Bf16, Isa::kAmx};

}  // namespace

std::string_view name_of(Isa isa) noexcept {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512Vnni:
      return "avx512_vnni";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
    case Isa::kAmx:
      return "amx";
  }
  return "?";
}

bool is_supported(Isa isa) noexcept {
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    case Isa::kAvx512Vnni:
      return is_supported(Isa::kAvx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    case Isa::kAvx512Bf16:
      return is_supported(Isa::kAvx512Vnni) && __builtin_cpu_supports("avx512bf16");
    case Isa::kAmx:
      return is_supported(Isa::kAvx512Bf16) && __builtin_cpu_supports("avx512vbmi") && has_amx();
  }
  return false;
}

std::span<const Isa> all_isas() noexcept { return kAll; }

Isa choose_isa(std::string_view forced) {
  Isa best = Isa::kScalar;
  std::string known;
  for (Isa isa : kAll) {
    if (is_supported(isa)) best = isa;
    if (forced != name_of(isa)) {
      (known += known.empty() ? "" : ", ") += name_of(isa);
      continue;
    }
    if (!is_supported(isa)) throw Error(ErrorCode::kUnsupported, "MINILLM_ISA=", forced, ": this processor does not have it");
    return isa;
  }
  if (!forced.empty()) throw Error(ErrorCode::kInvalidArgument, "MINILLM_ISA=", forced, ": expected one of ", known);
  return best;
}

}  // namespace minillm::cpu
