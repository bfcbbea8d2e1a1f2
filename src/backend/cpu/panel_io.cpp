// panel_io.cpp - the bytes of panel.h. Runs once for each weight at load, and for each row looked up.
#include "backend/cpu/panel_io.h"

#include <array>
#include <cstring>
#include <vector>

#include "backend/cpu/panel.h"
#include "base/dequantise.h"
#include "base/dtype.h"
#include "base/half.h"
#include "base/quant_block.h"

namespace minillm::cpu {
namespace {

void put_u16(uint8_t* at, uint16_t value) { std::memcpy(at, &value, sizeof value); }
uint16_t get_u16(const uint8_t* at) {
  uint16_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

/// Codes of row `lane` of a unit into its 4-bit (or 8-bit) part and its upper bits.
void put_codes(const PanelFormat& layout, const uint8_t* codes, int64_t lane, uint8_t* unit) {
  uint8_t *low = unit + 4 * lane, *upper = unit + layout.codes + 4 * lane;
  for (int i = 0; i < 4; ++i) {
    if (layout.codes == 512) {
      for (int q = 0; q < 8; ++q) low[64 * q + i] = codes[4 * q + i];
      continue;
    }
    for (int j = 0; j < 4; ++j) low[64 * j + i] = static_cast<uint8_t>((codes[8 * j + i] & 15) | ((codes[8 * j + 4 + i] & 15) << 4));
    int bits[2] = {};
    for (int q = 0; q < 8; ++q) {
      if (layout.upper == 64) bits[0] |= (codes[4 * q + i] >> 4) << q;
      if (layout.upper == 128) bits[q / 4] |= (codes[4 * q + i] >> 4) << (2 * (q % 4));
    }
    for (int v = 0; v < layout.upper / 64; ++v) upper[64 * v + i] = static_cast<uint8_t>(bits[v]);
  }
}

/// The inverse.
void get_codes(const PanelFormat& layout, const uint8_t* unit, int64_t lane, uint8_t* codes) {
  const uint8_t *low = unit + 4 * lane, *upper = unit + layout.codes + 4 * lane;
  for (int i = 0; i < 4; ++i)
    for (int q = 0; q < 8; ++q) {
      int code = layout.codes == 512 ? low[64 * q + i] : (low[64 * (q / 2) + i] >> (4 * (q % 2))) & 15;
      if (layout.upper == 64) code |= ((upper[i] >> q) & 1) << 4;
      if (layout.upper == 128) code |= ((upper[64 * (q / 4) + i] >> (2 * (q % 4))) & 3) << 4;
      codes[4 * q + i] = static_cast<uint8_t>(code);
    }
}

void put_scales(const QuantFormat& format, const PanelFormat& layout, const QuantBlock& source, int64_t lane, uint8_t* block) {
  uint8_t* floats = layout.header > 0 ? block : block + layout.codes + layout.upper;
  put_u16(floats + 2 * lane, source.d);
  if (format.has_offset) put_u16(floats + 32 + 2 * lane, source.m);
  if (!format.has_group_scales) return;
  for (int u = 0; u < layout.units; ++u) {
    uint8_t* scales = block + layout.header + u * layout.unit_bytes + layout.codes + layout.upper;
    const auto first = static_cast<size_t>(u) * kUnit / static_cast<size_t>(format.group);
    for (int g = 0; g < kUnit / format.group; ++g)
      scales[16 * g + lane] = static_cast<uint8_t>(source.scales[first + static_cast<size_t>(g)]);
    if (format.has_offset) scales[16 + lane] = source.mins[static_cast<size_t>(u)];
  }
}

void get_scales(const QuantFormat& format, const PanelFormat& layout, const uint8_t* block, int64_t lane, QuantBlock& to) {
  const uint8_t* floats = layout.header > 0 ? block : block + layout.codes + layout.upper;
  to.d = get_u16(floats + 2 * lane);
  if (format.has_offset) to.m = get_u16(floats + 32 + 2 * lane);
  if (!format.has_group_scales) return;
  for (int u = 0; u < layout.units; ++u) {
    const uint8_t* scales = block + layout.header + u * layout.unit_bytes + layout.codes + layout.upper;
    const auto first = static_cast<size_t>(u) * kUnit / static_cast<size_t>(format.group);
    for (int g = 0; g < kUnit / format.group; ++g) to.scales[first + static_cast<size_t>(g)] = static_cast<int8_t>(scales[16 * g + lane]);
    if (format.has_offset) to.mins[static_cast<size_t>(u)] = scales[16 + lane];
  }
}

}  // namespace

void write_quantised_panel(Dtype dtype, const uint8_t* rows, int64_t row_stride, int64_t n_rows, int64_t k, uint8_t* panel) {
  const QuantFormat format = quant_format(dtype);
  const PanelFormat layout = panel_format(dtype);
  const int64_t n_blocks = k / block_elements(dtype);
  std::memset(panel, 0, static_cast<size_t>(n_blocks * layout.block_bytes()));
  QuantBlock block;
  for (int64_t b = 0; b < n_blocks; ++b, panel += layout.block_bytes())
    for (int64_t lane = 0; lane < n_rows; ++lane) {
      read_block(dtype, rows + lane * row_stride + b * static_cast<int64_t>(block_bytes(dtype)), block);
      put_scales(format, layout, block, lane, panel);
      for (int u = 0; u < layout.units; ++u)
        put_codes(layout, block.codes.data() + u * kUnit, lane, panel + layout.header + u * layout.unit_bytes);
    }
}

void write_float_panel(Dtype dtype, Dtype source, const uint8_t* rows, int64_t row_stride, int64_t n_rows, int64_t k, uint8_t* panel) {
  const int64_t element = static_cast<int64_t>(block_bytes(dtype));
  std::memset(panel, 0, static_cast<size_t>(k * kPanelRows * element));
  std::vector<float> values(static_cast<size_t>(k));
  for (int64_t lane = 0; lane < n_rows; ++lane) {
    dequantise_row(source, rows + lane * row_stride, values.data(), k);
    uint8_t* at = panel + lane * element;
    for (float value : values) {
      if (dtype == Dtype::kF32)
        std::memcpy(at, &value, sizeof value);
      else
        put_u16(at, dtype == Dtype::kF16 ? float_to_half(value) : float_to_bfloat16(value));
      at += kPanelRows * element;
    }
  }
}

void read_panel_row(Dtype dtype, const uint8_t* panel, int64_t lane, int64_t k, float* out) {
  if (!is_quantised(dtype)) {
    const int64_t element = static_cast<int64_t>(block_bytes(dtype));
    for (int64_t i = 0; i < k; ++i) dequantise_row(dtype, panel + (i * kPanelRows + lane) * element, out + i, 1);
    return;
  }
  const QuantFormat format = quant_format(dtype);
  const PanelFormat layout = panel_format(dtype);
  QuantBlock block;
  std::array<uint8_t, kUnit> codes;
  for (const float* end = out + k; out != end; panel += layout.block_bytes()) {
    get_scales(format, layout, panel, lane, block);
    for (int u = 0; u < layout.units; ++u) {
      get_codes(layout, panel + layout.header + u * layout.unit_bytes, lane, codes.data());
      for (int i = 0; i < kUnit; ++i) {
        const int g = (u * kUnit + i) / format.group;
        const float weight = static_cast<float>(codes[static_cast<size_t>(i)] - format.zero);
        *out++ = group_scale(format, block, g) * weight + group_offset(format, block, g);
      }
    }
  }
}

}  // namespace minillm::cpu
