// attention.h - attention alone, on dense tensors, for people who want only the kernel.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "minillm/tensor.h"

namespace minillm {

struct AttentionOptions {
  float scale = 0.0f;                    ///< Multiplies q.k; 0 means 1/sqrt(D).
  bool causal = true;                    ///< Bottom-right aligned: the last query sees every key.
  int64_t window = 0;                    ///< A query sees this many newest keys, its own included; 0 is all.
  float softcap = 0.0f;                  ///< score = c tanh(score / c); 0 is off.
  std::vector<float> alibi_slopes = {};  ///< [H] or empty: adds -slope * distance to the score.
  std::vector<float> sinks = {};         ///< [H] or empty: a score in the softmax's sum that carries no value.
  int64_t block_size = 0;                ///< Key tile in tokens, a power of two from 16 to 1024; 0 lets the device choose.
  bool return_lse = false;               ///< Also return the log-sum-exp of the scores.
  Device device = {};
  int n_threads = 0;
  int64_t timed_runs = 0;  ///< Runs after the first one, which allocates: `seconds` is their median.
};

struct AttentionResult {
  Tensor output;              ///< [B, Sq, H, D], float32.
  std::optional<Tensor> lse;  ///< [B, Sq, H], natural logarithm; -inf for a row that sees nothing.
  int64_t peak_bytes = 0;     ///< Memory allocated beyond inputs and outputs, at its highest.
  double seconds = 0;         ///< Of the operation alone, without copies to and from the device; 0 without timed_runs.
};

/// softmax(scale q k^T) v in tiles with online softmax; memory does not grow with Sk.
/// q [B, Sq, H, D], k and v [B, Sk, G, D], H a multiple of G; float32, float16 or bfloat16. Throws Error{kInvalidArgument}.
/// Source: Dao 2023, arXiv:2307.08691; Milakov & Gimelshein 2018, arXiv:1805.02867.
AttentionResult flash_attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options = {});
/// The same with the whole score matrix [B, H, Sq, Sk] in memory: the check and the baseline.
AttentionResult standard_attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options = {});

}  // namespace minillm
