// panel_io.h - panels written from rows and read back, element by element; see panel.h for the layout.
#pragma once

#include <cstdint>

#include "minillm/types.h"

namespace minillm::cpu {

/// Writes one panel of a block format from `n_rows` <= 16 rows of the file's bytes, `row_stride` apart; the others become zeros.
void write_quantised_panel(Dtype dtype, const uint8_t* rows, int64_t row_stride, int64_t n_rows, int64_t k, uint8_t* panel);
/// Writes one panel of a float type from rows of any type.
void write_float_panel(Dtype dtype, Dtype source, const uint8_t* rows, int64_t row_stride, int64_t n_rows, int64_t k, uint8_t* panel);
/// Row `lane` of a panel in float32; the same values as dequantise_row of the source.
void read_panel_row(Dtype dtype, const uint8_t* panel, int64_t lane, int64_t k, float* out);

}  // namespace minillm::cpu
