// weight_stage.cuh - a unit of 16 rows x 64 or 128 columns of a weight on its way through a lane's registers, and its products with
// split inputs. One struct a storage format; load() only issues loads, multiply() uses them, so that a ring of stages keeps many
// bytes in flight.
// Inputs: every x is split into bf16 high + low parts, x = high + low + O(2^-17 x); token i of a group of four has them in columns
// 2i and 2i + 1 of B, and c[0] + c[1] is its sum. Codes minus zero are exact in bf16, and the sums are float32: a quantised
// product is exact but for the split and the rounding of sums.
#pragma once

#include "backend/cuda/device/load8.cuh"
#include "backend/cuda/device/mma.cuh"

namespace minillm::cuda {

enum class Format : uint8_t { kBF16, kNibbles, kBytes, kBytes16 };  ///< kBytes16: scales of 16 elements.

/// Where element e of a chunk of 32 stands among a chunk's inputs: in the order in which lanes hold weights.
template <Format kFormat>
__device__ __forceinline__ int input_place(int e) {
  if constexpr (kFormat == Format::kBF16) return e;
  if constexpr (kFormat == Format::kNibbles) return e / 8 * 8 + e % 4 * 2 + e % 8 / 4;
  return e % 16 / 4 * 8 + e / 16 * 4 + e % 4;
}

__device__ __forceinline__ uint32_t word_of(const uint4& v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

/// `which` != 0 ? a : b without a branch, where the compiler would make one.
__device__ __forceinline__ uint32_t select(uint32_t which, uint32_t a, uint32_t b) {
  uint32_t r;
  asm("{.reg .pred p; setp.ne.u32 p, %1, 0; selp.b32 %0, %2, %3, p;}" : "=r"(r) : "r"(which), "r"(a), "r"(b));
  return r;
}
__device__ __forceinline__ uint4 select(uint32_t which, const uint4& a, const uint4& b) {
  return {select(which, a.x, b.x), select(which, a.y, b.y), select(which, a.z, b.z), select(which, a.w, b.w)};
}

template <Format kFormat>
struct WeightStage;

/// A stage of shared memory (few_tokens_ring.cuh): units of a tile. bf16: rows of kStageRowBytes, not padded, since copies that do not
/// begin on 128 bytes at both ends are cut in two. Quantised: codes, scales and offsets, each as in device memory.
struct StageLayout {
  int scales_at = 0, offsets_at = 0;  ///< In bytes.
};
constexpr int kStageUnits = 8;
constexpr int kStageRowBytes = kStageUnits * 64 * 2;

template <>
struct WeightStage<Format::kBF16> {
  static constexpr int kColumns = 64, kChunks = 2;
  uint4 rows[2][kChunks];  ///< Of rows g and g + 8.

  __device__ __forceinline__ void load(const DeviceTensor& w, int64_t tile, int unit, int lane) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = min(tile * kTileRows + half * 8 + lane / 4, w.rows - 1);  // Past the end: any row, not stored.
      const auto* from = static_cast<const __nv_bfloat16*>(w.data) + row * w.stride;
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        const int64_t k = int64_t{unit} * kColumns + chunk * 32 + lane % 4 * 8;
        rows[half][chunk] = k < w.stride ? __ldcs(reinterpret_cast<const uint4*>(from + k)) : uint4{};
      }
    }
  }
  /// From unit `at` of a stage of shared memory. Odd rows take their chunks in the other order: eight lanes then meet all banks.
  __device__ __forceinline__ void load_shared(const unsigned char* stage, const StageLayout&, const DeviceTensor& w, int unit, int at,
                                              int lane) {
    const uint32_t odd = lane / 4 % 2;
    const unsigned char* from = stage + lane / 4 * kStageRowBytes + (at * kColumns + lane % 4 * 8) * 2;
    uint4 raw[2][kChunks];
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int i = 0; i < kChunks; ++i)
        raw[half][i] = *reinterpret_cast<const uint4*>(from + half * 8 * kStageRowBytes + (static_cast<uint32_t>(i) ^ odd) * 64);
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int i = 0; i < kChunks; ++i) rows[half][i] = select(odd, raw[half][1 - i], raw[half][i]);
    const int left = static_cast<int>(w.stride) - unit * kColumns;
    if (left >= kColumns) return;
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk)
      if (chunk * 32 + lane % 4 * 8 >= left) rows[0][chunk] = rows[1][chunk] = uint4{};
  }
  template <int kNTiles, typename Inputs>
  __device__ __forceinline__ void multiply(float (&acc)[kNTiles][4], const DeviceTensor&, Inputs&& inputs) const {
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const uint4 a = rows[0][chunk], b = rows[1][chunk];
#pragma unroll
      for (int n = 0; n < kNTiles; ++n) {
        const uint4 x = inputs(chunk, n);
        mma<__nv_bfloat16>(acc[n], a.x, b.x, a.y, b.y, x.x, x.y);
        mma<__nv_bfloat16>(acc[n], a.z, b.z, a.w, b.w, x.z, x.w);
      }
    }
  }
};

