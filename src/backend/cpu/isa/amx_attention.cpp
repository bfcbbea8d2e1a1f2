// amx_attention.cpp - a group of 32 rows and a unit of keys on tiles of bfloat16 (TDPBF16PS: 16 x 16 sums of 32 products each).
//   scores   S = Q K^T by tiles, in float32, in 256ths of a power of two.
//   weights  2^(S - reference) as bfloat16: S + offset becomes a 16-bit number, 8 bits of exponent and 8 of fraction f; the
//            mantissa 2^f - 1 is f less a correction from a table of 128, as 2^f is near 1 + f (Schraudolph 1999, Neural
//            Computation 11:853, without the table). Saturation makes 0 of what lies far below. 8 instructions for 32 scores; a
//            polynomial in float32 takes 18, on ports that the tile products need.
//   values   O += P V by tiles.
// Cost for 16 scores: 4 cycles of tile products at D 64, 8 at D 128; a tile product and a load of a tile take 16 and 8 cycles.
#include "backend/cpu/isa/amx_attention.h"

#include "backend/cpu/isa/amx_config.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

void begin() noexcept { configure_tiles(); }
void end() noexcept { _tile_release(); }

/// What 2^f - 1 falls short of f, in 256ths: by the 7 upper bits of f, whose number is counted from 1/256 on (kReferenceOffset).
struct alignas(64) Corrections {
  uint8_t by_fraction[128];
};
constexpr double power_of_two(double f) {  // Exponential series; f in [-1/256, 1].
  double sum = 1.0, term = 1.0;
  for (int i = 1; i < 20; ++i) sum += term *= f * 0.6931471805599453 / i;
  return sum;
}
constexpr Corrections make_corrections() {
  Corrections c{};
  for (int i = 0; i < 128; ++i) {
    const double f = (2 * i - 0.5) / 256;  // Between the two fractions that share the entry.
    const double shortfall = 256 * (f - (power_of_two(f) - 1));
    c.by_fraction[i] = static_cast<uint8_t>(shortfall < 0 ? 0 : shortfall + 0.5);
  }
  return c;
}
constexpr Corrections kCorrections = make_corrections();

/// Keys [begin, end) of a unit, 32 or 64 of them: their scores lie in L1 from the tile products to the weights.
struct Slice {
  int64_t begin, end;
};

/// 16 scores of a row, of the keys from `key` on.
MINILLM_INLINE float* scores_at(const MatrixGroup& g, const Slice& slice, int64_t row, int64_t key) {
  return g.scores + (key - slice.begin) / kKeyPanel * 2 * kTileElements + row * 16;
}

/// Tiles 0 to 3: rows 0 and 16 by keys t and t + 16.
void scores(const MatrixGroup& g, const Slice& slice) {
  for (int64_t t = slice.begin / kKeyPanel; t < slice.end / kKeyPanel; t += 2) {
    const uint16_t* keys = g.keys + t * g.key_steps * kHalfTile;
    const uint16_t* next_keys = keys + g.key_steps * kHalfTile;
    float* to = scores_at(g, slice, 0, t * kKeyPanel);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t step = 0; step < g.key_steps; ++step) {
      const uint16_t* q = g.q + step * 2 * kHalfTile;
      _tile_loadd(4, q, 64);
      _tile_loadd(6, keys + step * kHalfTile, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, q + kHalfTile, 64);
      _tile_dpbf16ps(1, 5, 6);
      _tile_loadd(7, next_keys + step * kHalfTile, 64);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, to, 64);
    _tile_stored(1, to + kTileElements, 64);
    _tile_stored(2, to + 2 * kTileElements, 64);
    _tile_stored(3, to + 3 * kTileElements, 64);
  }
}

