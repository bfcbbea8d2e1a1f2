// padding.cpp - attention masks as lengths.
#include "padding.h"

#include <algorithm>
#include <numeric>

#include "minillm/error.h"

namespace minillm::python {
namespace {

bool moves_nothing(const std::vector<int64_t>& first) {
  return std::ranges::all_of(first, [](int64_t column) { return column == 0; });
}

}  // namespace

Tensor Padding::to_front(const Tensor& ids) const {
  if (moves_nothing(first)) return ids;
  Tensor moved = ids.clone();
  const auto width = static_cast<size_t>(ids.dim(1));
  for (size_t row = 0; row < first.size(); ++row)
    std::ranges::copy(ids.values<int32_t>().subspan(row * width + static_cast<size_t>(first[row]), static_cast<size_t>(lengths[row])),
                      moved.values<int32_t>().begin() + static_cast<std::ptrdiff_t>(row * width));
  return moved;
}

void Padding::to_back(Tensor& logits) const {
  const auto width = static_cast<size_t>(logits.dim(1)), vocab = static_cast<size_t>(logits.dim(2));
  for (size_t row = 0; row < first.size(); ++row) {
    const std::span<float> rows = logits.values<float>().subspan(row * width * vocab, width * vocab);
    const std::span<float> valid = rows.first(static_cast<size_t>(lengths[row]) * vocab);
    const auto shift = static_cast<size_t>(first[row]) * vocab;
    std::copy_backward(valid.begin(), valid.end(), valid.end() + static_cast<std::ptrdiff_t>(shift));
    std::ranges::fill(rows.first(shift), 0.0f);
  }
}

Padding padding_of(const Tensor& mask, const Tensor& ids, const std::vector<int64_t>& cached) {
  const auto rank2 = [](const Tensor& tensor) { return tensor.shape().size() == 2; };
  if (!rank2(mask) || !rank2(ids) || mask.dim(0) != ids.dim(0) || mask.dim(1) < ids.dim(1))
    throw Error(ErrorCode::kInvalidArgument,
                "attention_mask: expected the shape of input_ids, [batch, tokens], or one that is wider by the cached tokens");
  const int64_t width = mask.dim(1), past = width - ids.dim(1);
  Padding padding;
  for (int64_t row = 0; row < mask.dim(0); ++row) {
    const std::span<const int32_t> ones = mask.values<int32_t>().subspan(static_cast<size_t>(row * width), static_cast<size_t>(width));
    for (const int32_t value : ones)
      if (value != 0 && value != 1)
        throw Error(ErrorCode::kInvalidArgument, "attention_mask: row ", row, " holds ", value, ", expected 0 and 1");
    const std::span<const int32_t> before = ones.first(static_cast<size_t>(past)), now = ones.subspan(static_cast<size_t>(past));
    const int64_t n_before = std::accumulate(before.begin(), before.end(), int64_t{0});
    if (past > 0 && (cached.empty() || n_before != cached[static_cast<size_t>(row)]))
      throw Error(ErrorCode::kInvalidArgument, "attention_mask: row ", row, " has ", n_before,
                  " ones before the new tokens, the cache holds ", cached.empty() ? 0 : cached[static_cast<size_t>(row)]);
    const auto first = std::ranges::find(now, 1);
    const auto n = std::accumulate(now.begin(), now.end(), int64_t{0});
    const int64_t column = n > 0 ? first - now.begin() : 0;
    if (!std::all_of(now.begin() + column, now.begin() + column + n, [](int32_t one) { return one == 1; }))
      throw Error(ErrorCode::kInvalidArgument, "attention_mask: row ", row,
                  " has a hole: padding may stand left or right of the tokens only");
    padding.first.push_back(column);
    padding.lengths.push_back(n);
  }
  return padding;
}

}  // namespace minillm::python
