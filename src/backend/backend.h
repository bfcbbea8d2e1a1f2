// backend.h - everything a device must do. Numbers in, numbers out: no word here knows what a layer or a prompt is for.
// Views hold this backend's memory and are float32 unless said; calls run in order; results are there after sync().
// Letters: T rows of the step, E hidden, H query heads, G key/value heads, D head width, F feed-forward, N x K a weight.
// Threads: one caller at a time.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/buffer.h"
#include "backend/draw.h"
#include "backend/kv_storage.h"
#include "base/tensor_view.h"
#include "minillm/config.h"
#include "minillm/types.h"

namespace minillm {
struct MachinePeaks;  // minillm/metrics.h
}

namespace minillm {

/// What a packed weight will be used for: products x w^T, row lookups (embeddings), or both (tied embeddings).
enum class WeightRole : uint8_t { kProduct, kLookup, kBoth };

/// A weight [N, K] in the layout its backend likes; opaque. May be several tensors stacked along N, of mixed types.
class PackedWeight {
 public:
  PackedWeight(int64_t rows, int64_t cols) : rows_(rows), cols_(cols) {}
  virtual ~PackedWeight() = default;
  int64_t rows() const noexcept { return rows_; }  ///< N
  int64_t cols() const noexcept { return cols_; }  ///< K
  virtual int64_t bytes() const noexcept = 0;      ///< Memory held, which is what one product reads.

 private:
  int64_t rows_, cols_;
};

/// One sequence's share of a step. Its row i is token number n_cached + i of the sequence ("slot"), which decides what it
/// sees; its rotary position is Batch::positions, which may differ.
struct SequenceSlice {
  int64_t first_row = 0;           ///< Where its rows start in the flat batch.
  int64_t n_rows = 0;              ///< New tokens; 0 is allowed.
  int64_t n_cached = 0;            ///< Tokens in the cache before this step.
  const int32_t* pages = nullptr;  ///< Block table: page of slot s is pages[s / page_tokens]; covers n_cached + n_rows.
};

/// A step: prefill, decode, chunks of prefill and any mix are the same call. No padding. Host memory.
struct Batch {
  std::span<const TokenId> tokens;           ///< [T]
  std::span<const int32_t> positions;        ///< [T]
  std::span<const SequenceSlice> sequences;  ///< [B], in row order, covering [0, T)
  int64_t page_tokens = 0;                   ///< Of the block tables; 0: as the cache that the operations name.
  bool follows_choice = false;               ///< The device puts what it chose last, row for row, in the place of `tokens`.
};

/// What a step ends with: nothing, or a token of each row, always the one of the highest logit or not.
enum class Choice : uint8_t { kNone, kHighest, kDrawn };

/// Names a sequence of operations that may come again with nothing but another batch: equal keys promise the same operations on the
/// same memory, with as many rows.
struct StepKey {
  uint64_t workspace = 0, cache = 0;  ///< new_serial() of each.
  int64_t n_rows = 0, block_size = 0;
  bool flash = true;
  Choice choice = Choice::kNone;
  bool operator==(const StepKey&) const = default;
};
/// Never the same number twice in a process.
uint64_t new_serial() noexcept;

struct AttentionParams {
  int64_t n_heads = 0, n_kv_heads = 0, head_dim = 0;
  float scale = 1.0f;                        ///< Multiplies q.k.
  bool causal = true;                        ///< Bottom-right aligned: the last row sees every key.
  int64_t window = 0;                        ///< A row sees this many newest keys, its own included; 0 is all.
  float softcap = 0.0f;                      ///< score = c tanh(score / c); 0 is off.
  std::span<const float> alibi_slopes = {};  ///< [H] (host) or empty: adds -slope * distance to the score.
  std::span<const float> sinks = {};         ///< [H] (host) or empty: a score that takes part in the sum but carries no value.
  int64_t block_size = 128;                  ///< Key tile of flash attention in tokens, a power of two from 16 to 1024.
  bool flash = true;                         ///< false: the whole score matrix is stored (the check and the baseline).
};

/// Types of the queries and of attention's output on their way through a layer.
struct AttentionTypes {
  Dtype q = Dtype::kF32, attended = Dtype::kF32;
};

/// Weights of norm + q/k/v + rope + append. Views are [E], [(H+2G)D], [D] in device memory, or empty where the model has none.
struct AttentionInput {
  ConstTensorView norm;
  const PackedWeight* qkv = nullptr;  ///< [(H+2G)D, E]: q, then k, then v.
  ConstTensorView bias;
  ConstTensorView q_norm, k_norm;
  float norm_eps = 1e-5f;
  int64_t n_heads = 0, n_kv_heads = 0, head_dim = 0;
  RopeLayout rope_layout = RopeLayout::kHalves;
  int64_t rope_dim = 0;
};

/// Weights of norm + gate + up + activation + down + residual.
struct FeedForward {
  ConstTensorView norm;                   ///< [E]
  const PackedWeight* gate_up = nullptr;  ///< [2F, E]: gate, then up.
  const PackedWeight* down = nullptr;     ///< [E, F]
  ConstTensorView post_norm;              ///< [E] or empty
  float norm_eps = 1e-5f;
  Activation activation = Activation::kSilu;
};

/// The largest step a caller will ask for; scratch is allocated for it once.
struct WorkspaceShape {
  int64_t max_rows = 0;  ///< T
  int64_t max_logit_rows = 0;
  int64_t hidden = 0;  ///< E
  int64_t n_heads = 0, n_kv_heads = 0, head_dim = 0;
  int64_t ffn = 0;            ///< F
  int64_t vocab = 0;          ///< V
  int64_t max_context = 0;    ///< Longest sequence, in tokens.
  int64_t max_sequences = 0;  ///< B
};

/// Row widths of the three scratch buffers of Backend's composites, in floats.
std::array<int64_t, 3> scratch_widths(const WorkspaceShape& shape) noexcept;

/// Bytes allocated through one backend: buffers, weights, scratch. Page storage is counted by KvStorage::bytes().
struct MemoryUse {
  int64_t current = 0, peak = 0;
};

/// Tokens on their way to the host.
class PendingTokens {
 public:
  PendingTokens() = default;
  PendingTokens(const PendingTokens&) = delete;
  PendingTokens& operator=(const PendingTokens&) = delete;
  virtual ~PendingTokens() = default;
  /// Waits for what was sent last, [n]; -1 for a row with NaN or +inf, or nothing above -inf.
  virtual void take(std::span<TokenId> ids) = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual Device device() const = 0;
  /// "cpu (avx512_vnni, 2 threads)".
  virtual std::string description() const = 0;

