// weight.cpp - from a file's blocks to codes, scales and offsets in separate runs, which a warp reads in whole lines.
#include "backend/cuda/weight.h"

#include <cstring>

#include "backend/cuda/fragment.h"
#include "base/bytes.h"
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

/// Formats whose scales are float16 in the file.
bool has_half_scales(Dtype dtype) { return !quant_format(dtype).has_group_scales; }

/// Codes, scales and offsets of stacked views of one quantised dtype, in the order of fragment.h.
class BlockPacker {
 public:
  BlockPacker(Dtype dtype, int64_t rows, int64_t cols)
      : dtype_(dtype), format_(quant_format(dtype)), n_units_(ceil_div(cols, kUnitColumns)), nibbles_(format_.code_bits == 4) {
    const int64_t n = ceil_div(rows, kTileRows) * kTileRows * n_units_ * kUnitColumns;
    codes_.resize(static_cast<size_t>(nibbles_ ? n / 2 : n));
    const size_t n_groups = static_cast<size_t>(n / format_.group);
    (has_half_scales(dtype) ? half_scales_.resize(n_groups) : scales_.resize(n_groups));
    if (format_.has_offset) (has_half_scales(dtype) ? half_offsets_.resize(n_groups) : offsets_.resize(n_groups));
  }

  /// `first`: the stack's row that row 0 of the view becomes.
  void add(ConstTensorView view, int64_t first) {
    const int64_t block = block_elements(dtype_), n_blocks = view.dim(1) / block;
    QuantBlock parts;
    for (int64_t r = 0; r < view.dim(0); ++r)
      for (int64_t b = 0; b < n_blocks; ++b) {
        const size_t at = static_cast<size_t>(r * n_blocks + b) * block_bytes(dtype_);
        read_block(dtype_, static_cast<const uint8_t*>(view.data) + at, parts);
        put(parts, first + r, b * block, block);
      }
  }

  DeviceTensor upload_to(Backend& backend, CudaWeight& weight) const {
    DeviceTensor tensor;
    tensor.codes = nibbles_ ? Codes::kNibbles : Codes::kBytes;
    tensor.stride = n_units_ * kUnitColumns;
    tensor.data = upload(backend, weight, codes_);
    tensor.half_scales = has_half_scales(dtype_);
    tensor.scale = tensor.half_scales ? static_cast<const void*>(upload(backend, weight, half_scales_)) : upload(backend, weight, scales_);
    if (format_.has_offset)
      tensor.offset =
          tensor.half_scales ? static_cast<const void*>(upload(backend, weight, half_offsets_)) : upload(backend, weight, offsets_);
    tensor.group = format_.group;
    tensor.zero = static_cast<float>(format_.zero);
    return tensor;
  }

 private:
  void put(const QuantBlock& parts, int64_t row, int64_t k, int64_t n) {
    for (int64_t i = 0; i < n; i += 8) {
      const uint8_t* codes = &parts.codes[static_cast<size_t>(i)];
      if (nibbles_) {
        uint8_t* to = &codes_[static_cast<size_t>(4 * nibble_word(row, k + i, n_units_))];
        for (int j = 0; j < 4; ++j) to[j] = static_cast<uint8_t>(codes[2 * j] | codes[2 * j + 1] << 4);
      } else {
        std::memcpy(&codes_[static_cast<size_t>(code_byte(row, k + i, n_units_))], codes, 4);
        std::memcpy(&codes_[static_cast<size_t>(code_byte(row, k + i + 4, n_units_))], codes + 4, 4);
      }
    }
    for (int64_t g = 0; g < n / format_.group; ++g) {
      const auto at = static_cast<size_t>(scale_index(row, k + g * format_.group, n_units_, format_.group));
      const int group = static_cast<int>(g);
      if (half_scales_.empty())
        scales_[at] = group_scale(format_, parts, group);
      else
        half_scales_[at] = parts.d;
      if (!offsets_.empty()) offsets_[at] = group_offset(format_, parts, group);
      if (!half_offsets_.empty()) half_offsets_[at] = parts.m;
    }
  }

  Dtype dtype_;
  QuantFormat format_;
  int64_t n_units_;
  bool nibbles_;
  std::vector<uint8_t> codes_;
  std::vector<float> scales_, offsets_;
  std::vector<uint16_t> half_scales_, half_offsets_;
};