/// Tiles 0 to 3: rows 0 and 16 by 32 elements of o.
void values(const MatrixGroup& g) {
  for (int64_t tile = 0; tile < g.value_tiles; tile += 2) {
    float* o = g.o + tile * 2 * kTileElements;
    if (g.fresh) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    } else {
      _tile_loadd(0, o, 64);
      _tile_loadd(1, o + kTileElements, 64);
      _tile_loadd(2, o + 2 * kTileElements, 64);
      _tile_loadd(3, o + 3 * kTileElements, 64);
    }
    for (int64_t chunk = g.key_begin / 32; chunk < g.key_end / 32; ++chunk) {
      const uint16_t* v = g.values + (chunk * g.value_tiles + tile) * kHalfTile;
      const uint16_t* p = g.weights + chunk * 2 * kHalfTile;
      _tile_loadd(4, p, 64);
      _tile_loadd(6, v, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, p + kHalfTile, 64);
      _tile_dpbf16ps(1, 5, 6);
      _tile_loadd(7, v + kHalfTile, 64);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, o, 64);
    _tile_stored(1, o + kTileElements, 64);
    _tile_stored(2, o + 2 * kTileElements, 64);
    _tile_stored(3, o + 3 * kTileElements, 64);
  }
}

/// x = cap tanh(x), then x += slope |distance - key|, both in the scale of scores.
void map_scores_of(const MatrixGroup& g, const Slice& slice) {
  for (int64_t row = 0; row < kMatrixRows; ++row) {
    const ScoreMap& map = g.maps[row];
    const Vec cap = broadcast(map.cap * kScoreScale), slope = broadcast(map.slope * kScoreScale);
    for (int64_t key = slice.begin; key < slice.end; key += kKeyPanel) {
      float* at = scores_at(g, slice, row, key);
      Vec x = load(at);
      if (map.cap != 0.0f) x = mul(cap, tanh(x));
      const Vec keys = add(broadcast(static_cast<float>(key)), lane_indices());
      if (map.slope != 0.0f) x = fma(slope, abs(sub(broadcast(static_cast<float>(map.distance)), keys)), x);
      store(at, x);
    }
  }
}

/// Of the 16 keys from `key` on, those in the range.
MINILLM_INLINE __mmask16 seen_of(const KeyRange& range, int64_t key) {
  const int64_t begin = range.begin - key, end = range.end - key;
  const uint32_t below_end = end <= 0 ? 0 : end >= 16 ? 0xFFFFu : (1u << end) - 1u;
  const uint32_t below_begin = begin <= 0 ? 0 : begin >= 16 ? 0xFFFFu : (1u << begin) - 1u;
  return static_cast<__mmask16>(below_end & ~below_begin);
}

MINILLM_INLINE KeyRange range_of(const MatrixGroup& g, int64_t row) {
  return g.ranges == nullptr ? KeyRange{g.key_begin, g.key_end} : g.ranges[row];
}

MINILLM_INLINE uint16_t* weights_at(const MatrixGroup& g, int64_t row, int64_t key) {
  return g.weights + key / 32 * 2 * kHalfTile + row * 32;
}

/// 16 elements of a row of o.
MINILLM_INLINE float* row_of_o(const MatrixGroup& g, int64_t tile, int64_t row) {
  return g.o + (tile * 2 + row / 16) * kTileElements + row % 16 * 16;
}

/// Gives a row the largest score of this slice for its reference, or, where it has one, raises that by a whole number: what was
/// summed is brought to it, the weights of earlier slices of the unit by their exponents.
__attribute__((noinline)) void set_reference(const MatrixGroup& g, const Slice& slice, int64_t row) {
  const KeyRange range = range_of(g, row);
  Vec lanes = broadcast(kMinusInfinity);
  for (int64_t key = slice.begin; key < slice.end; key += kKeyPanel)
    lanes = _mm512_mask_max_ps(lanes, seen_of(range, key), load(scores_at(g, slice, row, key)), lanes);
  const float most = largest(lanes), before = g.offsets[row];
  if (most == kMinusInfinity) return;  // Sees nothing here.
  if (before == __builtin_inff()) {
    g.offsets[row] = kReferenceOffset - most;
    return;
  }
  const float raise = __builtin_ceilf((most + before - kReferenceOffset) / kScoreScale);
  g.offsets[row] = before - raise * kScoreScale;
  const Vec factor = exp2_nonpositive(broadcast(-raise));
  store(g.sums + row * 16, mul(load(g.sums + row * 16), factor));
  for (int64_t tile = 0; !g.fresh && tile < g.value_tiles; ++tile) {
    float* o = row_of_o(g, tile, row);
    store(o, mul(load(o), factor));
  }
  const __m512i exponents = _mm512_set1_epi16(static_cast<int16_t>(raise < 255.0f ? static_cast<int>(raise) << 7 : 255 << 7));
  for (int64_t key = g.key_begin; key < slice.begin; key += 32) {
    uint16_t* at = weights_at(g, row, key);
    _mm512_store_si512(at, _mm512_subs_epu16(_mm512_load_si512(at), exponents));
  }
}

