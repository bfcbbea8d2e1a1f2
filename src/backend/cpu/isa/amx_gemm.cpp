// amx_gemm.cpp - products of many rows on AMX: out[t, n] = sum_k x[t, k] w[n, k], x and w in bfloat16, sums in float32 over all of k.
// Layout:  a tile of activations is 16 rows by 32 k, one of weights 16 pairs of k by 16 rows (kernels.h). Four tiles of sums, 32 rows by
//          two panels, stay in registers over all units of the call.
// Cost:    16 cycles a product of tiles, four of them for four loads: 71 cycles a step in which nothing else is done. Two panels of weights
//          lie in the L1 cache (2 KiB a unit), activations stream past it from L2 (tileloaddt1), which halves what L2 must deliver.
// Beside:  vector instructions run beside the tiles' for nothing, as long as each step has its few: what a step has in the reorder buffer
//          must reach into the next one. Conversions to bfloat16 are the exception: above 16 a step they stop the tiles. So a quarter of a
//          unit is unpacked in each step and two final rows are finished, all of it inlined; bursts and calls do not overlap, and after
//          some 800 cycles without tiles the next ones are slow for another 1000 (docs/SPEED.md, "Tiles of bfloat16").
// Order:   each sum is one chain over pairs of k, unit after unit, whatever rows are beside it.
// Source:  Intel SDM volume 2, TDPBF16PS; Intel optimization manual, chapter 20.
#include "backend/cpu/isa/amx_config.h"
#include "backend/cpu/isa/amx_gates.h"
#include "backend/cpu/isa/amx_tables.h"
#include "backend/cpu/isa/amx_unpack.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

constexpr int64_t kTile = RoundedRows::kTileValues, kTileRowBytes = 64, kSumsRow = 32, kSumsRowBytes = 128;

/// What is done beside the tiles' work, a little at each step.
template <Dtype D>
class Meanwhile {
 public:
  MINILLM_MEMBER explicit Meanwhile(const TileProduct& p)
      : p_(p),
        unpacking_(p.next),
        n_steps_((p.n_rows + TileProduct::kBlockRows - 1) / TileProduct::kBlockRows * p.n_units),
        rows_a_step_((TileProduct::kBlockRows + p.n_units - 1) / p.n_units) {}

  MINILLM_MEMBER void step() {
    for (quarters_due_ += 8 * p_.next.n; quarters_due_ >= n_steps_; quarters_due_ -= n_steps_) unpacking_.step();
    for (lines_due_ += p_.fetch.n * p_.fetch.n_lines; lines_due_ >= n_steps_; lines_due_ -= n_steps_) fetch_line();
    if (row_ < end_) finish_some(rows_a_step_);
  }
  /// Rows [row, end) have their sums.
  MINILLM_MEMBER void add_final(float* sums, int64_t row, int64_t end) {
    sums_ = sums;
    row_ = row;
    end_ = end;
  }
  /// The sums' place is needed.
  MINILLM_MEMBER void finish_all() {
    if (row_ < end_) finish_some(end_ - row_);
  }

 private:
  MINILLM_MEMBER void finish_some(int64_t n) {
    const int64_t end = row_ + n < end_ ? row_ + n : end_;
    for (; row_ < end; ++row_, sums_ += kSumsRow) {
      if (p_.finish == Finish::kSilu) {
        put_gated<silu>(sums_, sums_ + 16, p_.rounded, p_.first_row + row_, p_.column);
      } else if (p_.finish == Finish::kGelu) {
        put_gated<gelu>(sums_, sums_ + 16, p_.rounded, p_.first_row + row_, p_.column);
      } else {
        float* const to = p_.out + row_ * p_.out_stride;
        const bool adds = p_.finish == Finish::kAdd;
        for (int64_t i = 0; i < kSumsRow; i += 16) store(to + i, adds ? add(load(to + i), load(sums_ + i)) : load(sums_ + i));
      }
    }
  }
  MINILLM_MEMBER void fetch_line() {
    __builtin_prefetch(static_cast<const uint8_t*>(p_.fetch.at) + run_ * p_.fetch.stride + 64 * line_, 0, 2);
    if (++line_ == p_.fetch.n_lines) {
      line_ = 0;
      ++run_;
    }
  }