/// Rows of any float or quantised dtype, stored as `as`, `stride` elements apart.
class FloatPacker {
 public:
  FloatPacker(Dtype as, int64_t rows, int64_t cols)
      : as_(as),
        stride_(ceil_div(cols, int64_t{8}) * 8),
        row_(static_cast<size_t>(cols)),
        bytes_(static_cast<size_t>(rows * stride_) * block_bytes(as)) {}

  void add(ConstTensorView view, int64_t first) {
    const int64_t cols = view.dim(1);
    const size_t from_bytes = row_bytes(view.dtype, cols), to_bytes = static_cast<size_t>(stride_) * block_bytes(as_);
    for (int64_t r = 0; r < view.dim(0); ++r) {
      const std::byte* from = static_cast<const std::byte*>(view.data) + static_cast<size_t>(r) * from_bytes;
      std::byte* to = bytes_.data() + static_cast<size_t>(first + r) * to_bytes;
      if (view.dtype == as_) {
        std::memcpy(to, from, from_bytes);
        continue;
      }
      dequantise_row(view.dtype, from, row_.data(), cols);
      if (as_ == Dtype::kF32) {
        std::memcpy(to, row_.data(), row_.size() * sizeof(float));
        continue;
      }
      auto* narrow = reinterpret_cast<uint16_t*>(to);
      for (size_t i = 0; i < row_.size(); ++i) narrow[i] = as_ == Dtype::kF16 ? float_to_half(row_[i]) : float_to_bfloat16(row_[i]);
    }
  }

  DeviceTensor upload_to(Backend& backend, CudaWeight& weight) const {
    DeviceTensor tensor;
    tensor.codes = as_ == Dtype::kF32 ? Codes::kF32 : as_ == Dtype::kF16 ? Codes::kF16 : Codes::kBF16;
    tensor.stride = stride_;
    tensor.data = upload(backend, weight, bytes_);
    return tensor;
  }

 private:
  Dtype as_;
  int64_t stride_;
  std::vector<float> row_;
  std::vector<std::byte> bytes_;
};

/// Packs stacked views that share a storage type as one tensor, so that one kernel reads them.
template <typename Packer>
DeviceTensor pack_run(Backend& backend, CudaWeight& weight, Dtype as, std::span<const ConstTensorView> views) {
  int64_t rows = 0;
  for (const ConstTensorView& view : views) rows += view.dim(0);
  Packer packer(as, rows, views[0].dim(1));
  int64_t first = 0;
  for (const ConstTensorView& view : views) {
    packer.add(view, first);
    first += view.dim(0);
  }
  DeviceTensor tensor = packer.upload_to(backend, weight);
  tensor.rows = rows;
  tensor.cols = views[0].dim(1);
  return tensor;
}

}  // namespace

const CudaWeight& own(const PackedWeight& w) {
  const auto* weight = dynamic_cast<const CudaWeight*>(&w);
  if (weight == nullptr) throw Error(ErrorCode::kInvalidArgument, "cuda: the weight was packed by another backend");
  return *weight;
}

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
    if (view.dtype == Dtype::kI32 || view.dtype == Dtype::kF8) throw Error(ErrorCode::kUnsupported, "pack: dtype ", name_of(view.dtype));
    n_rows += view.dim(0);
  }
  auto weight = std::make_unique<CudaWeight>(n_rows, tensors[0].dim(1));
  int64_t next = 0;
  for (size_t begin = 0; begin < tensors.size();) {
    const Dtype as = convert_to.value_or(tensors[begin].dtype);
    size_t end = begin + 1;
    while (end < tensors.size() && convert_to.value_or(tensors[end].dtype) == as) ++end;
    const auto run = tensors.subspan(begin, end - begin);
    DeviceTensor tensor =
        is_quantised(as) ? pack_run<BlockPacker>(backend, *weight, as, run) : pack_run<FloatPacker>(backend, *weight, as, run);
    tensor.first_row = next;
    next += tensor.rows;
    weight->tensors.push_back(tensor);
    begin = end;
  }
  return weight;
}

}  // namespace minillm::cuda
