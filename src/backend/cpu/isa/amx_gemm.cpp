// amx_gemm.cpp - products of many rows on AMX: out[t, n] = sum_k x[t, k] w[n, k], x and w in bfloat16, sums in float32 over all of k.
// Layout:  a tile of activations is 16 rows by 32 k, one of weights 16 pairs of k by 16 rows (kernels.h). Four tiles of sums, 32 rows by
//          two panels, stay in registers over all units of the call.
// Cost:    16 cycles a product of tiles, four of them for four loads. Two panels of weights lie in the L1 cache (2 KiB a unit), activations
//          stream past it from L2 (tileloaddt1), which halves what L2 must deliver. The next panels are unpacked meanwhile, a unit at a
//          time: other ports do that.
// Order:   each sum is one chain over pairs of k, unit after unit, whatever rows are beside it.
// Source:  Intel SDM volume 2, TDPBF16PS; Intel optimization manual, chapter 20.
#include "backend/cpu/isa/amx_config.h"
#include "backend/cpu/isa/amx_tables.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

constexpr int64_t kTile = RoundedRows::kTileValues, kTileRowBytes = 64, kSumsRow = 32, kSumsRowBytes = 128;

/// What is done beside the tiles' work, a little at each step: 64 multiply-adds a step cost nothing, 256 at every fourth all of their time.
class Meanwhile {
 public:
  MINILLM_MEMBER explicit Meanwhile(const TileProduct& p)
      : p_(p),
        n_steps_((p.n_rows + TileProduct::kBlockRows - 1) / TileProduct::kBlockRows * p.n_units),
        finish_every_(p.n_units >= 4 ? p.n_units / 4 : 1) {}

  MINILLM_MEMBER void step() {
    for (quarters_due_ += 8 * p_.next.n; quarters_due_ >= n_steps_; quarters_due_ -= n_steps_) unpack_one(p_.next, quarters_++);
    for (lines_due_ += p_.fetch.n * p_.fetch.n_lines; lines_due_ >= n_steps_; lines_due_ -= n_steps_) fetch_line();
    if (row_ < end_ && --finish_in_ == 0) {
      finish_some(kFinishRows);
      finish_in_ = finish_every_;
    }
  }
  /// Rows [row, end) have their sums.
  MINILLM_MEMBER void add_final(float* sums, int64_t row, int64_t end) {
    sums_ = sums;
    row_ = row;
    end_ = end;
    finish_in_ = finish_every_;
  }
  /// The sums' place is needed.
  MINILLM_MEMBER void finish_all() {
    if (row_ < end_) finish_some(end_ - row_);
  }

 private:
  static constexpr int64_t kFinishRows = 8;

  MINILLM_MEMBER void finish_some(int64_t n) {
    n = n < end_ - row_ ? n : end_ - row_;
    p_.finish(p_.context, sums_, row_, n);
    sums_ += n * kSumsRow;
    row_ += n;
  }
  MINILLM_MEMBER void fetch_line() {
    __builtin_prefetch(static_cast<const uint8_t*>(p_.fetch.at) + run_ * p_.fetch.stride + 64 * line_, 0, 2);
    if (++line_ == p_.fetch.n_lines) {
      line_ = 0;
      ++run_;
    }
  }

  const TileProduct& p_;
  int64_t n_steps_, finish_every_;
  int64_t quarters_due_ = 0, quarters_ = 0, lines_due_ = 0, run_ = 0, line_ = 0;
  float* sums_ = nullptr;
  int64_t row_ = 0, end_ = 0, finish_in_ = 0;
};

/// One or two strips by two panels.
template <int Strips>
MINILLM_INLINE void multiply_block(const TileProduct& p, const uint16_t* rows, float* sums, Meanwhile& meanwhile) {
  float* const second = sums + 16 * kSumsRow;
  if (p.first) {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (Strips == 2) {
      _tile_zero(2);
      _tile_zero(3);
    }
  } else {
    _tile_loadd(0, sums, kSumsRowBytes);
    _tile_loadd(1, sums + 16, kSumsRowBytes);
    if constexpr (Strips == 2) {
      _tile_loadd(2, second, kSumsRowBytes);
      _tile_loadd(3, second + 16, kSumsRowBytes);
    }
  }
  const uint16_t* weights = p.weights;
  for (int64_t unit = 0; unit < p.n_units; ++unit, weights += kTile, rows += kTile) {
    _tile_loadd(6, weights, kTileRowBytes);
    _tile_stream_loadd(4, rows, kTileRowBytes);
    _tile_loadd(7, weights + p.n_units * kTile, kTileRowBytes);
    if constexpr (Strips == 2) _tile_stream_loadd(5, rows + p.strip_values, kTileRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (Strips == 2) {
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    meanwhile.step();
  }
  meanwhile.finish_all();
  _tile_stored(0, sums, kSumsRowBytes);
  _tile_stored(1, sums + 16, kSumsRowBytes);
  if constexpr (Strips == 2) {
    _tile_stored(2, second, kSumsRowBytes);
    _tile_stored(3, second + 16, kSumsRowBytes);
  }
}

void multiply_tiles(const TileProduct& p) {
  configure_tiles();
  Meanwhile meanwhile(p);
  const uint16_t* rows = p.rows;
  int64_t block = 0;
  for (int64_t row = 0; row < p.n_rows; row += TileProduct::kBlockRows, rows += 2 * p.strip_values) {
    float* const sums = p.sums + block * TileProduct::kBlockRows * kSumsRow;
    if (p.n_rows - row > 16)
      multiply_block<2>(p, rows, sums, meanwhile);
    else
      multiply_block<1>(p, rows, sums, meanwhile);
    if (p.finish != nullptr)
      meanwhile.add_final(sums, row, p.n_rows < row + TileProduct::kBlockRows ? p.n_rows : row + TileProduct::kBlockRows);
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

}  // namespace

void add_tile_products(Kernels& table) {
  table.multiply_tiles = multiply_tiles;
  table.probe_tiles = probe_tiles;
  table.probe_tile_macs = 4 * 16 * 16 * 32;
}

}  // namespace minillm::cpu::MINILLM_ISA
