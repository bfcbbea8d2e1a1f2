// vec.h - 16 lanes on every instruction set, so that each kernel is written once: Floats (16 x f32), Ints (16 x i32),
// Bytes (64 x u8). One zmm register, two ymm registers, or arrays. Only for files in isa/.
#pragma once

#include <cstdint>

/// Kernels are built from these; each copy is private to its file and instruction set. The scalar ones are loops: inlined by
/// force, they would take a minute to compile.
#ifdef MINILLM_ISA_scalar
#define MINILLM_INLINE [[maybe_unused]] static
#else
#define MINILLM_INLINE [[gnu::always_inline]] static inline
#endif

#ifdef MINILLM_ISA_scalar
#define MINILLM_MEMBER
#else
#define MINILLM_MEMBER [[gnu::always_inline]] inline
#endif

namespace minillm::cpu::MINILLM_ISA {

/// A compile-time index that decays to int: Index<3>{} selects element 3 of an array of registers.
template <int I>
struct Index {
  static constexpr int value = I;
  [[gnu::always_inline]] constexpr operator int() const { return I; }  // NOLINT(google-explicit-constructor)
};

/// Calls f(Index<0>{}), ..., f(Index<N - 1>{}). Unlike a loop, this leaves every array index constant before the compiler
/// splits arrays into registers, which keeps accumulators out of memory.
template <int N, typename F>
[[gnu::always_inline]] constexpr void unroll(F&& f) {
  if constexpr (N > 0) {
    unroll<N - 1>(f);
    f(Index<N - 1>{});
  }
}

}  // namespace minillm::cpu::MINILLM_ISA

#if defined(MINILLM_ISA_avx512_vnni) || defined(MINILLM_ISA_avx512_bf16) || defined(MINILLM_ISA_amx)
#include "backend/cpu/isa/vec_avx512.h"
#elif defined(MINILLM_ISA_avx2) || defined(MINILLM_ISA_avx_vnni)
#include "backend/cpu/isa/vec_avx2.h"
#else
#include "backend/cpu/isa/vec_scalar.h"
#endif
