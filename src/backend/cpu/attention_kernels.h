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
enum class KvElement : uint8_t { kF32 = 0, kF16 = 1, kBF16 = 2 };

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

struct AttentionKernels {
  const char* name;

  /// Indexed by KvElement: the type that k_panels and v_panels point to.
  void (*scores[3])(const ScoreTile& tile);
  void (*values[3])(const ValueTile& tile);

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
  void (*widen[3])(float* to, const void* from, int64_t n);
  /// Token `slot` (0 to 15) of a K panel.
  void (*store_key[3])(void* panel, int64_t slot, const float* k, int64_t head_dim);
  /// n float32 to the stored type, any n.
  void (*narrow[3])(void* to, const float* from, int64_t n);
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
