// kernels.h - what is compiled once per instruction set, as a table of function pointers; filled by isa/table.cpp.
// Plain structs and pointers only: this header is seen by files compiled with different instruction sets.
// Order of sums: an output is one chain over k, the same in every kernel of a table, so results do not depend on which
// kernel, tile, thread or batch computed them. Integer sums are exact.
#pragma once

#include <cstdint>

#include "backend/cpu/panel.h"

namespace minillm::cpu {

/// Rows whose activations lie side by side, unit by unit: a tile of tokens finds all of a unit behind one address. Where gemv reads
/// one row after the other, strips are of one row.
inline constexpr int kStripRows = 8;

/// One term of the activations: T rows in S strips of R, U = K / 32.
struct ActivationTerm {
  int8_t* codes = nullptr;             ///< [S, U, R, 32]
  int32_t* negative_sums = nullptr;    ///< [S, U, R] minus the sum of the unit's codes
  int32_t* negative_halves = nullptr;  ///< [S, U, 2, R] the same for each 16
};

/// Activations as integers of 15 bits with a scale every 32 values: x = scale * (high + low / 128), high in -127..127, low in -64..64.
/// A unit that is small beside the others of its row is coarse: its low codes are all zeros, and a product may leave them out.
/// A unit with a NaN or an infinity has a NaN scale; one below 1e-26 is zero, so that no product with a weight's scale is subnormal.
struct QuantisedRows {
  ActivationTerm high, low;
  uint8_t* fine = nullptr;       ///< [S, U, R] 0: the unit is coarse.
  float* scales = nullptr;       ///< [S, U, R]
  float* scaled_sums = nullptr;  ///< [S, U, R] the sum of the unit's values
  int64_t k = 0;
  int64_t strip_rows = kStripRows;  ///< R
  bool has_sums = true;             ///< negative_sums are set: a format with a zero (UnitKind) needs them.
  bool has_halves = true;           ///< negative_halves are.
};
/// A unit is fine where its largest value exceeds this times the root of the mean square of those of its row.
inline constexpr double kFineAbove = 1.25;

/// Panels of one format, `panel_bytes` apart; the last may hold fewer than 16 wanted rows.
struct PanelSpan {
  const uint8_t* data = nullptr;
  int64_t panel_bytes = 0;
  int64_t n_rows = 0;
  int64_t k = 0;
  const uint8_t* next = nullptr;  ///< What the thread reads afterwards, panels as far apart: gemv fetches their first bytes. Or null.
};

/// Room for panels taken out of their format, private to a thread: U' units of each of up to kMaxTilePanels panels.
///   codes [panel][U'][8][16][4] u8 (or signed where an instruction set prefers), scales [panel][U'][1 or 2][16],
///   offsets [panel][U'][16].  Floats: values [panel][k'][16] in place of codes.
struct Unpacked {
  uint8_t* codes = nullptr;
  float* scales = nullptr;
  float* offsets = nullptr;
  float* sums = nullptr;  ///< kTileSums floats, for what does not fit into registers.
};
inline constexpr int kMaxTilePanels = 4;
inline constexpr int kTileSums = kMaxTilePanels * kStripRows * kPanelRows;
inline constexpr int64_t kChunk = 2048;  ///< Values of k unpacked at a time: 3 panels take 96 KiB of codes and 24 KiB of scales.

/// One block of outputs: a register tile's rows by tokens [first_token, first_token + n_tokens), over k in [k0, k0 + n_k).
struct Tile {
  Unpacked weights;
  int64_t n_rows = 0;  ///< Wanted rows, at most 16 tile_panels; what lies in the room of missing panels is never stored.
  int64_t k0 = 0, n_k = 0;
  int64_t first_token = 0, n_tokens = 0;
  float* out = nullptr;  ///< Row `first_token`, first wanted column.
  int64_t out_stride = 0;
  const uint8_t* ahead = nullptr;  ///< What will be read next: fetched while the tile computes.
  int64_t ahead_bytes = 0;
};

/// One block of outputs of a product that leaves the weights packed: the panels' rows by tokens [0, n_tokens).
struct PackedTile {
  PanelSpan weights;
  int64_t n_tokens = 0;
  float* out = nullptr;  ///< Row 0, first wanted column.
  int64_t out_stride = 0;
  float* sums = nullptr;           ///< Room for kTileSums floats, private to the thread.
  const uint8_t* ahead = nullptr;  ///< As in Tile.
  int64_t ahead_bytes = 0;
};

/// Activations rounded to bfloat16, T rows in strips of 16: [S, U, 16, 32], U = K / 32 rounded up; what lies past the end of a row is zero.
struct RoundedRows {
  uint16_t* values = nullptr;
  int64_t n_units = 0;
  uint16_t* strip(int64_t s) const { return values + s * n_units * kTileValues; }
  static constexpr int kTileValues = 16 * 32;  ///< A tile: 16 rows by 32 values of k, 1 KiB.
};

/// Units [first, first + n) of two panels of one format (or one panel), to become tiles of bfloat16 in `to` [2, n, 16 pairs of k, 16 rows,
/// 2].
struct UnpackTask {
  const uint8_t* panels[2] = {};
  int64_t n_panels = 2, first = 0, n = 0, k = 0;
  int64_t ahead = 0;  ///< Bytes from what is read to what is fetched into L2 beside it.
  uint16_t* to = nullptr;
};

/// Memory fetched into L2: `n` runs of lines, `stride` bytes apart.
struct FetchTask {
  const void* at = nullptr;
  int64_t n = 0, stride = 0, n_lines = 0;
};

/// What becomes of a product's final rows. But for kStore and kCall they wait in `sums`: two are done a step, beside later products.
enum class Finish : uint8_t {
  kNone,   ///< They stay in `sums`: later units are to come.
  kStore,  ///< 32 columns to `out`.
  kAdd,    ///< 32 columns are added to `out`.
  kSilu,   ///< silu(first panel) * second panel, rounded to 16 columns of `rounded` from `column` on.
  kGelu,   ///< The same with gelu.
  kCall,   ///< `call` is told of them while they are there, each once.
};

/// Products of two panels and rows over some units, on tiles. Meanwhile `next` is unpacked and `fetch` fetched.
struct TileProduct {
  static constexpr int64_t kBlockRows = 32;
  const uint16_t* weights = nullptr;  ///< [2, n_units, 16, 16, 2]
  const uint16_t* rows = nullptr;     ///< The first unit of the first strip.
  int64_t strip_values = 0;           ///< From a strip to the next.
  int64_t n_units = 0, n_rows = 0;
  bool first = true;        ///< Starts the sums; else adds to them.
  float* sums = nullptr;    ///< [sums_blocks, 32, 32]: of each row 16 sums of the first panel, then 16 of the second.
  int64_t sums_blocks = 0;  ///< Blocks of rows until their sums take the place of earlier ones: all of them, or, in a single call, two.
  Finish finish = Finish::kNone;
  float* out = nullptr;  ///< The first row and column.
  int64_t out_stride = 0;
  RoundedRows rounded = {};
  int64_t first_row = 0, column = 0;  ///< Of `rounded`.
  void (*call)(const void* context, float* sums, int64_t row, int64_t n_rows) = nullptr;
  const void* context = nullptr;
  UnpackTask next = {};
  FetchTask fetch = {};
};

/// Rows of a gate and what it is for, as they come out of a product of pairs: act(gate) * up, rounded, to columns [column, column + 16).
struct GateTask {
  const float *gate = nullptr, *up = nullptr;
  int64_t stride = 0, row = 0, n_rows = 0, column = 0;
};

/// How a format's units are multiplied.
enum class UnitKind : uint8_t {
  kZero,    ///< scale (code - zero), codes of at most 6 bits
  kWide,    ///< the same with codes of 8 bits
  kOffset,  ///< scale code + offset
  kHalves,  ///< scale (code - zero), a scale every 16
};
inline constexpr int kUnitKinds = 4, kDtypes = 12;
constexpr UnitKind unit_kind(Dtype dtype) noexcept {
  if (dtype == Dtype::kQ8_0) return UnitKind::kWide;
  if (dtype == Dtype::kQ6_K) return UnitKind::kHalves;
  return dtype == Dtype::kQ4_0 || dtype == Dtype::kQ5_0 ? UnitKind::kZero : UnitKind::kOffset;
}
/// zero = 1 << zero_shift for the kinds that have one.
constexpr int zero_shift(Dtype dtype) noexcept {
  if (dtype == Dtype::kQ4_0) return 3;
  if (dtype == Dtype::kQ5_0) return 4;
  return dtype == Dtype::kQ6_K ? 5 : 7;
}

struct Kernels {
  int tile_panels = 1;    ///< Panels a register tile takes.
  int packed_panels = 1;  ///< Panels gemm_packed takes.

