// tables.h - each file of kernels puts its own into the table.
#pragma once

#include "backend/cpu/kernels.h"

namespace minillm::cpu::MINILLM_ISA {

void add_row_kernels(Kernels& table);
void add_quantise_kernels(Kernels& table);
void add_gemv_kernels(Kernels& table);
void add_gemm_kernels(Kernels& table);
void add_gemm_packed_kernels(Kernels& table);
void add_float_kernels(Kernels& table);
void add_probes(Kernels& table);

}  // namespace minillm::cpu::MINILLM_ISA
