// attention_kernels.h - the inner loops of attention, one table of functions for each instruction set (isa/attention_*.cpp).
// Plain pointers and sizes only: the files compiled per instruction set include nothing else (cmake/isa.cmake).
//
// What is fixed here, so that every path agrees bitwise on one instruction set (design.md section 6):
//   keys     come in panels of 16, K transposed [D][16], V as rows [16][v_stride]; panel j of a sequence holds keys 16 j to 16 j + 15.
//   score    one chain of fused multiply-adds over d = 0 .. D-1 for each (row, key), then scale, softcap, ALiBi.
//   block    m' = max(m, scores of the block); l' = l 2^(m - m') + 2^(score - m') in 16 lanes, lane = key mod 16;
//            o' = o 2^(m - m'), then o' += 2^(score - m') v, one chain over the visible keys in order.
//   run      blocks of 512 keys (or one longer block) from a fresh m, l, o; the 16 lanes are then added in a fixed tree.
//   total    runs merged in order: M' = max(M, m); O' = O 2^(M - M') + o 2^(m - M'); L' likewise.
// Scores are in units of log2, so a probability is one 2^x. Keys a row does not see are never multiplied into its o,
// and never reach its m and l, whatever they hold (NaN in unused slots).
// Scratch rows of o are padded to a multiple of 16 floats ("padded width"); what the padding holds is never read back.
#pragma once

#include <cstdint>

