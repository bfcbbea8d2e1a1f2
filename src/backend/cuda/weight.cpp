// weight.cpp - from a file's blocks to codes, scales and offsets in separate runs, which a warp reads in whole lines.
#include "backend/cuda/weight.h"

#include <cstring>

#include "base/check.h"
#include "base/dequantise.h"
#include "base/half.h"
#include "base/quant_block.h"

namespace minillm::cuda {
namespace {

using Codes = DeviceTensor::Codes;

template <typename T>
const T* upload(Backend& backend, CudaWeight& weight, const std::vector<T>& values) {
  Buffer buffer = backend.allocate(values.size() * sizeof(T));
  backend.upload(buffer.data(), values.data(), values.size() * sizeof(T));
  weight.buffers.push_back(std::move(buffer));
  return static_cast<const T*>(weight.buffers.back().data());
}

void pack_blocks(Backend& backend, CudaWeight& weight, DeviceTensor& tensor, ConstTensorView view) {
  const QuantFormat format = quant_format(view.dtype);
  const int64_t block = block_elements(view.dtype), n_blocks = tensor.rows * tensor.cols / block, groups = block / format.group;
  const bool nibbles = format.code_bits == 4;
  std::vector<uint8_t> codes(static_cast<size_t>(nibbles ? n_blocks * block / 2 : n_blocks * block));
  std::vector<float> scales(static_cast<size_t>(n_blocks * groups)), offsets(format.has_offset ? scales.size() : 0);
  QuantBlock parts;
  for (int64_t b = 0; b < n_blocks; ++b) {
    read_block(view.dtype, static_cast<const uint8_t*>(view.data) + static_cast<size_t>(b) * block_bytes(view.dtype), parts);
    for (int64_t i = 0; i < block; ++i) {
      const uint8_t code = parts.codes[static_cast<size_t>(i)];
      const size_t at = static_cast<size_t>(b * block + i);
      if (!nibbles)
        codes[at] = code;
      else if (i % 2 == 0)
        codes[at / 2] = code;
      else
        codes[at / 2] = static_cast<uint8_t>(codes[at / 2] | code << 4);
    }
    for (int64_t g = 0; g < groups; ++g) {
      scales[static_cast<size_t>(b * groups + g)] = group_scale(format, parts, static_cast<int>(g));
      if (format.has_offset) offsets[static_cast<size_t>(b * groups + g)] = group_offset(format, parts, static_cast<int>(g));
    }
  }
  tensor.codes = nibbles ? Codes::kNibbles : Codes::kBytes;
  tensor.data = upload(backend, weight, codes);
  tensor.scale = upload(backend, weight, scales);
  if (format.has_offset) tensor.offset = upload(backend, weight, offsets);
  tensor.group = format.group;
  tensor.zero = static_cast<float>(format.zero);
}

void pack_floats(Backend& backend, CudaWeight& weight, DeviceTensor& tensor, ConstTensorView view, Dtype as) {
  const size_t n = static_cast<size_t>(tensor.rows * tensor.cols);
  tensor.codes = as == Dtype::kF32 ? Codes::kF32 : as == Dtype::kF16 ? Codes::kF16 : Codes::kBF16;
  if (as == view.dtype) {
    std::vector<std::byte> raw(n * block_bytes(as));
    std::memcpy(raw.data(), view.data, raw.size());
    tensor.data = upload(backend, weight, raw);
    return;
  }
  std::vector<float> values(n);
  const size_t stride = row_bytes(view.dtype, tensor.cols);
  for (int64_t r = 0; r < tensor.rows; ++r)
    dequantise_row(view.dtype, static_cast<const std::byte*>(view.data) + static_cast<size_t>(r) * stride, values.data() + r * tensor.cols,
                   tensor.cols);
  if (as == Dtype::kF32) {
    tensor.data = upload(backend, weight, values);
    return;
  }
  std::vector<uint16_t> narrow(n);
  for (size_t i = 0; i < n; ++i) narrow[i] = as == Dtype::kF16 ? float_to_half(values[i]) : float_to_bfloat16(values[i]);
  tensor.data = upload(backend, weight, narrow);
}

}  // namespace

int64_t CudaWeight::bytes() const noexcept {
  int64_t total = 0;
  for (const Buffer& buffer : buffers) total += static_cast<int64_t>(buffer.bytes());
  return total;
}

std::unique_ptr<CudaWeight> pack_weight(Backend& backend, std::span<const ConstTensorView> tensors, std::optional<Dtype> convert_to) {
  if (tensors.empty()) throw Error(ErrorCode::kInvalidArgument, "pack: no tensors");
  if (convert_to && *convert_to != Dtype::kF32 && *convert_to != Dtype::kF16 && *convert_to != Dtype::kBF16)
    throw Error(ErrorCode::kUnsupported, "pack: cannot convert to ", name_of(*convert_to), ": expected f32, f16 or bf16");
  int64_t n_rows = 0;
  for (const ConstTensorView& view : tensors) {
    if (view.rank != 2) throw Error(ErrorCode::kInvalidArgument, "pack: a weight of rank ", view.rank, ": expected [N, K]");
    if (view.dim(1) != tensors[0].dim(1))
      throw Error(ErrorCode::kInvalidArgument, "pack: rows of ", view.dim(1), " elements stacked on rows of ", tensors[0].dim(1));
    if (view.dtype == Dtype::kI32) throw Error(ErrorCode::kUnsupported, "pack: dtype ", name_of(view.dtype));
    if (view.dim(1) % 8 != 0) throw Error(ErrorCode::kUnsupported, "pack: rows of ", view.dim(1), " elements; cuda takes multiples of 8");
    n_rows += view.dim(0);
  }
  auto weight = std::make_unique<CudaWeight>(n_rows, tensors[0].dim(1));
  int64_t next = 0;
  for (const ConstTensorView& view : tensors) {
    DeviceTensor tensor;
    tensor.first_row = next;
    tensor.rows = view.dim(0);
    tensor.cols = view.dim(1);
    if (is_quantised(view.dtype) && !convert_to)
      pack_blocks(backend, *weight, tensor, view);
    else
      pack_floats(backend, *weight, tensor, view, convert_to.value_or(view.dtype));
    weight->tensors.push_back(tensor);
    next += tensor.rows;
  }
  return weight;
}

}  // namespace minillm::cuda