struct WeightConstants {
  __m512i corrections_low, corrections_high, ones;
};

/// Weights of 32 keys of one row. `met` collects the numbers, whose highest bit tells a weight of 2 or more.
template <bool Masked>
MINILLM_INLINE __m512i weights_of(const float* scores, Vec offset, const KeyRange& range, int64_t key, const WeightConstants& k,
                                  __m512i& met) {
  const Vec a = add(load(scores), offset), b = add(load(scores + 2 * kTileElements), offset);
  const __m512i low = Masked ? _mm512_maskz_cvtps_epi32(seen_of(range, key), a) : _mm512_cvtps_epi32(a);
  const __m512i high = Masked ? _mm512_maskz_cvtps_epi32(seen_of(range, key + kKeyPanel), b) : _mm512_cvtps_epi32(b);
  const __m512i number = _mm512_packus_epi32(low, high);  // Four keys of the first panel, four of the second, and so on.
  met = _mm512_or_si512(met, number);
  const __m512i correction =
      _mm512_maskz_permutex2var_epi8(0x5555555555555555ull, k.corrections_low, _mm512_srli_epi16(number, 1), k.corrections_high);
  return _mm512_srli_epi16(_mm512_sub_epi16(number, correction), 1);
}

template <bool Masked, int Chunks>
MINILLM_INLINE void weigh_row(const MatrixGroup& g, const Slice& slice, int64_t row, const WeightConstants& k) {
  const KeyRange range = range_of(g, row);
  for (;;) {
    const Vec offset = broadcast(g.offsets[row]);
    Vec sum = load(g.sums + row * 16);
    __m512i met = _mm512_setzero_si512();
    unroll<Chunks>([&](auto chunk) __attribute__((always_inline)) {
      const int64_t key = slice.begin + chunk * 32;
      const __m512i weights = weights_of<Masked>(scores_at(g, slice, row, key), offset, range, key, k, met);
      _mm512_store_si512(weights_at(g, row, key), weights);
      sum = _mm512_dpbf16_ps(sum, (__m512bh)weights, (__m512bh)k.ones);
    });
    if (__builtin_expect(_mm512_movepi16_mask(met) == 0, 1)) {
      store(g.sums + row * 16, sum);
      return;
    }
    set_reference(g, slice, row);  // Then no weight exceeds 2^-31.
  }
}

template <bool Masked, int Chunks>
void weigh(const MatrixGroup& g, const Slice& slice) {
  const WeightConstants constants{_mm512_load_si512(kCorrections.by_fraction), _mm512_load_si512(kCorrections.by_fraction + 64),
                                  _mm512_set1_epi16(0x3F80)};
  const bool last = slice.end == g.key_end;
  for (int64_t row = 0; row < kMatrixRows; ++row) {
    if (last)  // values() follows, and begins with the group's o, which the L1 cache has lost since the unit before.
      for (int64_t line = 0; line < g.value_tiles; ++line) __builtin_prefetch(g.o + (row * g.value_tiles + line) * 16, 1, 3);
    weigh_row<Masked, Chunks>(g, slice, row, constants);
  }
}

