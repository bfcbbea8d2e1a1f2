// cuda_many_tokens.cpp - steps of many tokens (prefill): 16-bit inputs from one product to the next, no float32 copy of them between.
// Norm, rotation and activation write what the next product reads; residuals are added by the product itself; gate and up stand in
// bfloat16 between their product and the activation.
#include <algorithm>

#include "backend/cuda/check.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/fragment.h"
#include "backend/cuda/many_tokens.h"
#include "backend/cuda/sm90/attention_step.h"
#include "base/bytes.h"

namespace minillm::cuda {
namespace {

using Codes = DeviceTensor::Codes;

/// Elements of a page's keys and values in one layer.
int64_t page_elements(const KvShape& s) { return 2 * s.n_kv_heads * s.page_tokens * s.head_dim; }

/// The pages of a layer of `s`, laid out as CudaKvStorage does, one after the other in float16.
KeyLayout wide_layout(const void* data, const KvShape& s, int64_t n_pages) {
  const int64_t part = page_elements(s) / 2;
  return {data,
          static_cast<const uint16_t*>(data) + part,
          Dtype::kF16,
          static_cast<int>(s.page_tokens),
          2 * part,
          s.head_dim,
          s.page_tokens * s.head_dim,
          0,
          n_pages};
}

/// The type that a tensor is multiplied in.
Dtype dense_type(const DeviceTensor& tensor) {
  return tensor.codes == Codes::kF32 ? Dtype::kF32 : tensor.codes == Codes::kF16 ? Dtype::kF16 : Dtype::kBF16;
}

}  // namespace

std::optional<Dtype> CudaBackend::narrow_type(const PackedWeight& w) {
  const auto& tensors = own(w).tensors;
  const Dtype first = dense_type(tensors[0]);
  const bool one_type = std::ranges::all_of(tensors, [&](const DeviceTensor& tensor) { return dense_type(tensor) == first; });
  return one_type && first != Dtype::kF32 && w.cols() % 8 == 0 ? std::optional(first) : std::nullopt;
}

/// out[t, first_row + n] (+)= inputs[t] . tensor[n]; inputs in the tensor's dense type, rows padded to a multiple of 8.
void CudaBackend::dense_product(const DenseOutput& out, const void* inputs, const DeviceTensor& tensor, int64_t n_tokens) {
  if (!dense_) dense_ = std::make_unique<DenseProduct>(allocate(kDenseWorkspaceBytes));
  const int64_t stride = round_up(tensor.cols, 8);
  DenseProduct::Shape shape{dense_type(tensor), out.dtype, n_tokens, tensor.rows, stride, out.stride, out.add};
  const auto at = [&](int64_t row) {
    return static_cast<std::byte*>(out.data) + static_cast<size_t>(tensor.first_row + row) * block_bytes(out.dtype);
  };
  if (tensor.codes != Codes::kNibbles && tensor.codes != Codes::kBytes) return dense_->run(at(0), inputs, tensor.data, shape, stream());
  const int64_t chunk = std::max<int64_t>(static_cast<int64_t>(kDequantisedBytes) / (2 * stride) / kTileRows, 1) * kTileRows;
  void* plain = keep(weights_, static_cast<size_t>(std::min(chunk, tensor.rows) * stride) * sizeof(uint16_t));
  for (int64_t row = 0; row < tensor.rows; row += chunk) {
    shape.n = std::min(chunk, tensor.rows - row);
    dequantise(plain, shape.dtype, tensor, row, shape.n, stream());
    dense_->run(at(row), inputs, plain, shape, stream());
  }
}

void CudaBackend::dense_products(const DenseOutput& out, const void* inputs, const PackedWeight& w, int64_t n_tokens) {
  for (const DeviceTensor& tensor : own(w).tensors) dense_product(out, inputs, tensor, n_tokens);
}

void CudaBackend::many_tokens(TensorView out, ConstTensorView x, const CudaWeight& weight) {
  const int64_t n_tokens = out.dim(0), k = weight.cols(), stride = round_up(k, 8);
  const void* inputs = nullptr;
  std::optional<Dtype> inputs_as;
  for (const DeviceTensor& tensor : weight.tensors) {
    const Dtype as = dense_type(tensor);
    if (inputs_as != as) {
      inputs = x.data;
      if (x.dtype != as || stride != k) {
        void* narrow = keep(narrow_, static_cast<size_t>(n_tokens * stride) * block_bytes(as));
        convert(narrow, as, x.f32(), n_tokens, k, stride, stream());
        inputs = narrow;
      }
      inputs_as = as;
    }
    dense_product({out.data, Dtype::kF32, weight.rows(), false}, inputs, tensor, n_tokens);
  }
}

const void* CudaBackend::normed(ConstTensorView x, ConstTensorView weight, float eps, Dtype as) {
  void* narrow = keep(narrow_, static_cast<size_t>(x.n_elements()) * block_bytes(as));
  norm_to(narrow, as, x.f32(), weight.f32(), x.dim(0), x.dim(1), eps, stream());
  return narrow;
}

/// x += post_norm(inputs w^T).
void CudaBackend::add_product(TensorView x, const void* inputs, const PackedWeight& w, ConstTensorView post_norm, float eps) {
  if (!post_norm) return dense_products({x.data, Dtype::kF32, w.rows(), true}, inputs, w, x.dim(0));
  const TensorView projected = scratch(1, x.dim(0), w.rows());
  dense_products({projected.data, Dtype::kF32, w.rows(), false}, inputs, w, x.dim(0));
  rms_norm(projected, projected, post_norm, eps);
  add(x, projected);
}

void CudaBackend::many_attention_input(TensorView q, ConstTensorView x, const AttentionInput& w, ConstTensorView angles, KvStorage& kv,
                                       int64_t layer) {
  const std::optional<Dtype> as = narrow_type(*w.qkv);
  if (!as) return Backend::attention_input(q, x, w, angles, kv, layer);
  const TensorView qkv = scratch(1, x.dim(0), w.qkv->rows());
  dense_products({qkv.data, Dtype::kF32, w.qkv->rows(), false}, normed(x, w.norm, w.norm_eps, *as), *w.qkv, x.dim(0));
  rotate_and_append(q, qkv, w, angles, kv, layer);
}

void CudaBackend::many_attention_output(TensorView x, ConstTensorView attended, const PackedWeight& w, ConstTensorView post_norm,
                                        float eps) {
  const std::optional<Dtype> as = narrow_type(w);
  if (!as) return Backend::attention_output(x, attended, w, post_norm, eps);
  const void* inputs = attended.data;
  if (attended.dtype != *as) {
    void* narrow = keep(narrow_, static_cast<size_t>(attended.n_elements()) * block_bytes(*as));
    convert(narrow, *as, attended.f32(), attended.dim(0), attended.dim(1), attended.dim(1), stream());
    inputs = narrow;
  }
  add_product(x, inputs, w, post_norm, eps);
}

void CudaBackend::many_feed_forward(TensorView x, const FeedForward& w) {
  const std::optional<Dtype> as = narrow_type(*w.gate_up), down_as = narrow_type(*w.down);
  if (!as || !down_as) return Backend::feed_forward(x, w);
  const int64_t n_rows = x.dim(0), ffn = w.down->cols();
  const Dtype between = *as == Dtype::kBF16 ? Dtype::kBF16 : Dtype::kF32;  // float16 would overflow at 65504.
  void* const gate_up = scratch(1, n_rows, 2 * ffn).data;
  dense_products({gate_up, between, 2 * ffn, false}, normed(x, w.norm, w.norm_eps, *as), *w.gate_up, n_rows);
  void* const gated = keep(narrow_, static_cast<size_t>(n_rows * ffn) * block_bytes(*down_as));
  gate_to(gated, *down_as, gate_up, between, n_rows, ffn, w.activation, stream());
  add_product(x, gated, *w.down, w.post_norm, w.norm_eps);
}

AttentionTypes CudaBackend::attention_types(const AttentionParams& p, const KvStorage& kv, const PackedWeight& output) const {
  const auto n_rows = static_cast<int64_t>(batch_.tokens.size());
  if (!has_wgmma_ || n_rows <= kFewTokens || batch_.sequences.size() == batch_.tokens.size() || !p.flash) return {};
  const auto* storage = dynamic_cast<const CudaKvStorage*>(&kv);
  if (storage == nullptr || !p.alibi_slopes.empty() || !p.sinks.empty()) return {};
  const AttentionScalars scalars{
      static_cast<int>(p.n_heads), static_cast<int>(p.n_kv_heads), static_cast<int>(p.head_dim), p.scale, p.softcap, p.causal, p.window};
  const std::optional<Dtype> attended = narrow_type(output);
  const KvShape& shape = storage->shape();
  KeyLayout layout = storage->layout(0);
  if (shape.dtype == Dtype::kF8) {
    int64_t n_pages = 0;
    for (const SequenceSlice& s : batch_.sequences)
      if (s.n_rows > 0) n_pages += ceil_div(s.n_cached + s.n_rows, shape.page_tokens);
    if (wide_page_bytes(n_pages, page_elements(shape)) > kMostWideBytes) return {};
    layout = wide_layout(nullptr, shape, n_pages);
  }
  if (!attended || !sm90::takes_step(layout, scalars)) return {};
  return {matrix_type(shape.dtype), *attended};
}

CudaBackend::WideKeys CudaBackend::widened(const CudaKvStorage& kv, int64_t layer, const DeviceStep& step) {
  const int64_t elements = page_elements(kv.shape()), n_pages = step.n_table_pages;
  void* const data = keep(wide_keys_, static_cast<size_t>(wide_page_bytes(n_pages, elements)));
  auto* const tables = static_cast<int32_t*>(keep(wide_tables_, static_cast<size_t>(n_pages) * sizeof(int32_t)));
  widen_pages(data, tables, kv.layout(layer), step, n_pages, elements, stream());
  return {wide_layout(data, kv.shape(), n_pages), tables};
}

/// q and out in attention_types().
void CudaBackend::narrow_attention(TensorView out, ConstTensorView q, const CudaKvStorage& kv, int64_t layer, const AttentionParams& params,
                                   TensorView lse) {
  const DeviceStep& step = step_on(kv);
  sm90::StepAttention p;
  p.q = q.data;
  p.out = out.data;
  p.out_dtype = out.dtype;
  p.lse = lse ? lse.f32() : nullptr;
  const WideKeys keys = kv.shape().dtype == Dtype::kF8 ? widened(kv, layer, step) : WideKeys{kv.layout(layer), step.tables};
  p.cache = keys.layout;
  p.tables = keys.tables;
  p.a = scalars_of(params);
  const int list = sm90::tile_list(params.head_dim, step.max_keys);
  p.tile_rows = sm90::kStepTileRows[list];
  p.tiles = step.wide_tiles[list];
  p.n_rows = step.n_rows;
  p.n_tiles = step.n_wide_tiles[list];
  p.max_keys = step.max_keys;
  p.tickets = static_cast<int*>(tickets_.data());
  p.n_multiprocessors = n_multiprocessors_;
  sm90::step_attention(p, stream());
}

}  // namespace minillm::cuda
