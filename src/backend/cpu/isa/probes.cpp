// probes.cpp - loops that do nothing but what a limit counts: reading memory, float multiply-adds, int8 multiply-adds.
// Independent chains hide the latency; the results are returned so that they must be computed.
#include "backend/cpu/isa/tables.h"
#include "backend/cpu/isa/vec.h"

namespace minillm::cpu::MINILLM_ISA {
namespace {

constexpr int kChains = kProbeChains;

/// Eight streams with prefetch: what it takes to fill the memory system from one thread.
float probe_read(const void* data, int64_t bytes) {
  constexpr int kStreams = 8;
  const int64_t part = bytes / kStreams;
  const uint8_t* at = static_cast<const uint8_t*>(data);
  Bytes mix[kStreams];
  unroll<kStreams>([&](auto s) __attribute__((always_inline)) { mix[s] = splat_byte(0); });
  for (int64_t i = 0; i + 64 <= part; i += 64, at += 64) {
    unroll<kStreams>([&](auto s) __attribute__((always_inline)) {
      __builtin_prefetch(at + s * part + 512);
      mix[s] = bit_xor(mix[s], load_bytes(at + s * part));
    });
  }
  Bytes all = mix[0];
  unroll<kStreams>([&](auto s) __attribute__((always_inline)) { all = bit_xor(all, mix[s]); });
  uint8_t bytes_out[64];
  store_bytes(bytes_out, all);
  return static_cast<float>(bytes_out[0]);
}

float probe_float(int64_t n) {
  Floats sum[kChains];
  unroll<kChains>([&](auto i) __attribute__((always_inline)) { sum[i] = splat(static_cast<float>(i)); });
  Floats x = splat(0.5f), y = splat(0.25f);
  for (int64_t i = 0; i < n; ++i) {
    asm volatile("" : "+m"(x), "+m"(y));
    const Floats a = x, b = y;
    unroll<8>([&](auto) __attribute__((always_inline)) {
      unroll<kChains>([&](auto c) __attribute__((always_inline)) { sum[c] = fma(sum[c], a, b); });
    });
  }
  unroll<kChains - 1>([&](auto i) __attribute__((always_inline)) { sum[0] = add(sum[0], sum[i + 1]); });
  return sum_lanes(sum[0]);
}

float probe_int8(int64_t n) {
  Dot sum[kChains];
  unroll<kChains>([&](auto i) __attribute__((always_inline)) { sum[i] = begin_dot(splat_int(i)); });
  const int8_t four[4] = {1, -1, 2, -2};
  Bytes w = splat_byte(3);
  const FourCodes codes = four_codes(four);
  for (int64_t i = 0; i < n; ++i) {
    asm volatile("" : "+m"(w));
    const Bytes weights = w;
    unroll<8>([&](auto) __attribute__((always_inline)) {
      unroll<kChains>([&](auto c) __attribute__((always_inline)) { sum[c] = add_products(sum[c], weights, codes); });
    });
  }
  Ints total = splat_int(0);
  unroll<kChains>([&](auto i) __attribute__((always_inline)) { total = add(total, end_dot(splat_int(0), sum[i])); });
  return static_cast<float>(sum_lanes(total));
}

}  // namespace

void add_probes(Kernels& table) {
  table.probe_read = probe_read;
  table.probe_float = probe_float;
  table.probe_int8 = probe_int8;
  table.probe_float_macs = 8 * 16 * kChains;
  table.probe_int8_macs = 8 * 64 * kChains;
}

}  // namespace minillm::cpu::MINILLM_ISA
