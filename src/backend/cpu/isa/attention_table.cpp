// attention_table.cpp - the attention kernels of one instruction set, as a table.
#include "backend/cpu/isa/attention_tables.h"

#define MINILLM_NAME_OF(isa) #isa
#define MINILLM_QUOTE(isa) MINILLM_NAME_OF(isa)

namespace minillm::cpu::MINILLM_ISA {

#if !defined(__AMX_BF16__)
const MatrixKernels* matrix_kernels() noexcept { return nullptr; }
#endif

namespace {

AttentionKernels make_table() noexcept {
  AttentionKernels kernels{};
  kernels.name = MINILLM_QUOTE(MINILLM_ISA);
  kernels.matrices = matrix_kernels();
  constexpr KvElement kElements[] = {KvElement::kF32, KvElement::kF16, KvElement::kBF16, KvElement::kF8};
  for (const KvElement element : kElements) {
    kernels.scores[static_cast<int>(element)] = scores_function(element);
    kernels.values[static_cast<int>(element)] = values_function(element);
  }
  kernels.map_scores = map_scores;
  kernels.exponentials = exponentials;
  kernels.softmax_rows = softmax_rows;
  kernels.sum_lanes = sum_lanes;
  kernels.merge = merge;
  kernels.divide = divide;
  kernels.prepare_head = prepare_head;
  kernels.pack_panel = pack_panel;
  add_conversions(kernels);
  return kernels;
}

}  // namespace

const AttentionKernels& attention_kernels() noexcept {
  static const AttentionKernels kTable = make_table();
  return kTable;
}

}  // namespace minillm::cpu::MINILLM_ISA