  const TileProduct& p_;
  Unpacking<D> unpacking_;
  int64_t n_steps_, rows_a_step_;
  int64_t quarters_due_ = 0, lines_due_ = 0, run_ = 0, line_ = 0;
  float* sums_ = nullptr;
  int64_t row_ = 0, end_ = 0;
};

/// One or two strips by two panels, from `sums` to `to`, rows `to_stride` apart. One instance for both, since compiling it takes seconds.
template <Dtype D>
MINILLM_INLINE void multiply_block(const TileProduct& p, bool both, const uint16_t* rows, float* sums, float* to, int64_t to_stride,
                                   Meanwhile<D>& meanwhile) {
  if (p.first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, kSumsRowBytes);
    _tile_loadd(1, sums + 16, kSumsRowBytes);
    if (both) {
      _tile_loadd(2, sums + 16 * kSumsRow, kSumsRowBytes);
      _tile_loadd(3, sums + 16 * kSumsRow + 16, kSumsRowBytes);
    }
  }
  const uint16_t* weights = p.weights;
  for (int64_t unit = 0; unit < p.n_units; ++unit, weights += kTile, rows += kTile) {
    _tile_loadd(6, weights, kTileRowBytes);
    _tile_stream_loadd(4, rows, kTileRowBytes);
    _tile_loadd(7, weights + p.n_units * kTile, kTileRowBytes);
    if (both) _tile_stream_loadd(5, rows + p.strip_values, kTileRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (both) {
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    meanwhile.step();
  }
  meanwhile.finish_all();
  const int64_t bytes = to_stride * static_cast<int64_t>(sizeof(float));
  _tile_stored(0, to, bytes);
  _tile_stored(1, to + 16, bytes);
  if (both) {
    _tile_stored(2, to + 16 * to_stride, bytes);
    _tile_stored(3, to + 16 * to_stride + 16, bytes);
  }
}

template <Dtype D>
void multiply_tiles(const TileProduct& p) {
  configure_tiles();
  Meanwhile<D> meanwhile(p);
  const uint16_t* rows = p.rows;
  int64_t block = 0;
  for (int64_t row = 0; row < p.n_rows; row += TileProduct::kBlockRows, rows += 2 * p.strip_values) {
    float* const sums = p.sums + block * TileProduct::kBlockRows * kSumsRow;
    const int64_t left = p.n_rows - row;
    const bool directly = p.finish == Finish::kStore && left >= TileProduct::kBlockRows;
    float* const to = directly ? p.out + row * p.out_stride : sums;
    const int64_t to_stride = directly ? p.out_stride : kSumsRow;
    multiply_block<D>(p, left > 16, rows, sums, to, to_stride, meanwhile);
    const int64_t end = left < TileProduct::kBlockRows ? p.n_rows : row + TileProduct::kBlockRows;
    if (p.finish == Finish::kCall)  // Here, since around a call in the steps their registers would have to be saved.
      p.call(p.context, sums, row, end - row);
    else if (p.finish != Finish::kNone && !directly)
      meanwhile.add_final(sums, row, end);
    if (++block == p.sums_blocks) block = 0;
  }
  meanwhile.finish_all();
  _tile_release();
}

float probe_tiles(int64_t n) {
  alignas(64) static const uint16_t zeros[kTile] = {};
  alignas(64) float sums[256];
  configure_tiles();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, zeros, kTileRowBytes);
  _tile_loadd(5, zeros, kTileRowBytes);
  _tile_loadd(6, zeros, kTileRowBytes);
  _tile_loadd(7, zeros, kTileRowBytes);
  for (int64_t i = 0; i < n; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, kTileRowBytes);
  _tile_release();
  return sums[0];
}

template <Dtype... D>
void add_formats(Kernels& table) {
  ((table.multiply_tiles[static_cast<int>(D)] = multiply_tiles<D>), ...);
}

}  // namespace

void add_tile_products(Kernels& table) {
  add_formats<MINILLM_TILE_FORMATS>(table);
  table.probe_tiles = probe_tiles;
  table.probe_tile_macs = 4 * 16 * 16 * 32;
}

}  // namespace minillm::cpu::MINILLM_ISA
