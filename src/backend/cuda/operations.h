// operations.h - the launchers of the CUDA backend's kernels: plain pointers to device memory, sizes, and the stream.
// Every launcher returns at once; a grid of zero blocks is never launched. Letters as in backend.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

#include "backend/cuda_sizes.h"
#include "backend/draw.h"
#include "minillm/config.h"
#include "minillm/types.h"

namespace minillm::cuda {

/// One tensor of a weight, [rows, cols], rows beginning at `first_row` of the stack.
/// Plain types are row-major, rows `stride` elements apart (a multiple of 8, zeros behind cols). Quantised:
/// weight = scale[g] (code - zero) + offset[g], g = k / group; codes are nibbles or bytes, everything in the order of fragment.h.
struct DeviceTensor {
  enum class Codes : uint8_t { kF32, kF16, kBF16, kNibbles, kBytes };
  Codes codes = Codes::kF32;
  int64_t first_row = 0, rows = 0, cols = 0;
  int64_t stride = 0;  ///< Of plain types; of quantised ones cols rounded up to units of 128.
  const void* data = nullptr;
  const void* scale = nullptr;   ///< float16 where `half_scales`, else float32.
  const void* offset = nullptr;  ///< The same, or null.
  bool half_scales = false;
  int group = 32;
  float zero = 0.0f;
};

/// A step's description in device memory, one entry a row; `pages` is the row's block table.
struct DeviceStep {
  const TokenId* tokens = nullptr;
  const int32_t* positions = nullptr;
  const int32_t* slots = nullptr;         ///< Slot of the row's token.
  const int32_t* key_counts = nullptr;    ///< Keys its sequence holds after the step.
  const int32_t* tables = nullptr;        ///< Block tables, one after the other.
  const int32_t* table_starts = nullptr;  ///< Where the row's table begins.
  const int32_t* tiles = nullptr;         ///< Runs of up to 64 rows of one sequence: first row and number, n_tiles pairs.
  /// The same rows for the Hopper kernel, as sm90::StepTile, one list for each of sm90::kStepTileRows; only where that kernel
  /// runs, in steps of more than kFewTokens rows.
  const int32_t* wide_tiles[2] = {nullptr, nullptr};
  int64_t n_wide_tiles[2] = {0, 0};
  int64_t n_rows = 0, n_tiles = 0, max_keys = 0, n_table_pages = 0;
  bool one_row_each = false;  ///< Every row is the only one of its sequence.
};

/// Where keys and values lie. Element (slot s, head g, d) is at
/// base + page(s) * page_stride + (s % page_tokens) * token_stride + g * head_stride + d, in elements.
struct KeyLayout {
  const void* keys = nullptr;
  const void* values = nullptr;
  Dtype dtype = Dtype::kF16;
  int page_tokens = 0;  ///< 0: not paged; then `batch_stride` separates the sequences.
  int64_t page_stride = 0, token_stride = 0, head_stride = 0, batch_stride = 0;
  int64_t n_pages = 0;
};

/// What attention needs to know of its rows: a step, or a dense batch.
struct AttentionRows {
  DeviceStep step;                ///< Paged.
  int64_t n_rows = 0;             ///< T, or B * Sq.
  int64_t queries_per_batch = 0;  ///< Sq; 0 for a step.
  int64_t keys_per_batch = 0;     ///< Sk
};

struct AttentionScalars {
  int n_heads = 0, n_kv_heads = 0, head_dim = 0;
  float scale = 1.0f, softcap = 0.0f;
  bool causal = true;
  int64_t window = 0;
  const float* alibi = nullptr;  ///< [H] device memory or null.
  const float* sinks = nullptr;
};

// rows.cu
void rms_norm(float* out, const float* x, const float* weight, int64_t n_rows, int64_t n, float eps, cudaStream_t stream);
void add(float* x, const float* y, int64_t n, cudaStream_t stream);
void gated_activation(float* out, const float* gate_up, int64_t n_rows, int64_t ffn, Activation activation, cudaStream_t stream);
void gather_rows(float* out, const float* x, const int32_t* rows, int64_t n_rows, int64_t n, cudaStream_t stream);
void softcap(float* x, int64_t n, float c, cudaStream_t stream);
void rope_angles(float* angles, const int32_t* positions, const float* frequencies, int64_t n_rows, int64_t half, cudaStream_t stream);
/// out [n_rows, stride] = x [n_rows, n] in `dtype`, zeros behind n.
void convert(void* out, Dtype dtype, const float* x, int64_t n_rows, int64_t n, int64_t stride, cudaStream_t stream);

// lookups.cu
void embed(float* out, const DeviceTensor& table, const TokenId* tokens, int64_t n_rows, float scale, cudaStream_t stream);
/// Rows [begin, begin + n) of a quantised w, begin a multiple of 16, as 16-bit or 32-bit floats, `stride` elements apart.
void dequantise(void* out, Dtype dtype, const DeviceTensor& w, int64_t begin, int64_t n, cudaStream_t stream);

// products.cu
/// out[t, first_row + n] = x[t] . w[n] for plain weights and up to 8 tokens, x rows `stride` apart; one order over k whatever their number.
void plain_product(float* out, int64_t out_stride, const float* x, const DeviceTensor& w, int64_t n_tokens, cudaStream_t stream);

// few_tokens.cu
/// What becomes of a product's sums.
enum class Epilogue : uint8_t {
  kStore,  ///< out = sum
  kAdd,    ///< out += sum
  kGated,  ///< out[t, n] = activation(sum[n]) sum[n + rows / 2] for n < rows / 2
};
struct FewTokenProduct {
  DeviceTensor w;               ///< kBF16 or quantised; kGated: rows a multiple of 32.
  const float* x = nullptr;     ///< [n_tokens, cols]
  const float* norm = nullptr;  ///< RMSNorm weight applied to x first, or null.
  float eps = 0.0f;
  int n_tokens = 0;  ///< 1 to kFewTokens.
  float* out = nullptr;
  int64_t out_stride = 0;
  Epilogue epilogue = Epilogue::kStore;
  bool gelu = false;               ///< kGated: GELU (tanh form), else SiLU.
  void* split_inputs = nullptr;    ///< Scratch of split_input_bytes(); not used for one token.
  bool is_split = false;           ///< split_inputs holds the inputs already, from the product before; x and norm are not read.
  const float* factors = nullptr;  ///< [n_tokens], of the norm; few_token_product sets it.
  /// kGated, or null: the result goes here instead of `out`, split as the product with `next` wants it; its columns are whole units.
  void* split_out = nullptr;
  DeviceTensor next;
};
bool takes_few_tokens(const DeviceTensor& w);
/// A token's result is the same bit for bit whatever the tokens beside it.
void few_token_product(const FewTokenProduct& p, cudaStream_t stream);

// product_chain.cu: products that follow each other, as one kernel.
constexpr size_t kMostChained = 4;
/// Whether a product may be part of a chain on this device, and whether two of those may be in the same one.
bool joins_chain(const FewTokenProduct& p);
bool chains_with(const FewTokenProduct& a, const FewTokenProduct& b);
/// Whether a chain of them takes less time than one after the other.
bool chain_pays(std::span<const FewTokenProduct> products);
/// The same bits as few_token_product for each, in order. `barrier` is a word of device memory, 0 at first; the kernel's blocks wait for
/// each other, so no other kernel that does may run beside it.
void product_chain(std::span<const FewTokenProduct> products, unsigned int* barrier, cudaStream_t stream);

// argmax.cu
/// Scratch must hold zeros before the first call.
size_t argmax_scratch_bytes();
/// ids[t] = the index of row t's highest logit, the lowest of equals; -1 where one is NaN or +inf, or all are -inf.
void argmax(int32_t* ids, const float* logits, int64_t n_rows, int64_t vocab, void* scratch, cudaStream_t stream);

// draw.cu
/// Where draws[t] has a temperature: ids[t], which is argmax()'s, becomes a token drawn from row t. `draws` is device memory; scratch
/// holds draw_scratch_bytes() of zeros before the first call.
void draw(int32_t* ids, const float* logits, int64_t n_rows, int64_t vocab, const Draw* draws, void* scratch, cudaStream_t stream);

// append.cu
struct AppendShape {
  int n_heads = 0, n_kv_heads = 0, head_dim = 0, rope_dim = 0;
  RopeLayout layout = RopeLayout::kHalves;
  float eps = 1e-5f;
};
/// The q/k/v product of a step's rows and what makes its heads ready.
struct AppendInputs {
  const float* qkv = nullptr;                                         ///< [n_rows, H + 2G, D]
  const float *bias = nullptr, *q_norm = nullptr, *k_norm = nullptr;  ///< Each may be null.
  const float* angles = nullptr;                                      ///< [n_rows, rope_dim]
  AppendShape shape;
};
/// q, k, v of each row: bias, norm of q and k, rotation; q to `q`, k and v to their slots.
void rotate_and_append(float* q, const AppendInputs& in, const DeviceStep& step, const KeyLayout& cache, cudaStream_t stream);

// attention_decode.cu
/// Whether decode_attention takes this; flash_attention takes everything.
bool decodes(const KeyLayout& cache, const AttentionRows& rows, const AttentionScalars& scalars);
/// Scratch begins with decode_counter_bytes() of counters, which must be 0 before the first call.
size_t decode_scratch_bytes(int64_t n_rows, const AttentionScalars& scalars);
size_t decode_counter_bytes(const AttentionScalars& scalars);
void decode_attention(float* out, float* lse, const float* q, const KeyLayout& cache, const DeviceStep& step,
                      const AttentionScalars& scalars, void* scratch, cudaStream_t stream);
/// rotate_and_append and then decode_attention, for a step with one row a sequence; q is never stored.
void append_and_attend(float* out, const AppendInputs& in, const KeyLayout& cache, const DeviceStep& step, const AttentionScalars& scalars,
                       void* scratch, cudaStream_t stream);

// attention_chunk.cu
bool attends_in_chunks(const KeyLayout& cache, const AttentionRows& rows, const AttentionScalars& scalars);
void chunk_attention(float* out, float* lse, const float* q, const KeyLayout& cache, const DeviceStep& step,
                     const AttentionScalars& scalars, cudaStream_t stream);

// attention.cu
void flash_attention(float* out, float* lse, const float* q, const KeyLayout& cache, const AttentionRows& rows,
                     const AttentionScalars& scalars, cudaStream_t stream);
/// Through the whole score matrix [n_rows, H, max_keys] in `scores`.
void standard_attention(float* out, float* lse, const float* q, const KeyLayout& cache, const AttentionRows& rows,
                        const AttentionScalars& scalars, float* scores, int64_t max_keys, cudaStream_t stream);

}  // namespace minillm::cuda
