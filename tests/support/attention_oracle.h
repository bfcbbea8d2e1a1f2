// attention_oracle.h - attention written plainly, for tests: in double, as the truth, and in float or bfloat16, as the yardstick.
//   out[i, h] = sum_s softmax_s(cap tanh(scale q.k_s / cap) - slope |p - s|) v_s, p = i + Sk - Sq, over the s that row i sees.
// The rule of the FlashAttention tests: the largest error of a kernel is at most twice that of the plain implementation in
// the kernel's precision on the same inputs, plus 1e-5.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "minillm/types.h"

namespace minillm::test {

/// One sequence: q [Sq, H, D], k and v [Sk, G, D].
struct AttentionCase {
  AttentionParams params;  ///< Its spans must outlive the case.
  int64_t n_queries = 0, n_keys = 0;
  std::vector<float> q, k, v;
};

template <typename T>
struct AttentionAnswer {
  std::vector<T> out;  ///< [Sq, H, D]
  std::vector<T> lse;  ///< [Sq, H]
};

AttentionAnswer<double> attention_in_double(const AttentionCase& c);
AttentionAnswer<float> attention_in_float(const AttentionCase& c);
/// q, k, v, scores and weights rounded to bfloat16, sums in float.
AttentionAnswer<float> attention_in_bf16(const AttentionCase& c);

/// Normal q, k, v with seeds from `seed`; k and v rounded to `dtype`, as a cache would hold them.
AttentionCase random_case(const AttentionParams& params, int64_t n_queries, int64_t n_keys, Dtype dtype, uint64_t seed,
                          double spread = 1.0);

/// `values` after storage in `dtype` (one that caches may have).
void round_to(Dtype dtype, std::span<float> values);

/// Empty if out and lse obey the rule; else the first element that does not, with both values. `lse` may be empty. The yardstick
/// is the plain implementation in float, or in bfloat16 for kBF16.
std::string compare_attention(const AttentionCase& c, std::span<const float> out, std::span<const float> lse,
                              Dtype yardstick = Dtype::kF32);

/// Slopes 2^(-8 i / H), i = 1 .. H (Press et al. 2021).
std::vector<float> alibi_slopes(int64_t n_heads);

}  // namespace minillm::test