namespace minillm::cpu {

inline constexpr int64_t kKeyPanel = 16;

/// Storage type of keys and values; also the index of the kernels made for it.
enum class KvElement : uint8_t { kF32 = 0, kF16 = 1, kBF16 = 2, kF8 = 3 };
inline constexpr int kKvElements = 4;

/// Keys [begin, end) of a block that a row sees, counted from the block's first key; empty when end <= begin.
struct KeyRange {
  int64_t begin, end;
};

/// scores[r][16 j + i] = q[r] . key i of panel j, over `head_dim` elements (an even number with `prefetch`).
struct ScoreTile {
  float* scores;
  int64_t score_stride;
  const float* q;  ///< [n_rows][q_stride]; with `prefetch` [head_dim][q_stride].
  int64_t q_stride, n_rows, head_dim;
  const void* const* k_panels;
  int64_t n_panels;
  const void* const* prefetch;  ///< [n_panels] or null: while byte i of a panel is read, byte i of this one is fetched.
  const KeyRange* ranges;       ///< [n_rows], as in ValueTile: panels that no row of a register tile sees are left out.
  int64_t first_key;
};

/// From q . k to a score in units of log2: x = scale q.k; x = cap tanh(x) if cap != 0; x += slope |distance - key index|.
struct ScoreMap {
  float scale;       ///< Softmax scale * log2(e), or softmax scale / softcap.
  float cap;         ///< softcap * log2(e), or 0.
  float slope;       ///< -ALiBi slope * log2(e), or 0.
  int64_t distance;  ///< The row's position minus that of the block's first key.
};

/// Softmax of one block of keys for rows of a tile; max and sums are those of the run so far.
struct SoftmaxTile {
  float* scores;  ///< [n_rows][score_stride]: raw q.k in, probabilities out.
  int64_t score_stride;
  float* o;  ///< [n_rows][o_stride], `padded_width` wide.
  int64_t o_stride, padded_width, n_rows;
  const KeyRange* ranges;
  const ScoreMap* maps;
  float* max;   ///< [n_rows]
  float* sums;  ///< [n_rows][16]
};

/// o[r] += sum over keys s in ranges[r] of p[r][s] v[s], in order; s counts from the block's first key.
/// The panels hold keys [first_key, first_key + 16 n_panels) of the block; the rest of a range is left to other calls.
struct ValueTile {
  float* o;  ///< [n_rows][o_stride], `padded_width` wide.
  int64_t o_stride, padded_width;
  const float* p;  ///< [n_rows][p_stride]
  int64_t p_stride, n_rows;
  const KeyRange* ranges;  ///< [n_rows], both ends never decreasing from row to row.
  const void* const* v_panels;
  int64_t v_stride, n_panels, first_key;
  const void* const* prefetch;  ///< As in ScoreTile.
};

/// Tiles of at most this many rows are one pass over keys and values on every instruction set that has the registers.
inline constexpr int64_t kOnePassRows = 8;

/// Result over one run or over all of them.
struct RowTotal {
  float max, sum;
};

/// Bias, norm and rotation of one head.
struct HeadInput {
  const float* x;       ///< [D]
  const float* bias;    ///< [D] or null
  const float* norm;    ///< [D] or null: x / sqrt(mean(x^2) + eps) * norm
  const float* angles;  ///< cos [rope_dim / 2], then sin; null: no rotation.
  float norm_eps;
  int64_t head_dim, rope_dim;
  bool interleaved;  ///< Pairs (2i, 2i + 1); else (i, i + rope_dim / 2).
};

// --- Many rows in tiles of bfloat16 ----------------------------------------------------------------------------------
// For steps of many tokens over 16-bit caches, where the processor multiplies tiles of bfloat16 (AMX). What is fixed here:
//   units      of matrix_unit(block size) keys, from key 0 on, are taken in order; there are no runs.
//   score      (q scale) rounded to bfloat16, times keys rounded to bfloat16, summed in float32 by the tile products.
//   slices     of 64 keys, or 32, of a unit: reference and weights are theirs.
//   reference  of a row: the largest score of the first slice in which it sees anything; raised by a whole number to that of a later
//              slice if that holds a score greater by 32 or more. o, l and the unit's weights so far are scaled then.
//   weight     2^(score - reference) rounded to bfloat16, with the score rounded to 1/256 before; l sums what was rounded.
// All of it depends on the row alone. Keys that a row does not see have a weight of 0, so their values must be finite.

inline constexpr int64_t kMatrixRows = 32;   ///< Rows of a group: two tiles share every load of keys and values.
inline constexpr int64_t kMatrixSlice = 64;  ///< Keys from scores to weights at a time.

/// Keys taken at a time: 32 or 64 for blocks of at most that many, otherwise 256, after which a group's o is loaded and stored.
constexpr int64_t matrix_unit(int64_t block_size) { return block_size <= 32 ? 32 : block_size <= 64 ? 64 : 256; }

/// One group of rows and one unit of keys. A tile is 16 rows of 64 bytes.
struct MatrixGroup {
  const uint16_t* q;           ///< [key_steps][2][16 rows][32 elements]
  const uint16_t* keys;        ///< [unit / 16][key_steps][16 pairs of elements][16 keys][2]
  const uint16_t* values;      ///< [unit / 32][value_tiles][16 pairs of keys][16 elements][2]
  float* o;                    ///< [value_tiles][2][16 rows][16 elements]
  float* sums;                 ///< [32][16]: l in lanes.
  float* offsets;              ///< [32]: what brings a score to its weight's exponent; +inf before the row has a reference.
  float* scores;               ///< Scratch: [unit / 16][2][16 rows][16 keys]
  uint16_t* weights;           ///< Scratch: [unit / 32][2][16 rows][32 keys]
  const KeyRange* ranges;      ///< [32], counted from the unit's first key, or null: every row sees [key_begin, key_end).
  const ScoreMap* maps;        ///< [32] or null: scores need neither cap nor slope.
  bool fresh;                  ///< The group's first unit: o, whatever it holds, counts as zeros.
  int64_t key_begin, key_end;  ///< Multiples of 32, within the unit.
  int64_t key_steps;           ///< Head width / 32, rounded up.
  int64_t value_tiles;         ///< Head width / 16, rounded up to an even number.
};

struct MatrixKernels {
  /// Sets this thread's tile registers up, and gives them back.
  void (*begin)() noexcept;
  void (*end)() noexcept;
  /// Row `row` of a group from q [head_dim] times `factor`; raises `most` [32], lane by lane, to its magnitudes as bfloat16.
  void (*pack_query)(uint16_t* group, int64_t row, const float* q, float factor, int64_t head_dim, uint16_t* most);
  /// The largest of `most` [32], infinity for NaN.
  float (*largest)(const uint16_t* most);
  /// 16 keys from a panel, of which the first n_keys are looked at; indexed by KvElement (16-bit types). Returns the largest magnitude,
  /// infinity for NaN.
  float (*pack_keys[3])(uint16_t* to, const void* panel, int64_t n_keys, int64_t head_dim);
  /// 32 values from two panels (rows of `stride` elements), of which the first n_keys are read; the others become zeros.
  float (*pack_values[3])(uint16_t* to, const void* const* panels, int64_t stride, int64_t n_keys, int64_t head_dim);
  /// o, l and references of a group brought up to date with a unit.
  void (*attend)(const MatrixGroup& group);
  /// Row `row` of a group's o, `value_tiles` * 16 wide, and its maximum and sum in units of log2.
  RowTotal (*unpack_row)(float* o, const MatrixGroup& group, int64_t row);
  /// The same, and o divided by its sum to out [head_dim], to the bits of `divide`.
  RowTotal (*finish_row)(float* out, const MatrixGroup& group, int64_t row, int64_t head_dim);
  /// What a score is multiplied by on its way to a weight: q carries it where there is no cap.
  float score_scale;
};

struct AttentionKernels {
  const char* name;
  const MatrixKernels* matrices;  ///< Null where the instruction set has no tiles.

