// attention_append.cpp - rotate_and_append: from one row of q, k, v products to rotated queries and stored keys and values.
// Rows are handed out in chunks of 16 slots at most, so that every thread has some, and first to the thread that computed their
// products (row_groups.h); a row depends on nothing but itself.
#include <algorithm>

#include "backend/cpu/attention.h"
#include "backend/cpu/row_groups.h"
#include "base/bytes.h"

namespace minillm::cpu {
namespace {

constexpr int64_t kChunkRows = 16;

/// One append call, as each row needs it.
struct Append {
  const AttentionKernels& kernels;
  const Batch& batch;
  const AttentionInput& w;
  CpuKvStorage& storage;
  int64_t layer, n_angles;
  const float* qkv;
  const float* angles;
  float* q;

  static const float* data_or_null(const ConstTensorView& view) { return view ? view.f32() : nullptr; }

  HeadInput head(int64_t row, int64_t index, const ConstTensorView& norm, bool rotated) const {
    const float* bias = data_or_null(w.bias);
    const int64_t width = w.head_dim, columns = (w.n_heads + 2 * w.n_kv_heads) * width;
    return {.x = qkv + row * columns + index * width,
            .bias = bias == nullptr ? nullptr : bias + index * width,
            .norm = data_or_null(norm),
            .angles = rotated && n_angles > 0 ? angles + row * n_angles : nullptr,
            .norm_eps = w.norm_eps,
            .head_dim = width,
            .rope_dim = n_angles,
            .interleaved = w.rope_layout == RopeLayout::kInterleaved};
  }

  void row(int64_t t, const SequenceSlice& sequence, float* key, float* value) const {
    for (int64_t h = 0; h < w.n_heads; ++h) kernels.prepare_head(q + (t * w.n_heads + h) * w.head_dim, head(t, h, w.q_norm, true));
    const int64_t slot = sequence.n_cached + t - sequence.first_row, page_tokens = storage.shape().page_tokens;
    const int32_t page = sequence.pages[slot / page_tokens];
    MINILLM_CHECK(page >= 0 && page < storage.committed_pages(), "page ", page, " of ", storage.committed_pages(), " committed");
    for (int64_t g = 0; g < w.n_kv_heads; ++g) {
      kernels.prepare_head(key, head(t, w.n_heads + g, w.k_norm, true));
      const HeadInput v = head(t, w.n_heads + w.n_kv_heads + g, {}, false);
      if (v.bias != nullptr) kernels.prepare_head(value, v);
      storage.store(layer, page, g, slot % page_tokens, key, v.bias != nullptr ? value : v.x);
    }
  }
};

}  // namespace

void CpuAttention::rotate_and_append(const Batch& batch, TensorView q, ConstTensorView qkv, const AttentionInput& w, ConstTensorView angles,
                                     KvStorage& kv, int64_t layer) {
  auto* storage = dynamic_cast<CpuKvStorage*>(&kv);
  MINILLM_CHECK(storage != nullptr, "keys and values of another backend");
  const int64_t n_rows = qkv.dim(0), columns = (w.n_heads + 2 * w.n_kv_heads) * w.head_dim;
  MINILLM_CHECK(layer >= 0 && layer < kv.shape().n_layers, "layer ", layer, " of ", kv.shape().n_layers);
  MINILLM_CHECK(kv.shape().n_kv_heads == w.n_kv_heads && kv.shape().head_dim == w.head_dim, "storage of ", kv.shape().n_kv_heads,
                " heads of ", kv.shape().head_dim);
  MINILLM_CHECK(qkv.n_elements() == n_rows * columns && q.n_elements() == n_rows * w.n_heads * w.head_dim, "qkv of ", qkv.n_elements(),
                ", q of ", q.n_elements(), " elements");
  const int64_t n_angles = angles ? angles.dim(1) : 0;
  MINILLM_CHECK(n_angles == w.rope_dim && n_angles <= w.head_dim && n_angles % 2 == 0 && (n_angles == 0 || angles.dim(0) == n_rows),
                "rope of ", w.rope_dim, " with angles of ", n_angles);
  MINILLM_CHECK(!w.bias || w.bias.n_elements() == columns, "bias of ", w.bias.n_elements());
  if (n_rows == 0) return;
  reserve_scratch(w.head_dim);
  const Append append{kernels_, batch, w, *storage, layer, n_angles, qkv.f32(), angles ? angles.f32() : nullptr, q.f32()};
  const int64_t n_chunk = std::clamp<int64_t>(n_rows / (2 * pool_.n_threads()), 1, kChunkRows);
  const RowGroups groups(n_rows, pool_.n_threads());
  const int64_t n_chunks = ceil_div(std::min(n_rows, groups.size), n_chunk);
  pool_.for_each_in_groups(groups.count, n_chunks, [&](int64_t group, int64_t chunk, int thread) {
    const TileScratch own = scratch(thread);
    const int64_t first = groups.begin(group) + chunk * n_chunk, last = std::min(first + n_chunk, groups.end(group));
    // The last sequence that starts at or before the row; empty ones in between share their start.
    auto next = std::upper_bound(batch.sequences.begin(), batch.sequences.end(), first,
                                 [](int64_t row, const SequenceSlice& s) { return row < s.first_row; });
    for (int64_t t = first; t < last; ++t) {
      while (next != batch.sequences.end() && next->first_row <= t) ++next;
      append.row(t, *(next - 1), own.q, own.run_o);
    }
  });
}

}  // namespace minillm::cpu
