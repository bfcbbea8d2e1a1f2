// pack.h - weights as the CPU keeps them: tensors stacked along their rows, each as panels (panel.h) of its own format, or as
// the rows of the file where they are only looked up.
// Memory: the bytes of the formats (q4_k and q5_k about 3% more) with the rows of a tensor padded to 16; one allocation.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/buffer.h"
#include "base/thread_pool.h"

namespace minillm::cpu {

/// One tensor of a weight.
struct Segment {
  Dtype dtype = Dtype::kF32;
  int64_t first_row = 0, n_rows = 0;
  const uint8_t* data = nullptr;
  int64_t stride = 0;  ///< Bytes of a panel, or of a row where the weight is only looked up.
};

class CpuWeight final : public PackedWeight {
 public:
  CpuWeight(int64_t rows, int64_t cols, WeightRole role, std::vector<Segment> segments, Buffer buffer);

  int64_t bytes() const noexcept override { return static_cast<int64_t>(buffer_.bytes()); }
  WeightRole role() const noexcept { return role_; }
  std::span<const Segment> segments() const noexcept { return segments_; }
  /// Row `row` in float32, exactly as dequantise_row gives it; out [K]. The role must not be kProduct.
  void look_up(int64_t row, float* out) const;

 private:
  WeightRole role_;
  std::vector<Segment> segments_;
  Buffer buffer_;
};

/// `w` as this backend packed it. Throws Error{kInvalidArgument} where another one did.
const CpuWeight& own(const PackedWeight& w);

/// Backend::pack. `allocate` gives 64-byte aligned memory.
std::unique_ptr<CpuWeight> pack_weight(std::span<const ConstTensorView> tensors, WeightRole role, std::optional<Dtype> convert_to,
                                       ThreadPool& pool, const std::function<Buffer(size_t)>& allocate);

/// Bytes of one panel of `dtype` over `k` values.
int64_t panel_bytes(Dtype dtype, int64_t k);

}  // namespace minillm::cpu
