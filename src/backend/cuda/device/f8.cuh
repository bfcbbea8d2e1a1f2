// f8.cuh - 8-bit floats (E4M3) on the 16-bit matrix instructions: every one of their values is a half.
// Matrix loads move units of 16 bits, here two neighbouring elements. Lane l gets, with g = l / 4 and t = l % 4, of an 8x16 tile:
//   as it lies    row g, elements 4t .. 4t + 3: widen4() makes of it elements (4t, 4t + 1) and (4t + 2, 4t + 3). As the two registers of a
//                 16-deep operand they stand for k = 2t, 2t + 1, 2t + 8, 2t + 9: any order of k is right if both operands have it.
//   transposed    elements 2g, 2g + 1 of rows 2t and 2t + 1: widen4_across() makes of it element 2g of both rows, and element 2g + 1.
//                 Rows of A or columns of B number 0 to 7 are then the even elements of 16, and 8 to 15 the odd ones.
// Source: PTX ISA 8.x, "cvt" with .e4m3x2, "ldmatrix".
#pragma once

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

namespace minillm::cuda {

/// What a stored type is multiplied in.
template <typename T>
struct MultipliedAs {
  using Type = T;
};
template <>
struct MultipliedAs<__nv_fp8_e4m3> {
  using Type = __half;
};
template <typename T>
using Multiplied = typename MultipliedAs<T>::Type;

/// Two elements, the lower 16 bits of x.
__device__ __forceinline__ uint32_t widen2(uint32_t x) {
  const __half2_raw h = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(x), __NV_E4M3);
  return static_cast<uint32_t>(h.x) | static_cast<uint32_t>(h.y) << 16;
}
__device__ __forceinline__ void widen4(uint32_t (&pairs)[2], uint32_t x) {
  pairs[0] = widen2(x & 0xFFFFu);
  pairs[1] = widen2(x >> 16);
}
__device__ __forceinline__ void widen4_across(uint32_t (&pairs)[2], uint32_t x) { widen4(pairs, __byte_perm(x, 0, 0x3120)); }

}  // namespace minillm::cuda
