// kv_cache.cpp - the transformers Cache interface over PagedCache.
// Every token is kept, sliding window or not; what a layer shows of them is layer_view.h's business.
// A forward pass advances all layers together; update() advances one at a time. So a row is as long as its longest layer,
// and `lag` says how many tokens each layer is behind.
#include "minillm/kv_cache.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "base/bytes.h"
#include "base/check.h"
#include "base/dtype.h"
#include "kv/layer_view.h"
#include "kv/paged_cache.h"

namespace minillm {
namespace {

KvShape shape_of(const ModelConfig& config, const KVCacheOptions& options) {
  const auto require = [](int64_t value, const char* what, int64_t low, int64_t high) {
    if (value < low || value > high)
      throw Error(ErrorCode::kInvalidArgument, "KVCache: ", what, " is ", value, ": expected ", low, " to ", high);
  };
  constexpr int64_t kMany = int64_t{1} << 24;  // Above every known model; products of three of these are checked below.
  require(config.n_layers, "n_layers", 1, kMany);
  require(config.n_kv_heads, "n_kv_heads", 1, kMany);
  require(config.head_dim, "head_dim", 1, kMany);
  require(options.batch_size, "batch_size", 1, kMany);
  require(options.max_length, "max_length", 0, std::numeric_limits<int32_t>::max());
  if (options.max_length == 0) require(config.context_length, "context_length", 1, std::numeric_limits<int32_t>::max());
  require(options.page_tokens, "page_tokens", 16, 1024);
  if (options.page_tokens % 16 != 0)
    throw Error(ErrorCode::kInvalidArgument, "KVCache: page_tokens is ", options.page_tokens, ": expected a multiple of 16");

  KvShape shape;
  shape.n_layers = config.n_layers;
  shape.n_kv_heads = config.n_kv_heads;
  shape.head_dim = config.head_dim;
  shape.page_tokens = options.page_tokens;
  shape.dtype = options.dtype.value_or(config.kv_dtype);
  if (!is_cache_dtype(shape.dtype))
    throw Error(ErrorCode::kUnsupported, "KVCache: dtype ", name_of(shape.dtype), ": expected ", kCacheDtypes);

  std::optional<uint64_t> bytes = 2 * block_bytes(shape.dtype) * static_cast<uint64_t>(shape.page_tokens);
  for (int64_t factor : {shape.n_layers, shape.n_kv_heads, shape.head_dim})
    if (bytes) bytes = checked_mul(*bytes, static_cast<uint64_t>(factor));
  shape.max_pages = options.batch_size * ceil_div(options.max_length > 0 ? options.max_length : config.context_length, shape.page_tokens);
  if (bytes) bytes = checked_mul(*bytes, static_cast<uint64_t>(shape.max_pages));
  if (!bytes || *bytes > uint64_t{1} << 62 || shape.max_pages > std::numeric_limits<int32_t>::max())
    throw Error(ErrorCode::kOutOfMemory, "KVCache: ", options.batch_size, " rows of this model do not fit any memory");
  return shape;
}

}  // namespace

struct KVCache::Impl {
  Impl(const ModelConfig& config, const KVCacheOptions& options)
      : device(options.device),
        max_length(options.max_length),
        row_limit(max_length > 0 ? max_length : config.context_length),
        paged(make_backend(device, {.n_threads = 1}), shape_of(config, options), options.batch_size, max_length > 0, row_limit),
        lag(static_cast<size_t>(config.n_layers), 0) {
    for (int64_t layer = 0; layer < config.n_layers; ++layer)
      views.push_back({.max_length = max_length, .window = config.layer_slides(layer) ? config.sliding_window : 0});
  }

  const KvShape& shape() const noexcept { return paged.storage().shape(); }

  int64_t longest_row() const {
    int64_t longest = 0;
    for (int64_t row = 0; row < paged.n_rows(); ++row) longest = std::max(longest, paged.length(row));
    return longest;
  }
  /// Tokens of `row` that `layer` holds.
  int64_t length(int64_t layer, int64_t row) const { return std::max<int64_t>(paged.length(row) - lag[static_cast<size_t>(layer)], 0); }
  void check_layer(int64_t layer) const {
    if (layer < 0 || layer >= shape().n_layers)
      throw Error(ErrorCode::kInvalidArgument, "KVCache: layer ", layer, ": expected 0 to ", shape().n_layers - 1);
  }
  void write(const float* k, const float* v, int64_t layer, int64_t row, int64_t first, int64_t n);
  void read(float* k, float* v, int64_t layer, int64_t row, const TokenRange& range) const;
  void reorder(std::span<const int64_t> indices, const char* caller);

