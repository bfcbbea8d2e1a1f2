// attention_tables.h - what the files of one instruction set offer to its table; names are those of AttentionKernels.
#pragma once

#include "backend/cpu/attention_kernels.h"

#ifndef MINILLM_ISA
#define MINILLM_ISA scalar  // Only so that the header compiles alone.
#endif

namespace minillm::cpu::MINILLM_ISA {

using ScoresFunction = void (*)(const ScoreTile&);
using ValuesFunction = void (*)(const ValueTile&);
ScoresFunction scores_function(KvElement element) noexcept;
ValuesFunction values_function(KvElement element) noexcept;

float map_scores(float* scores, KeyRange range, const ScoreMap& map);
void exponentials(float* scores, KeyRange range, const ScoreMap& map, float max, float* sum);
void softmax_rows(const SoftmaxTile& tile);
float sum_lanes(const float* sum);
void merge(float* total_o, RowTotal& total, const float* o, RowTotal part, int64_t padded_width);
void divide(float* out, const float* o, float sum, int64_t head_dim);

void prepare_head(float* out, const HeadInput& head);
void pack_panel(float* panel, const float* k, int64_t k_stride, int64_t n_keys, int64_t head_dim);
/// Tiles of bfloat16; null where there are none.
const MatrixKernels* matrix_kernels() noexcept;
/// Fills widen, store_key and narrow.
void add_conversions(AttentionKernels& kernels) noexcept;

}  // namespace minillm::cpu::MINILLM_ISA