  // --- Rows of n floats ---------------------------------------------------------------------------------------------
  void (*rms_norm)(float* out, const float* x, const float* weight, int64_t n, float eps);
  void (*add)(float* x, const float* y, int64_t n);
  void (*gate_silu)(float* out, const float* gate, const float* up, int64_t n);
  void (*gate_gelu)(float* out, const float* gate, const float* up, int64_t n);
  void (*softcap)(float* x, int64_t n, float c);

  // --- Quantised products -------------------------------------------------------------------------------------------
  /// Row t of `to` from x [K]; K is a multiple of 32.
  void (*quantise_row)(const float* x, const QuantisedRows& to, int64_t t);
  /// out[n] = row `token` of x times the panels' row n. By format; null where there is none.
  void (*gemv[kDtypes])(const PanelSpan& w, const QuantisedRows& x, int64_t token, float* out);
  /// Takes k in [k0, k0 + n_k) of every panel of `w` apart; k0 and n_k are multiples of the block.
  void (*unpack[kDtypes])(const PanelSpan& w, int64_t k0, int64_t n_k, const Unpacked& to);
  /// Adds to `out` (or starts it, where k0 is 0).
  void (*gemm[kUnitKinds])(const Tile& tile, const QuantisedRows& x, int shift);
  /// For a few tokens; writes `out`. By format; null where there is none, or where the instruction set has too few registers.
  void (*gemm_packed[kDtypes])(const PackedTile& tile, const QuantisedRows& x);