  Device device;
  int64_t max_length;
  int64_t row_limit;  ///< Tokens.
  PagedCache paged;
  std::vector<int64_t> lag;      ///< [L]
  std::vector<LayerView> views;  ///< [L]
};

/// k and v are one row, [G, n, D]; they become tokens [first, first + n).
void KVCache::Impl::write(const float* k, const float* v, int64_t layer, int64_t row, int64_t first, int64_t n) {
  const auto [heads, dim, page_tokens] = std::tuple(shape().n_kv_heads, shape().head_dim, shape().page_tokens);
  std::vector<float> keys(static_cast<size_t>(std::min(n, page_tokens) * heads * dim)), values(keys.size());
  for (int64_t done = 0; done < n;) {
    const int64_t slot = (first + done) % page_tokens, count = std::min(n - done, page_tokens - slot);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t g = 0; g < heads; ++g) {
        const int64_t from = (g * n + done + i) * dim, to = (i * heads + g) * dim;
        std::copy_n(k + from, dim, keys.begin() + to);
        std::copy_n(v + from, dim, values.begin() + to);
      }
    const int32_t page = paged.pages(row)[static_cast<size_t>((first + done) / page_tokens)];
    paged.storage().write(layer, page, slot, {keys.data(), Dtype::kF32, {count, heads, dim}},
                          {values.data(), Dtype::kF32, {count, heads, dim}});
    done += count;
  }
}

/// Fills the first range.n tokens of k and v, [G, range.width, D].
void KVCache::Impl::read(float* k, float* v, int64_t layer, int64_t row, const TokenRange& range) const {
  const auto [heads, dim, page_tokens] = std::tuple(shape().n_kv_heads, shape().head_dim, shape().page_tokens);
  std::vector<float> keys(static_cast<size_t>(std::min(range.n, page_tokens) * heads * dim)), values(keys.size());
  for (int64_t done = 0; done < range.n;) {
    const int64_t slot = (range.first + done) % page_tokens, count = std::min(range.n - done, page_tokens - slot);
    const int32_t page = paged.pages(row)[static_cast<size_t>((range.first + done) / page_tokens)];
    paged.storage().read(layer, page, slot, {keys.data(), Dtype::kF32, {count, heads, dim}},
                         {values.data(), Dtype::kF32, {count, heads, dim}});
    for (int64_t i = 0; i < count; ++i)
      for (int64_t g = 0; g < heads; ++g) {
        const int64_t to = (g * range.width + done + i) * dim, from = (i * heads + g) * dim;
        std::copy_n(keys.begin() + from, dim, k + to);
        std::copy_n(values.begin() + from, dim, v + to);
      }
    done += count;
  }
}

void KVCache::Impl::reorder(std::span<const int64_t> indices, const char* caller) {
  if (indices.empty()) throw Error(ErrorCode::kInvalidArgument, "KVCache: ", caller, ": no rows named");
  for (int64_t index : indices)
    if (index < 0 || index >= paged.n_rows())
      throw Error(ErrorCode::kInvalidArgument, "KVCache: ", caller, ": row ", index, ": expected 0 to ", paged.n_rows() - 1);
  const auto n_pages = checked_mul(indices.size(), static_cast<uint64_t>(ceil_div(row_limit, shape().page_tokens)));
  if (!n_pages || *n_pages > static_cast<uint64_t>(std::numeric_limits<int32_t>::max()))
    throw Error(ErrorCode::kCapacity, "KVCache: ", caller, ": ", indices.size(), " rows are too many");
  paged.grow_pool(static_cast<int64_t>(*n_pages));
  paged.reorder(indices);
}

KVCache::KVCache(const ModelConfig& config, const KVCacheOptions& options) : impl_(std::make_unique<Impl>(config, options)) {}
KVCache::~KVCache() = default;
KVCache::KVCache(KVCache&&) noexcept = default;
KVCache& KVCache::operator=(KVCache&&) noexcept = default;

std::pair<Tensor, Tensor> KVCache::update(const Tensor& k, const Tensor& v, int64_t layer) {
  Impl& c = *impl_;
  c.check_layer(layer);
  const int64_t n_rows = batch_size(), heads = c.shape().n_kv_heads, dim = c.shape().head_dim;
  for (const Tensor* tensor : {&k, &v}) {
    const std::vector<int64_t>& s = tensor->shape();
    if (s.size() != 4 || s[0] != n_rows || s[1] != heads || s[3] != dim || s != k.shape()) {
      std::string got;
      for (int64_t n : s) got += (got.empty() ? "" : ", ") + std::to_string(n);
      throw Error(ErrorCode::kInvalidArgument, "KVCache: update with ", tensor == &k ? "k" : "v", " of shape [", got, "]: expected [",
                  n_rows, ", ", heads, ", n, ", dim, "], the same for k and v");
    }
    if (tensor->dtype() == Dtype::kI32) throw Error(ErrorCode::kInvalidArgument, "KVCache: update with a tensor of integers");
  }
  const int64_t held = c.length(layer, 0), n_new = k.dim(2), total = held + n_new;
  for (int64_t row = 1; row < n_rows; ++row)
    if (c.paged.length(row) != c.paged.length(0))
      throw Error(ErrorCode::kInvalidArgument, "KVCache: update of rows of unequal length: row 0 has ", c.paged.length(0), " tokens, row ",
                  row, " has ", c.paged.length(row));

  const TokenRange range = c.views[static_cast<size_t>(layer)].shown(held, n_new);
  std::pair<Tensor, Tensor> result{Tensor({n_rows, heads, range.width, dim}), Tensor({n_rows, heads, range.width, dim})};
  const Tensor keys = k.to_float32(), values = v.to_float32();
  const int64_t before = c.paged.length(0), after = std::max(before, total);
  try {
    for (int64_t row = 0; row < n_rows; ++row) c.paged.make_writable(row, held, total);
  } catch (...) {
    for (int64_t row = 0; row < n_rows; ++row) c.paged.truncate(row, before);
    throw;
  }
  for (int64_t row = 0; row < n_rows; ++row) {
    const int64_t from = row * heads * n_new * dim, to = row * heads * range.width * dim;
    c.write(keys.values<float>().data() + from, values.values<float>().data() + from, layer, row, held, n_new);
    c.paged.advance(row, after - before);
    c.read(result.first.values<float>().data() + to, result.second.values<float>().data() + to, layer, row, range);
  }
  for (int64_t& lag : c.lag) lag += after - before;
  c.lag[static_cast<size_t>(layer)] = after - total;
  return result;
}