  /// Indexed by KvElement: the type that k_panels and v_panels point to.
  void (*scores[kKvElements])(const ScoreTile& tile);
  void (*values[kKvElements])(const ValueTile& tile);

  /// Prepares scores [range) in place for exponentials() and sets the rest of their panels to -inf; returns the largest score.
  float (*map_scores)(float* scores, KeyRange range, const ScoreMap& map);
  /// scores = 2^(score - max) over the panels of `range`, added into sum [16]. A maximum of -inf gives zeros.
  void (*exponentials)(float* scores, KeyRange range, const ScoreMap& map, float max, float* sum);
  /// One block: both of the above for each row, and o and the sums brought to the new maximum.
  void (*softmax_rows)(const SoftmaxTile& tile);
  /// l of a run: its 16 lanes added in a fixed order.
  float (*sum_lanes)(const float* sum);
  /// O, `total` := merged with o, `part`.
  void (*merge)(float* total_o, RowTotal& total, const float* o, RowTotal part, int64_t padded_width);
  /// out [head_dim] = O / L; zeros where L is 0.
  void (*divide)(float* out, const float* o, float sum, int64_t head_dim);

  /// `n` stored elements (a multiple of 16) to float32; indexed by KvElement, kF32 copies.
  void (*widen[kKvElements])(float* to, const void* from, int64_t n);
  /// Token `slot` (0 to 15) of a K panel.
  void (*store_key[kKvElements])(void* panel, int64_t slot, const float* k, int64_t head_dim);
  /// n float32 to the stored type, any n.
  void (*narrow[kKvElements])(void* to, const float* from, int64_t n);
  /// A K panel in float32 from n_keys <= 16 dense rows; missing keys become zeros.
  void (*pack_panel)(float* panel, const float* k, int64_t k_stride, int64_t n_keys, int64_t head_dim);

  void (*prepare_head)(float* out, const HeadInput& head);
};

namespace scalar {
const AttentionKernels& attention_kernels() noexcept;
}
#if defined(__x86_64__)
namespace avx2 {
const AttentionKernels& attention_kernels() noexcept;
}
namespace avx512_vnni {
const AttentionKernels& attention_kernels() noexcept;
}
namespace avx512_bf16 {
const AttentionKernels& attention_kernels() noexcept;
}
namespace amx {
const AttentionKernels& attention_kernels() noexcept;
}
#endif

}  // namespace minillm::cpu