  // --- Memory -------------------------------------------------------------------------------------------------------
  /// Uninitialised, 64-byte aligned. Throws Error{kOutOfMemory}.
  virtual Buffer allocate(size_t bytes) = 0;
  virtual void upload(void* to, const void* from_host, size_t bytes) = 0;
  virtual void download(void* to_host, const void* from, size_t bytes) = 0;
  virtual void sync() = 0;
  /// Whether views may hold any host memory: then results can be written where they are wanted.
  virtual bool computes_in_host_memory() const { return false; }
  virtual MemoryUse memory() const = 0;
  virtual void reset_peak_memory() = 0;
  /// Throws Error{kInvalidArgument} for a page size or dtype it cannot hold.
  virtual std::unique_ptr<KvStorage> make_kv_storage(const KvShape& shape) = 0;
  /// Copies host tensors [N_i, K], stacked along N, into this backend's layout. `convert_to` (kF32, kF16, kBF16) stores them
  /// in that type instead of their own. Throws Error{kUnsupported} for a dtype, Error{kInvalidArgument} for shapes that differ in K.
  virtual std::unique_ptr<PackedWeight> pack(std::span<const ConstTensorView> tensors, WeightRole role,
                                             std::optional<Dtype> convert_to = {}) = 0;
  /// Makes room for steps up to `shape`; grows only. After it, steps within `shape` never allocate.
  virtual void reserve_workspace(const WorkspaceShape& shape);

  // --- A step -------------------------------------------------------------------------------------------------------
  /// Every operation up to the next begin_step works on `batch`, whose memory must stay until then.
  virtual void begin_step(const Batch& batch);
  const Batch& batch() const noexcept { return batch_; }
  /// Grows with every begin_step: whether a step is still the last one.
  uint64_t n_steps() const noexcept { return n_steps_; }

  // --- Operations ---------------------------------------------------------------------------------------------------
  /// out[t, :] = scale * table[tokens[t], :]; out [T, E].
  virtual void embed(TensorView out, const PackedWeight& table, float scale) = 0;
  /// angles[t] = cos(p f_i), then sin(p f_i) for i < R/2, where p = positions[t] and f = inverse_frequencies [R/2] (host). angles [T, R].
  virtual void rope_angles(TensorView angles, std::span<const float> inverse_frequencies) = 0;
  /// out[t, i] = w[i] x[t, i] / sqrt(mean_i(x[t, i]^2) + eps). x and out [T, E], may be the same.
  virtual void rms_norm(TensorView out, ConstTensorView x, ConstTensorView weight, float eps) = 0;
  /// out[t, n] = sum_k x[t, k] w[n, k]. x [T, K], out [T, N].
  virtual void matmul(TensorView out, ConstTensorView x, const PackedWeight& w) = 0;
  /// From qkv [T, (H+2G)D]: adds the bias, normalises and rotates q and k; q goes to `q` [T, H, D], k and v to their slots in `kv`.
  virtual void rotate_and_append(TensorView q, ConstTensorView qkv, const AttentionInput& w, ConstTensorView angles, KvStorage& kv,
                                 int64_t layer) = 0;
  /// out[t, h] = softmax over the keys row t sees, times V. q and out [T, H, D]; lse [T, H] on request: log of the sum of exp(scores),
  /// the sink included. A row that sees nothing gives zeros, and LSE -inf without a sink.
  virtual void attention(TensorView out, ConstTensorView q, const KvStorage& kv, int64_t layer, const AttentionParams& params,
                         TensorView lse = {}) = 0;
  /// The same on dense tensors, without a step: q and out [B, Sq, H, D], k and v [B, Sk, G, D], lse [B, Sq, H].
  virtual void dense_attention(TensorView out, ConstTensorView q, ConstTensorView k, ConstTensorView v, const AttentionParams& params,
                               TensorView lse = {}) = 0;
  /// x += y, element by element.
  virtual void add(TensorView x, ConstTensorView y) = 0;
  /// out[t, f] = activation(gate_up[t, f]) * gate_up[t, F + f]; gate_up [T, 2F], out [T, F].
  virtual void gated_activation(TensorView out, ConstTensorView gate_up, Activation activation) = 0;
  /// out[i] = x[rows[i]]; rows are host memory.
  virtual void gather_rows(TensorView out, ConstTensorView x, std::span<const int32_t> rows) = 0;
  /// x = c tanh(x / c).
  virtual void softcap(TensorView x, float c) = 0;