/// Scales or offsets of rows g and g + 8 for the groups of one unit.
template <int kGroups>
struct UnitScales {
  uint4 raw[2][kGroups / 4];  ///< Floats, or halves in the first words.

  /// `unit`: counted from `scales`.
  __device__ __forceinline__ void load(const void* scales, bool half_scales, int64_t unit, int lane) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t at = (unit * kTileRows + half * 8 + lane / 4) * kGroups;
      if (half_scales) {
        const uint2 pair = *reinterpret_cast<const uint2*>(static_cast<const __half*>(scales) + at);
        raw[half][0].x = pair.x, raw[half][0].y = pair.y;
      } else {
#pragma unroll
        for (int i = 0; i < kGroups / 4; ++i)
          raw[half][i] = *reinterpret_cast<const uint4*>(static_cast<const float*>(scales) + at + 4 * i);
      }
    }
  }
  __device__ __forceinline__ float get(bool half_scales, int half, int group) const {
    if (half_scales) {
      const uint32_t word = group / 2 == 0 ? raw[half][0].x : raw[half][0].y;
      return __half2float(__ushort_as_half(static_cast<uint16_t>(group % 2 == 0 ? word : word >> 16)));
    }
    return __uint_as_float(word_of(raw[half][group / 4], group % 4));
  }
};

/// acc += scale c (+ offset sum of the inputs, which a product with ones gives).
__device__ __forceinline__ void add_scaled(float (&acc)[4], const float (&c)[4], float s0, float s1) {
  acc[0] = fmaf(s0, c[0], acc[0]);
  acc[1] = fmaf(s0, c[1], acc[1]);
  acc[2] = fmaf(s1, c[2], acc[2]);
  acc[3] = fmaf(s1, c[3], acc[3]);
}
constexpr uint32_t kOnes = 0x3F803F80u;  ///< Two bf16 ones.

__device__ __forceinline__ uint32_t minus_zero(uint32_t biased, uint32_t zero2) {
  uint32_t r;
  asm("{.reg .b32 one; mov.b32 one, 0x3F803F80; fma.rn.bf16x2 %0, %1, one, %2;}" : "=r"(r) : "r"(biased), "r"(zero2));
  return r;
}

template <>
struct WeightStage<Format::kNibbles> {
  static constexpr int kColumns = kUnitColumns, kChunks = 4;
  uint4 codes[2];
  UnitScales<4> scales, offsets;

  __device__ __forceinline__ void load(const DeviceTensor& w, int64_t tile, int unit, int lane) {
    const int64_t at = tile * (w.stride / kUnitColumns) + unit;
    const auto* from = static_cast<const uint4*>(w.data) + at * 64 + lane;
    codes[0] = __ldcs(from);
    codes[1] = __ldcs(from + 32);
    scales.load(w.scale, w.half_scales, at, lane);
    if (w.offset != nullptr) offsets.load(w.offset, w.half_scales, at, lane);
  }
  __device__ __forceinline__ void load_shared(const unsigned char* stage, const StageLayout& layout, const DeviceTensor& w, int, int at,
                                              int lane) {
    const auto* from = reinterpret_cast<const uint4*>(stage) + at * 64 + lane;
    codes[0] = from[0];
    codes[1] = from[32];
    scales.load(stage + layout.scales_at, w.half_scales, at, lane);
    if (w.offset != nullptr) offsets.load(stage + layout.offsets_at, w.half_scales, at, lane);
  }
  template <int kNTiles, typename Inputs>
  __device__ __forceinline__ void multiply(float (&acc)[kNTiles][4], const DeviceTensor& w, Inputs&& inputs) const {
    // 0x43 in front of a nibble is 128 + code; taking 128 + zero away is exact.
    const uint32_t zero2 = pack2<__nv_bfloat16>(-128.0f - w.zero, -128.0f - w.zero);
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      uint32_t a[4], b[4];
      const uint32_t low = word_of(codes[0], chunk), high = word_of(codes[1], chunk);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = minus_zero((low >> (4 * i) & 0x000F000Fu) | 0x43004300u, zero2);
        b[i] = minus_zero((high >> (4 * i) & 0x000F000Fu) | 0x43004300u, zero2);
      }
      const float s0 = scales.get(w.half_scales, 0, chunk), s1 = scales.get(w.half_scales, 1, chunk);
#pragma unroll
      for (int n = 0; n < kNTiles; ++n) {
        const uint4 x = inputs(chunk, n);
        float c[4] = {};
        mma<__nv_bfloat16>(c, a[0], b[0], a[1], b[1], x.x, x.y);
        mma<__nv_bfloat16>(c, a[2], b[2], a[3], b[3], x.z, x.w);
        add_scaled(acc[n], c, s0, s1);
        if (w.offset != nullptr) {
          float ones[4] = {};
          mma<__nv_bfloat16>(ones, kOnes, kOnes, kOnes, kOnes, x.x, x.y);
          mma<__nv_bfloat16>(ones, kOnes, kOnes, kOnes, kOnes, x.z, x.w);
          add_scaled(acc[n], ones, offsets.get(w.half_scales, 0, chunk), offsets.get(w.half_scales, 1, chunk));
        }
      }
    }
  }
};