/// Whether every row sees all of the slice. Neither end of a range decreases from row to row.
MINILLM_INLINE bool is_seen(const MatrixGroup& g, const Slice& slice) {
  return g.ranges == nullptr || (g.ranges[kMatrixRows - 1].begin <= slice.begin && g.ranges[0].end >= slice.end);
}

/// First references of rows [first, first + 16), which see all of the slice: those of set_reference.
void start_whole_rows(const MatrixGroup& g, const Slice& slice, int64_t first) {
  alignas(64) float lanes[kTileElements], most[16];
  for (int64_t row = 0; row < 16; ++row) {
    Vec largest_of = load(scores_at(g, slice, first + row, slice.begin));
    for (int64_t key = slice.begin + kKeyPanel; key < slice.end; key += kKeyPanel)
      largest_of = max(largest_of, load(scores_at(g, slice, first + row, key)));
    store(lanes + row * 16, largest_of);
  }
  row_maxima(lanes, most);
  store(g.offsets + first, sub(broadcast(kReferenceOffset), load(most)));
}

/// Rows without a reference get one where they see a key.
MINILLM_INLINE void start_rows(const MatrixGroup& g, const Slice& slice, bool seen) {
  for (int64_t first = 0; first < kMatrixRows; first += 16) {
    uint32_t rows = _mm512_cmpeq_ps_mask(load(g.offsets + first), broadcast(__builtin_inff()));
    if (rows == 0xFFFF && seen) {
      start_whole_rows(g, slice, first);
      continue;
    }
    for (; rows != 0; rows &= rows - 1) set_reference(g, slice, first + __builtin_ctz(rows));
  }
}

void attend(const MatrixGroup& g) {
  for (Slice slice{g.key_begin, 0}; slice.begin < g.key_end; slice.begin = slice.end) {
    const int64_t next = (slice.begin / kMatrixSlice + 1) * kMatrixSlice;  // Where slices end is the same for every group.
    slice.end = next < g.key_end ? next : g.key_end;
    scores(g, slice);
    if (g.maps != nullptr) map_scores_of(g, slice);
    const bool whole = slice.end - slice.begin == kMatrixSlice, seen = is_seen(g, slice);
    start_rows(g, slice, seen);
    if (seen)
      (whole ? weigh<false, 2> : weigh<false, 1>)(g, slice);
    else
      (whole ? weigh<true, 2> : weigh<true, 1>)(g, slice);
  }
  values(g);
}

RowTotal total_of(const MatrixGroup& g, int64_t row) {
  const float sum = sum_tree(g.sums + row * 16);
  if (sum == 0.0f) return {kMinusInfinity, 0.0f};
  return {127.0f - (g.offsets[row] - 1.0f) / kScoreScale, sum};
}

RowTotal unpack_row(float* o, const MatrixGroup& g, int64_t row) {
  for (int64_t tile = 0; tile < g.value_tiles; ++tile) store(o + tile * 16, load(row_of_o(g, tile, row)));
  return total_of(g, row);
}

RowTotal finish_row(float* out, const MatrixGroup& g, int64_t row, int64_t head_dim) {
  const RowTotal total = total_of(g, row);
  const Vec by = broadcast(total.sum == 0.0f ? 0.0f : 1.0f / total.sum);
  for (int64_t tile = 0; tile * 16 < head_dim; ++tile) {
    const int64_t left = head_dim - tile * 16, n_columns = left < 16 ? left : 16;
    const auto columns = static_cast<__mmask16>((1u << n_columns) - 1u);
    _mm512_mask_storeu_ps(out + tile * 16, columns, mul(load(row_of_o(g, tile, row)), by));
  }
  return total;
}

}  // namespace

const MatrixKernels* matrix_kernels() noexcept {
  static const MatrixKernels kTable = [] {
    MatrixKernels kernels{};
    kernels.begin = begin;
    kernels.end = end;
    kernels.attend = attend;
    kernels.unpack_row = unpack_row;
    kernels.finish_row = finish_row;
    kernels.score_scale = kScoreScale;
    add_packing(kernels);
    return kernels;
  }();
  return &kTable;
}

}  // namespace minillm::cpu::MINILLM_ISA