  // --- Whole steps: for devices where starting operations one by one, or moving logits to the host, costs more than computing them
  virtual bool prefers_whole_steps() const { return false; }
  /// Does `work`, the operations of a decode step (one row a sequence), or replays what they were for this key.
  virtual void repeat(const StepKey& key, const std::function<void()>& work);
  /// How choose() takes the tokens that follow, row by row: copied.
  virtual void begin_choice(std::span<const Draw> draws);
  /// Takes a token of each row of [n, V] as begin_choice() told. `draws` is false if every row takes its highest logit.
  virtual void choose(ConstTensorView logits, bool draws);
  /// A place for the tokens of up to `max_rows` rows.
  virtual std::unique_ptr<PendingTokens> make_pending_tokens(int64_t max_rows);
  /// Sends the tokens of the last choose() there. Does not wait for them.
  virtual void send_chosen(PendingTokens& to);

  // --- Composites: made of the operations above; a device overrides one only to fuse it -----------------------------
  /// norm, q/k/v product, then rotate_and_append. x [T, E], q [T, H, D].
  virtual void attention_input(TensorView q, ConstTensorView x, const AttentionInput& w, ConstTensorView angles, KvStorage& kv,
                               int64_t layer);
  /// x += post_norm(attended w^T) (no norm where post_norm is empty). attended [T, H D].
  virtual void attention_output(TensorView x, ConstTensorView attended, const PackedWeight& w, ConstTensorView post_norm, float eps);
  /// gated = activation(gate(norm(x))) * up(norm(x)). x [T, E], gated [T, F].
  virtual void feed_forward_input(TensorView gated, ConstTensorView x, const FeedForward& w);
  /// x += post_norm(down(gated)).
  virtual void feed_forward_output(TensorView x, ConstTensorView gated, const FeedForward& w);
  /// Both, one after the other.
  virtual void feed_forward(TensorView x, const FeedForward& w);
  /// logits[i] = softcap(norm(x[rows[i]]) w^T). logits [n, V], device memory.
  virtual void head(TensorView logits, ConstTensorView x, std::span<const int32_t> rows, ConstTensorView norm, float eps,
                    const PackedWeight& w, float softcap_value);

  /// What q and attended may be in this step: float32, or what the device's attention reads and the product with `output` wants.
  /// Views of these types then go through attention_input, attention and attention_output.
  virtual AttentionTypes attention_types(const AttentionParams& params, const KvStorage& kv, const PackedWeight& output) const;

  // --- What a device knows of itself --------------------------------------------------------------------------------
  /// What flash_block_size 0 means here for this head width; decided once, at load.
  virtual int64_t default_block_size(int64_t head_dim) const = 0;
  /// Takes about half a second.
  virtual MachinePeaks measure_peaks() = 0;

 protected:
  TensorView scratch(int slot, int64_t rows, int64_t cols);
  /// Whether `rows` are 0, 1, ... n_rows - 1: then nothing need be gathered.
  static bool are_all_rows(std::span<const int32_t> rows, int64_t n_rows) noexcept;
  Batch batch_;

 private:
  uint64_t n_steps_ = 0;
  Buffer scratch_[3];  ///< For the composites above: normalised rows, products, second products.
};

struct BackendOptions {
  int n_threads = 0;  ///< 0: every core this process may use.
};

std::unique_ptr<Backend> make_reference_backend();
std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options);
/// What a CPU backend with all threads takes for tiles of bfloat16, beside the rest: 0 where the processor has none.
int64_t cpu_tile_bytes(const WorkspaceShape& shape);
/// Throws Error{kUnsupported} in a build without CUDA, Error{kDevice} without such a GPU.
std::unique_ptr<Backend> make_cuda_backend(int index, const BackendOptions& options);
std::shared_ptr<Backend> make_backend(const Device& device, const BackendOptions& options = {});

}  // namespace minillm