/// Four byte codes minus zero as two pairs of bf16: 0x4B0000cc is 2^23 + code.
__device__ __forceinline__ void bytes_to_bf16(uint32_t& pair0, uint32_t& pair1, uint32_t word, float bias) {
  const float f0 = __uint_as_float(__byte_perm(word, 0x4B000000u, 0x7440)) - bias,
              f1 = __uint_as_float(__byte_perm(word, 0x4B000000u, 0x7441)) - bias;
  const float f2 = __uint_as_float(__byte_perm(word, 0x4B000000u, 0x7442)) - bias,
              f3 = __uint_as_float(__byte_perm(word, 0x4B000000u, 0x7443)) - bias;
  pair0 = pack2<__nv_bfloat16>(f0, f1);
  pair1 = pack2<__nv_bfloat16>(f2, f3);
}

template <int kGroup>
struct ByteStage {
  static constexpr int kColumns = kUnitColumns, kChunks = 4, kGroups = kUnitColumns / kGroup;
  uint4 codes[2][2];  ///< [half][pair of chunks]
  UnitScales<kGroups> scales, offsets;

  __device__ __forceinline__ void load(const DeviceTensor& w, int64_t tile, int unit, int lane) {
    const int64_t at = tile * (w.stride / kUnitColumns) + unit;
    const auto* from = static_cast<const uint4*>(w.data) + at * 128 + lane;
#pragma unroll
    for (int i = 0; i < 4; ++i) codes[i / 2][i % 2] = __ldcs(from + 32 * i);
    scales.load(w.scale, w.half_scales, at, lane);
    if (w.offset != nullptr) offsets.load(w.offset, w.half_scales, at, lane);
  }
  __device__ __forceinline__ void load_shared(const unsigned char* stage, const StageLayout& layout, const DeviceTensor& w, int, int at,
                                              int lane) {
    const auto* from = reinterpret_cast<const uint4*>(stage) + at * 128 + lane;
#pragma unroll
    for (int i = 0; i < 4; ++i) codes[i / 2][i % 2] = from[32 * i];
    scales.load(stage + layout.scales_at, w.half_scales, at, lane);
    if (w.offset != nullptr) offsets.load(stage + layout.offsets_at, w.half_scales, at, lane);
  }
  template <int kNTiles, typename Inputs>
  __device__ __forceinline__ void multiply(float (&acc)[kNTiles][4], const DeviceTensor& w, Inputs&& inputs) const {
    const float bias = 8388608.0f + w.zero;
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      uint32_t a[4], b[4];
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        bytes_to_bf16(a[2 * part], a[2 * part + 1], word_of(codes[0][chunk / 2], chunk % 2 * 2 + part), bias);
        bytes_to_bf16(b[2 * part], b[2 * part + 1], word_of(codes[1][chunk / 2], chunk % 2 * 2 + part), bias);
      }
#pragma unroll
      for (int n = 0; n < kNTiles; ++n) {
        const uint4 x = inputs(chunk, n);
        float c[4] = {};
        mma<__nv_bfloat16>(c, a[0], b[0], a[1], b[1], x.x, x.y);
        if constexpr (kGroup == 16) {
          add_scaled(acc[n], c, scales.get(false, 0, 2 * chunk), scales.get(false, 1, 2 * chunk));
          c[0] = c[1] = c[2] = c[3] = 0.0f;
        }
        mma<__nv_bfloat16>(c, a[2], b[2], a[3], b[3], x.z, x.w);
        const int group = kGroup == 16 ? 2 * chunk + 1 : chunk;
        add_scaled(acc[n], c, scales.get(w.half_scales, 0, group), scales.get(w.half_scales, 1, group));
        if (kGroup == 32 && w.offset != nullptr) {
          float ones[4] = {};
          mma<__nv_bfloat16>(ones, kOnes, kOnes, kOnes, kOnes, x.x, x.y);
          mma<__nv_bfloat16>(ones, kOnes, kOnes, kOnes, kOnes, x.z, x.w);
          add_scaled(acc[n], ones, offsets.get(w.half_scales, 0, chunk), offsets.get(w.half_scales, 1, chunk));
        }
      }
    }
  }
};
template <>
struct WeightStage<Format::kBytes> : ByteStage<32> {};
template <>
struct WeightStage<Format::kBytes16> : ByteStage<16> {};

}  // namespace minillm::cuda
