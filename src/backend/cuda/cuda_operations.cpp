// cuda_operations.cpp - the choice of a kernel for each operation.
#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "backend/cuda/check.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/fragment.h"
#include "backend/cuda/many_tokens.h"
#include "base/bytes.h"

namespace minillm::cuda {
namespace {

const CudaKvStorage& own(const KvStorage& kv) {
  const auto* storage = dynamic_cast<const CudaKvStorage*>(&kv);
  if (storage == nullptr) throw Error(ErrorCode::kInvalidArgument, "cuda: a key/value cache of another device");
  return *storage;
}

const float* floats_or_null(ConstTensorView view) { return view ? view.f32() : nullptr; }

}  // namespace

void CudaBackend::embed(TensorView out, const PackedWeight& table, float scale) {
  const CudaWeight& weight = own(table);
  if (weight.tensors.size() != 1) throw Error(ErrorCode::kUnsupported, "cuda: an embedding of several tensors");
  for (TokenId token : batch_.tokens)
    if (token < 0 || token >= table.rows()) throw Error(ErrorCode::kInvalidArgument, "embed: token ", token, " of ", table.rows());
  cuda::embed(out.f32(), weight.tensors[0], step_.tokens, out.dim(0), scale, stream());
}

void CudaBackend::rope_angles(TensorView angles, std::span<const float> inverse_frequencies) {
  const float* frequencies = constants(inverse_frequencies);
  cuda::rope_angles(angles.f32(), step_.positions, frequencies, angles.dim(0), static_cast<int64_t>(inverse_frequencies.size()), stream());
}

void CudaBackend::rms_norm(TensorView out, ConstTensorView x, ConstTensorView weight, float eps) {
  cuda::rms_norm(out.f32(), x.f32(), weight.f32(), x.dim(0), x.dim(1), eps, stream());
}

void CudaBackend::matmul(TensorView out, ConstTensorView x, const PackedWeight& w) {
  if (out.dim(0) <= kFewTokens)
    few_tokens(out, x, own(w), {}, 0.0f, Epilogue::kStore);
  else
    many_tokens(out, x, own(w));
}

cudaStream_t CudaBackend::stream() {
  if (joined_.empty()) return stream_;
  std::array<FewTokenProduct, kMostChained> products;
  const auto end = std::ranges::copy(joined_, products.begin()).out;
  joined_.clear();  // First: an error must not leave them.
  const std::span<const FewTokenProduct> all(products.begin(), end);
  if (!in_whole_step_ || chain_pays(all))  // Outside of steps speed hardly matters, and tests see chains of any size.
    product_chain(all, static_cast<unsigned int*>(chain_barrier_.data()), stream_);
  else
    for (const FewTokenProduct& p : all) few_token_product(p, stream_);
  return stream_;
}

void CudaBackend::multiply(const FewTokenProduct& p) {
  if (!may_chain_ || !joins_chain(p)) return few_token_product(p, stream());
  if (joined_.size() == kMostChained || (!joined_.empty() && !chains_with(joined_.front(), p))) (void)stream();
  joined_.push_back(p);
  if (!in_whole_step_) (void)stream();
}

/// norm may be empty; kAdd needs nothing of the weight, kGated is decided by the caller.
void CudaBackend::few_tokens(TensorView out, ConstTensorView x, const CudaWeight& w, ConstTensorView norm, float eps, Epilogue epilogue,
                             bool gelu) {
  FewTokenProduct p;
  p.x = x.f32();
  p.norm = floats_or_null(norm);
  p.eps = eps;
  p.n_tokens = static_cast<int>(x.dim(0));
  p.out = out.f32();
  p.out_stride = out.dim(1);
  p.epilogue = epilogue;
  p.gelu = gelu;
  if (p.n_tokens > 1) p.split_inputs = keep(split_inputs_, split_input_bytes(p.n_tokens, w.cols()));
  for (const DeviceTensor& tensor : w.tensors) {
    if (takes_few_tokens(tensor)) {
      p.w = tensor;
      multiply(p);
    } else {
      plain_tokens(out, x, tensor);
    }
  }
}

void CudaBackend::plain_tokens(TensorView out, ConstTensorView x, const DeviceTensor& tensor) {
  const float* inputs = x.f32();
  if (tensor.stride != tensor.cols) {
    void* padded = keep(narrow_, static_cast<size_t>(x.dim(0) * tensor.stride) * sizeof(float));
    convert(padded, Dtype::kF32, inputs, x.dim(0), tensor.cols, tensor.stride, stream());
    inputs = static_cast<const float*>(padded);
  }
  for (int64_t t = 0; t < x.dim(0); t += 8)
    plain_product(out.f32() + t * out.dim(1), out.dim(1), inputs + t * tensor.stride, tensor, std::min<int64_t>(8, x.dim(0) - t), stream());
}

bool CudaBackend::fuses(const PackedWeight& w, int64_t n_rows) {
  return n_rows <= kFewTokens && std::ranges::all_of(own(w).tensors, takes_few_tokens);
}

void CudaBackend::attention_input(TensorView q, ConstTensorView x, const AttentionInput& w, ConstTensorView angles, KvStorage& kv,
                                  int64_t layer) {
  if (x.dim(0) > kFewTokens) return many_attention_input(q, x, w, angles, kv, layer);
  if (!fuses(*w.qkv, x.dim(0))) return Backend::attention_input(q, x, w, angles, kv, layer);
  const TensorView qkv = scratch(1, x.dim(0), w.qkv->rows());
  few_tokens(qkv, x, own(*w.qkv), w.norm, w.norm_eps, Epilogue::kStore);
  const CudaKvStorage& storage = own(kv);
  AttentionScalars scalars;
  scalars.n_heads = static_cast<int>(w.n_heads);
  scalars.n_kv_heads = static_cast<int>(w.n_kv_heads);
  scalars.head_dim = static_cast<int>(w.head_dim);
  if (in_whole_step_ && step_on(storage).one_row_each && decodes(storage.layout(layer), {step_on(storage), x.dim(0), 0, 0}, scalars))
    left_to_attention_ = LeftToAttention{append_inputs(qkv, w, angles), q.data, &kv, layer};
  else
    rotate_and_append(q, qkv, w, angles, kv, layer);
}

void CudaBackend::attention_output(TensorView x, ConstTensorView attended, const PackedWeight& w, ConstTensorView post_norm, float eps) {
  if (x.dim(0) > kFewTokens) return many_attention_output(x, attended, w, post_norm, eps);
  if (post_norm || !fuses(w, x.dim(0))) return Backend::attention_output(x, attended, w, post_norm, eps);
  few_tokens(x, attended, own(w), {}, 0.0f, Epilogue::kAdd);
}

void CudaBackend::feed_forward_input(TensorView gated, ConstTensorView x, const FeedForward& w) {
  if (!fuses(*w.gate_up, x.dim(0))) return Backend::feed_forward_input(gated, x, w);
  const bool gelu = w.activation == Activation::kGeluTanh;
  // Gate and up of one type are one tensor, whose halves a block multiplies together.
  if (own(*w.gate_up).tensors.size() == 1 && w.gate_up->rows() % 32 == 0 && x.dim(0) <= kFewTokens / 2)
    return few_tokens(gated, x, own(*w.gate_up), w.norm, w.norm_eps, Epilogue::kGated, gelu);
  const TensorView gate_up = scratch(1, x.dim(0), w.gate_up->rows());
  few_tokens(gate_up, x, own(*w.gate_up), w.norm, w.norm_eps, Epilogue::kStore);
  gated_activation(gated, gate_up, w.activation);
}

void CudaBackend::feed_forward(TensorView x, const FeedForward& w) {
  const int64_t n_rows = x.dim(0);
  if (n_rows > kFewTokens) return many_feed_forward(x, w);
  const bool one_each = own(*w.gate_up).tensors.size() == 1 && own(*w.down).tensors.size() == 1;
  if (!one_each || !fuses(*w.gate_up, n_rows) || !fuses(*w.down, n_rows) || n_rows > kFewTokens / 2 || w.down->cols() % kUnitColumns != 0)
    return Backend::feed_forward(x, w);
  // Between the two products the activations exist only as the second one's split inputs.
  FewTokenProduct up, down;
  up.w = own(*w.gate_up).tensors[0];
  up.x = x.f32();
  up.norm = floats_or_null(w.norm);
  up.eps = w.norm_eps;
  up.n_tokens = down.n_tokens = static_cast<int>(n_rows);
  up.epilogue = Epilogue::kGated;
  up.gelu = w.activation == Activation::kGeluTanh;
  up.split_inputs = n_rows > 1 ? keep(split_inputs_, split_input_bytes(n_rows, w.gate_up->cols())) : nullptr;
  up.split_out = keep(split_gated_, split_input_bytes(n_rows, w.down->cols()));
  up.next = down.w = own(*w.down).tensors[0];
  multiply(up);

  const TensorView projected = w.post_norm ? scratch(1, n_rows, w.down->rows()) : x;
  down.split_inputs = up.split_out;
  down.is_split = true;
  down.out = projected.f32();
  down.out_stride = projected.dim(1);
  down.epilogue = w.post_norm ? Epilogue::kStore : Epilogue::kAdd;
  multiply(down);
  if (!w.post_norm) return;
  rms_norm(projected, projected, w.post_norm, w.norm_eps);
  add(x, projected);
}

void CudaBackend::head(TensorView logits, ConstTensorView x, std::span<const int32_t> rows, ConstTensorView norm, float eps,
                       const PackedWeight& w, float softcap_value) {
  if (!are_all_rows(rows, x.dim(0)) || !fuses(w, x.dim(0))) return Backend::head(logits, x, rows, norm, eps, w, softcap_value);
  few_tokens(logits, x, own(w), norm, eps, Epilogue::kStore);
  if (softcap_value != 0.0f) softcap(logits, softcap_value);
}

void CudaBackend::rotate_and_append(TensorView q, ConstTensorView qkv, const AttentionInput& w, ConstTensorView angles, KvStorage& kv,
                                    int64_t layer) {
  const CudaKvStorage& storage = own(kv);
  const AppendInputs in = append_inputs(qkv, w, angles);
  if (q.dtype != Dtype::kF32)
    append_rows(q.data, in, step_on(storage), storage.layout(layer), stream());
  else
    cuda::rotate_and_append(q.f32(), in, step_on(storage), storage.layout(layer), stream());
}

AppendInputs CudaBackend::append_inputs(ConstTensorView qkv, const AttentionInput& w, ConstTensorView angles) {
  return {qkv.f32(),
          floats_or_null(w.bias),
          floats_or_null(w.q_norm),
          floats_or_null(w.k_norm),
          angles.f32(),
          {static_cast<int>(w.n_heads), static_cast<int>(w.n_kv_heads), static_cast<int>(w.head_dim), static_cast<int>(w.rope_dim),
           w.rope_layout, w.norm_eps}};
}

AttentionScalars CudaBackend::scalars_of(const AttentionParams& p) {
  return {static_cast<int>(p.n_heads),
          static_cast<int>(p.n_kv_heads),
          static_cast<int>(p.head_dim),
          p.scale,
          p.softcap,
          p.causal,
          p.window,
          constants(p.alibi_slopes),
          constants(p.sinks)};
}

void* CudaBackend::decode_scratch(int64_t n_rows, const AttentionScalars& scalars) {
  // Counters of another head count are 0 as well, but partial sums may lie where they will be.
  const size_t counters = decode_counter_bytes(scalars), bytes = decode_scratch_bytes(n_rows, scalars);
  if (decode_.bytes() < bytes || decode_counters_ != counters) {
    void* scratch = keep(decode_, std::max(bytes, decode_.bytes()));
    forget_records();
    decode_counters_ = counters;
    MINILLM_CUDA(cudaMemsetAsync(scratch, 0, counters, stream()));
  }
  return decode_.data();
}

void CudaBackend::attend(TensorView out, ConstTensorView q, const KeyLayout& layout, const AttentionRows& rows,
                         const AttentionParams& params, TensorView lse, int64_t max_keys) {
  const AttentionScalars scalars = scalars_of(params);
  float* lse_data = lse ? lse.f32() : nullptr;
  if (params.flash && decodes(layout, rows, scalars)) {
    decode_attention(out.f32(), lse_data, q.f32(), layout, rows.step, scalars, decode_scratch(rows.n_rows, scalars), stream());
    return;
  }
  if (params.flash && attends_in_chunks(layout, rows, scalars)) {
    chunk_attention(out.f32(), lse_data, q.f32(), layout, rows.step, scalars, stream());
    return;
  }
  if (params.flash) {
    flash_attention(out.f32(), lse_data, q.f32(), layout, rows, scalars, stream());
    return;
  }
  const Buffer scores = allocate(static_cast<size_t>(rows.n_rows * params.n_heads * std::max<int64_t>(max_keys, 1)) * sizeof(float));
  standard_attention(out.f32(), lse_data, q.f32(), layout, rows, scalars, static_cast<float*>(scores.data()), max_keys, stream());
}

void CudaBackend::attention(TensorView out, ConstTensorView q, const KvStorage& kv, int64_t layer, const AttentionParams& params,
                            TensorView lse) {
  const CudaKvStorage& storage = own(kv);
  if (q.dtype != Dtype::kF32) return narrow_attention(out, q, storage, layer, params, lse);
  const DeviceStep& step = step_on(storage);
  if (left_to_attention_) {
    const LeftToAttention left = *std::exchange(left_to_attention_, std::nullopt);
    if (left.q != q.data || left.kv != &kv || left.layer != layer || lse || !params.flash)
      throw Error(ErrorCode::kInternal, "cuda: attention of another layer than the one that attention_input began");
    const AttentionScalars scalars = scalars_of(params);
    append_and_attend(out.f32(), left.inputs, storage.layout(layer), step, scalars, decode_scratch(step.n_rows, scalars), stream());
    return;
  }
  attend(out, q, storage.layout(layer), {step, step.n_rows, 0, 0}, params, lse, step.max_keys);
}

void CudaBackend::dense_attention(TensorView out, ConstTensorView q, ConstTensorView k, ConstTensorView v, const AttentionParams& params,
                                  TensorView lse) {
  const int64_t n_keys = k.dim(1), width = params.n_kv_heads * params.head_dim;
  const KeyLayout layout{k.data, v.data, k.dtype, 0, 0, width, params.head_dim, n_keys * width};
  attend(out, q, layout, {{}, q.dim(0) * q.dim(1), q.dim(1), n_keys}, params, lse, n_keys);
}

void CudaBackend::add(TensorView x, ConstTensorView y) { cuda::add(x.f32(), y.f32(), x.n_elements(), stream()); }

void CudaBackend::gated_activation(TensorView out, ConstTensorView gate_up, Activation activation) {
  cuda::gated_activation(out.f32(), gate_up.f32(), out.dim(0), out.dim(1), activation, stream());
}

void CudaBackend::gather_rows(TensorView out, ConstTensorView x, std::span<const int32_t> rows) {
  if (rows.empty()) return;
  auto* device_rows = static_cast<int32_t*>(keep(rows_buffer_, rows.size_bytes()));
  staging_.send(device_rows, rows.data(), rows.size_bytes(), stream());
  cuda::gather_rows(out.f32(), x.f32(), device_rows, static_cast<int64_t>(rows.size()), x.dim(1), stream());
}

void CudaBackend::softcap(TensorView x, float c) { cuda::softcap(x.f32(), x.n_elements(), c, stream()); }

}  // namespace minillm::cuda