  // --- Float products -----------------------------------------------------------------------------------------------
  void (*float_gemv[3])(const PanelSpan& w, const float* x, float* out);  ///< kF32, kF16, kBF16
  void (*float_unpack[3])(const PanelSpan& w, int64_t k0, int64_t n_k, const Unpacked& to);
  void (*float_gemm)(const Tile& tile, const float* x, int64_t x_stride);

  // --- Products of many rows on tiles of bfloat16; all null where the processor has none ------------------------------
  /// Row t of `to` from x [k].
  void (*round_row)(const float* x, int64_t k, const RoundedRows& to, int64_t t) = nullptr;
  /// By format; null for those whose values bfloat16 would coarsen more than activations are.
  void (*unpack_tiles[kDtypes])(const UnpackTask& task) = {};
  void (*multiply_tiles[kDtypes])(const TileProduct& product) = {};  ///< The format is that of product.next.
  void (*gate_silu_rounded)(const GateTask& task, const RoundedRows& to) = nullptr;
  void (*gate_gelu_rounded)(const GateTask& task, const RoundedRows& to) = nullptr;

  // --- Probes of the machine's limits; results are returned so that nothing is optimised away -----------------------
  float (*probe_read)(const void* data, int64_t bytes);  ///< bytes is a multiple of 4096.
  float (*probe_float)(int64_t n);                       ///< n * kProbeFloatMacs multiply-adds
  float (*probe_int8)(int64_t n);                        ///< n * kProbeInt8Macs multiply-adds
  float (*probe_tiles)(int64_t n) = nullptr;             ///< n * kProbeTileMacs multiply-adds of bfloat16; null without tiles.
  int64_t probe_float_macs = 0, probe_int8_macs = 0, probe_tile_macs = 0;
};

namespace scalar {
const Kernels& kernels();
}
namespace avx2 {
const Kernels& kernels();
}
namespace avx_vnni {
const Kernels& kernels();
}
namespace avx512_vnni {
const Kernels& kernels();
}
namespace amx {
const Kernels& kernels();
}
}  // namespace minillm::cpu
