// same_bits.h - for tests that compare steps of different sizes bit by bit.
#pragma once

#include <stdlib.h>

#include <string>

#include "backend/cpu/isa.h"

namespace minillm::test {

/// While it lives, CPU backends are made for the best instruction set here that gives the same bits in steps of any size. With AMX long
/// steps equal short ones to rounding (docs/KERNELS.md); its own promises are tested in conformance/ and backend/tile_products_test.cpp.
class SameBitsInAnyStep {
 public:
  SameBitsInAnyStep() {
    const char* const forced = ::getenv("MINILLM_ISA");
    was_forced_ = forced != nullptr;
    if (was_forced_) before_ = forced;
    if (cpu::choose_isa(before_) == cpu::Isa::kAmx) ::setenv("MINILLM_ISA", "avx512_bf16", 1);
  }
  ~SameBitsInAnyStep() { was_forced_ ? ::setenv("MINILLM_ISA", before_.c_str(), 1) : ::unsetenv("MINILLM_ISA"); }
  SameBitsInAnyStep(const SameBitsInAnyStep&) = delete;
  SameBitsInAnyStep& operator=(const SameBitsInAnyStep&) = delete;

 private:
  bool was_forced_ = false;
  std::string before_;
};

}  // namespace minillm::test
