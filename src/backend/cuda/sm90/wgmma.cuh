// wgmma.cuh - warpgroup matrix products: 128 threads, D[64, N] += A[64, 16] B[16, N], 16-bit inputs, float32 accumulators.
// B, and A where it is not in registers, come from shared memory through descriptors of 128-byte swizzled tiles (tma.cuh).
// Accumulator layout: thread t of the warpgroup holds, for each 8-column group g, registers 4g..4g+3:
//   row 16 (t / 32) + (t % 32) / 4, columns 8g + 2 (t % 4) + {0, 1}; then the same columns eight rows below.
// That is also the layout of A in registers, two 16-bit values a register, so a product's result feeds the next one in place.
// Source: PTX ISA 8.x, "wgmma.mma_async".
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "backend/cuda/device/barrier.cuh"

namespace minillm::cuda::sm90 {

/// How B's tile lies: kRows when k is contiguous (K tiles: [n][k]), kColumns when n is (V tiles: [k][n]).
enum class Major : int { kRows = 0, kColumns = 1 };

/// Descriptor of a 128-byte swizzled tile: address, leading and stride byte offsets, each in units of 16 bytes.
/// kRows: 8-row groups lie 1024 bytes apart. kColumns: 8-deep k groups lie 1024 bytes apart, 64-wide column groups `column_group_bytes`.
__device__ __forceinline__ uint64_t tile_descriptor(const void* tile, uint32_t column_group_bytes) {
  constexpr uint64_t kSwizzle128 = 1ull << 62;
  const uint64_t address = (shared_address(tile) & 0x3FFFF) >> 4;
  return kSwizzle128 | (uint64_t{1024 >> 4} << 32) | (static_cast<uint64_t>(column_group_bytes >> 4) << 16) | address;
}

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits until at most `kPending` committed groups are unfinished.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
/// Keeps the compiler from moving uses of accumulators across this point: it does not know that they change asynchronously.
template <int kCount>
__device__ __forceinline__ void pin(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// Operand lists for inline assembly, eight registers at a time.
#define MINILLM_P0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define MINILLM_P1 "%8, %9, %10, %11, %12, %13, %14, %15"
#define MINILLM_P2 "%16, %17, %18, %19, %20, %21, %22, %23"
#define MINILLM_P3 "%24, %25, %26, %27, %28, %29, %30, %31"
#define MINILLM_P4 "%32, %33, %34, %35, %36, %37, %38, %39"
#define MINILLM_P5 "%40, %41, %42, %43, %44, %45, %46, %47"
#define MINILLM_P6 "%48, %49, %50, %51, %52, %53, %54, %55"
#define MINILLM_P7 "%56, %57, %58, %59, %60, %61, %62, %63"
#define MINILLM_P8 "%64, %65, %66, %67, %68, %69, %70, %71"
#define MINILLM_P9 "%72, %73, %74, %75, %76, %77, %78, %79"
#define MINILLM_P10 "%80, %81, %82, %83, %84, %85, %86, %87"
#define MINILLM_P11 "%88, %89, %90, %91, %92, %93, %94, %95"
#define MINILLM_P12 "%96, %97, %98, %99, %100, %101, %102, %103"
#define MINILLM_P13 "%104, %105, %106, %107, %108, %109, %110, %111"
#define MINILLM_P14 "%112, %113, %114, %115, %116, %117, %118, %119"
#define MINILLM_P15 "%120, %121, %122, %123, %124, %125, %126, %127"
#define MINILLM_R(k)                                                                                                                      \
  "+f"(d[8 * k]), "+f"(d[8 * k + 1]), "+f"(d[8 * k + 2]), "+f"(d[8 * k + 3]), "+f"(d[8 * k + 4]), "+f"(d[8 * k + 5]), "+f"(d[8 * k + 6]), \
      "+f"(d[8 * k + 7])
#define MINILLM_PLIST64 MINILLM_P0 ", " MINILLM_P1 ", " MINILLM_P2 ", " MINILLM_P3
#define MINILLM_RLIST64 MINILLM_R(0), MINILLM_R(1), MINILLM_R(2), MINILLM_R(3)
#define MINILLM_PLIST80 MINILLM_P0 ", " MINILLM_P1 ", " MINILLM_P2 ", " MINILLM_P3 ", " MINILLM_P4
#define MINILLM_RLIST80 MINILLM_R(0), MINILLM_R(1), MINILLM_R(2), MINILLM_R(3), MINILLM_R(4)
#define MINILLM_PLIST96 MINILLM_P0 ", " MINILLM_P1 ", " MINILLM_P2 ", " MINILLM_P3 ", " MINILLM_P4 ", " MINILLM_P5
#define MINILLM_RLIST96 MINILLM_R(0), MINILLM_R(1), MINILLM_R(2), MINILLM_R(3), MINILLM_R(4), MINILLM_R(5)
#define MINILLM_PLIST112 MINILLM_P0 ", " MINILLM_P1 ", " MINILLM_P2 ", " MINILLM_P3 ", " MINILLM_P4 ", " MINILLM_P5 ", " MINILLM_P6
#define MINILLM_RLIST112 MINILLM_R(0), MINILLM_R(1), MINILLM_R(2), MINILLM_R(3), MINILLM_R(4), MINILLM_R(5), MINILLM_R(6)
#define MINILLM_PLIST128 \
  MINILLM_P0 ", " MINILLM_P1 ", " MINILLM_P2 ", " MINILLM_P3 ", " MINILLM_P4 ", " MINILLM_P5 ", " MINILLM_P6 ", " MINILLM_P7
#define MINILLM_RLIST128 MINILLM_R(0), MINILLM_R(1), MINILLM_R(2), MINILLM_R(3), MINILLM_R(4), MINILLM_R(5), MINILLM_R(6), MINILLM_R(7)
#define MINILLM_PLIST160                                                                                                     \
  MINILLM_P0 ", " MINILLM_P1 ", " MINILLM_P2 ", " MINILLM_P3 ", " MINILLM_P4 ", " MINILLM_P5 ", " MINILLM_P6 ", " MINILLM_P7 \
             ", " MINILLM_P8 ", " MINILLM_P9
#define MINILLM_RLIST160 \
  MINILLM_R(0), MINILLM_R(1), MINILLM_R(2), MINILLM_R(3), MINILLM_R(4), MINILLM_R(5), MINILLM_R(6), MINILLM_R(7), MINILLM_R(8), MINILLM_R(9)
#define MINILLM_PLIST176                                                                                                     \
  MINILLM_P0 ", " MINILLM_P1 ", " MINILLM_P2 ", " MINILLM_P3 ", " MINILLM_P4 ", " MINILLM_P5 ", " MINILLM_P6 ", " MINILLM_P7 \
             ", " MINILLM_P8 ", " MINILLM_P9 ", " MINILLM_P10
#define MINILLM_RLIST176                                                                                                        \
  MINILLM_R(0), MINILLM_R(1), MINILLM_R(2), MINILLM_R(3), MINILLM_R(4), MINILLM_R(5), MINILLM_R(6), MINILLM_R(7), MINILLM_R(8), \
      MINILLM_R(9), MINILLM_R(10)
#define MINILLM_PLIST192                                                                                                     \
  MINILLM_P0 ", " MINILLM_P1 ", " MINILLM_P2 ", " MINILLM_P3 ", " MINILLM_P4 ", " MINILLM_P5 ", " MINILLM_P6 ", " MINILLM_P7 \
             ", " MINILLM_P8 ", " MINILLM_P9 ", " MINILLM_P10 ", " MINILLM_P11
#define MINILLM_RLIST192                                                                                                        \
  MINILLM_R(0), MINILLM_R(1), MINILLM_R(2), MINILLM_R(3), MINILLM_R(4), MINILLM_R(5), MINILLM_R(6), MINILLM_R(7), MINILLM_R(8), \
      MINILLM_R(9), MINILLM_R(10), MINILLM_R(11)
#define MINILLM_PLIST256                                                                                                          \
  MINILLM_P0 ", " MINILLM_P1 ", " MINILLM_P2 ", " MINILLM_P3 ", " MINILLM_P4 ", " MINILLM_P5 ", " MINILLM_P6 ", " MINILLM_P7      \
             ", " MINILLM_P8 ", " MINILLM_P9 ", " MINILLM_P10 ", " MINILLM_P11 ", " MINILLM_P12 ", " MINILLM_P13 ", " MINILLM_P14 \
             ", " MINILLM_P15
#define MINILLM_RLIST256                                                                                                        \
  MINILLM_R(0), MINILLM_R(1), MINILLM_R(2), MINILLM_R(3), MINILLM_R(4), MINILLM_R(5), MINILLM_R(6), MINILLM_R(7), MINILLM_R(8), \
      MINILLM_R(9), MINILLM_R(10), MINILLM_R(11), MINILLM_R(12), MINILLM_R(13), MINILLM_R(14), MINILLM_R(15)

// The two forms of one width and type: A in shared memory, A in registers. `accumulate` false overwrites D.
// O0.. are the numbers of the operands after the N / 2 accumulators.
#define MINILLM_WGMMA(N, T, NAME, O0, O1, O2, O3, O4, O5, O6)                                                                             \
  template <Major kMajor>                                                                                                                 \
  __device__ __forceinline__ void wgmma(float(&d)[N / 2], uint64_t a, uint64_t b, bool accumulate, T) {                                   \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" O2                                                                                  \
                 ", 0;\n"                                                                                                                 \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME " {" MINILLM_PLIST##N                                    \
                 "}, "                                                                                                                    \
                 "%" O0 ", %" O1 ", p, 1, 1, 0, %" O3 ";\n}"                                                                              \
                 : MINILLM_RLIST##N                                                                                                       \
                 : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(static_cast<int>(kMajor)));                                     \
  }                                                                                                                                       \
  template <Major kMajor>                                                                                                                 \
  __device__ __forceinline__ void wgmma(float(&d)[N / 2], const uint32_t(&a)[4], uint64_t b, bool accumulate, T) {                        \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" O5                                                                                  \
                 ", 0;\n"                                                                                                                 \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME " {" MINILLM_PLIST##N                                    \
                 "}, "                                                                                                                    \
                 "{%" O0 ", %" O1 ", %" O2 ", %" O3 "}, %" O4 ", p, 1, 1, %" O6 ";\n}"                                                    \
                 : MINILLM_RLIST##N                                                                                                       \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)), "n"(static_cast<int>(kMajor))); \
  }
#define MINILLM_WGMMA_BOTH(N, ...)                     \
  MINILLM_WGMMA(N, __nv_bfloat16, "bf16", __VA_ARGS__) \
  MINILLM_WGMMA(N, __half, "f16", __VA_ARGS__)

MINILLM_WGMMA_BOTH(64, "32", "33", "34", "35", "36", "37", "38")
MINILLM_WGMMA_BOTH(80, "40", "41", "42", "43", "44", "45", "46")
MINILLM_WGMMA_BOTH(96, "48", "49", "50", "51", "52", "53", "54")
MINILLM_WGMMA_BOTH(112, "56", "57", "58", "59", "60", "61", "62")
MINILLM_WGMMA_BOTH(128, "64", "65", "66", "67", "68", "69", "70")
MINILLM_WGMMA_BOTH(160, "80", "81", "82", "83", "84", "85", "86")
MINILLM_WGMMA_BOTH(176, "88", "89", "90", "91", "92", "93", "94")
MINILLM_WGMMA_BOTH(192, "96", "97", "98", "99", "100", "101", "102")
MINILLM_WGMMA_BOTH(256, "128", "129", "130", "131", "132", "133", "134")

#undef MINILLM_WGMMA_BOTH
#undef MINILLM_WGMMA

}  // namespace minillm::cuda::sm90