std::pair<Tensor, Tensor> KVCache::read(int64_t layer, int64_t row) const {
  impl_->check_layer(layer);
  const int64_t heads = impl_->shape().n_kv_heads, dim = impl_->shape().head_dim, n = impl_->length(layer, row);
  std::pair<Tensor, Tensor> result{Tensor({heads, n, dim}), Tensor({heads, n, dim})};
  impl_->read(result.first.values<float>().data(), result.second.values<float>().data(), layer, row, {0, n, n});
  return result;
}

int64_t KVCache::get_seq_length(int64_t layer) const {
  impl_->check_layer(layer);
  return std::max<int64_t>(impl_->longest_row() - impl_->lag[static_cast<size_t>(layer)], 0);
}

std::vector<int64_t> KVCache::lengths() const {
  std::vector<int64_t> lengths;
  for (int64_t row = 0; row < batch_size(); ++row) lengths.push_back(impl_->paged.length(row));
  return lengths;
}

int64_t KVCache::capacity() const noexcept { return impl_->max_length > 0 ? impl_->max_length : -1; }

int64_t KVCache::get_max_length() const noexcept {
  int64_t longest = -1;
  for (const LayerView& view : impl_->views) longest = std::max(longest, view.get_max_length());
  return longest;
}

int64_t KVCache::get_max_length(int64_t layer) const {
  impl_->check_layer(layer);
  return impl_->views[static_cast<size_t>(layer)].get_max_length();
}

std::pair<int64_t, int64_t> KVCache::get_mask_sizes(int64_t query_length, int64_t layer) const {
  if (query_length < 0) throw Error(ErrorCode::kInvalidArgument, "KVCache: get_mask_sizes of ", query_length, " tokens");
  const int64_t seen = get_seq_length(layer);
  return impl_->views[static_cast<size_t>(layer)].mask_sizes(seen, query_length);
}

void KVCache::crop(int64_t n) {
  Impl& c = *impl_;
  const int64_t longest = c.longest_row();
  const auto cropped = [n](int64_t length) { return n >= 0 ? std::min(length, n) : std::max<int64_t>(length + std::max(n, -length), 0); };
  for (int64_t& lag : c.lag) lag = cropped(longest) - cropped(std::max<int64_t>(longest - lag, 0));
  for (int64_t row = 0; row < batch_size(); ++row) c.paged.truncate(row, cropped(c.paged.length(row)));
}

void KVCache::reorder_cache(std::span<const int64_t> indices) { impl_->reorder(indices, "reorder_cache"); }

void KVCache::batch_repeat_interleave(int64_t repeats) {
  constexpr int64_t kMost = int64_t{1} << 24;
  if (repeats < 1 || repeats > kMost / batch_size())
    throw Error(ErrorCode::kInvalidArgument, "KVCache: batch_repeat_interleave by ", repeats, ": expected 1 to ", kMost / batch_size());
  std::vector<int64_t> indices(static_cast<size_t>(batch_size() * repeats));
  for (size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<int64_t>(i) / repeats;
  impl_->reorder(indices, "batch_repeat_interleave");
}

void KVCache::batch_select_indices(std::span<const int64_t> indices) { impl_->reorder(indices, "batch_select_indices"); }

void KVCache::reset() {
  impl_->paged.reset();
  std::ranges::fill(impl_->lag, 0);
}

int64_t KVCache::n_layers() const noexcept { return impl_->shape().n_layers; }
bool KVCache::is_sliding(int64_t layer) const {
  impl_->check_layer(layer);
  return impl_->views[static_cast<size_t>(layer)].window > 0;
}
bool KVCache::is_preallocated() const noexcept { return impl_->max_length > 0; }
int64_t KVCache::batch_size() const noexcept { return impl_->paged.n_rows(); }
Dtype KVCache::dtype() const noexcept { return impl_->shape().dtype; }
const Device& KVCache::device() const noexcept { return impl_->device; }
int64_t KVCache::bytes() const noexcept { return impl_->paged.storage().bytes(); }
PagedCache& KVCache::paged() noexcept { return impl_->paged; }
const PagedCache& KVCache::paged() const noexcept { return impl_->paged; }

}  // namespace minillm
