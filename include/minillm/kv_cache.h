// kv_cache.h - keys and values of the tokens already seen, for a batch of rows of independent length.
// The interface is the transformers Cache's (5.x); at this surface K and V are [batch, G, tokens, D], whatever the storage.
// Memory:  2 * L * G * D * tokens * element bytes, in pages; taken as rows grow, or all at once with max_length.
// Threads: one writer; readers only between calls.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "minillm/config.h"
#include "minillm/tensor.h"

namespace minillm {

class PagedCache;
struct SavedCache;

struct KVCacheOptions {
  int64_t batch_size = 1;
  int64_t max_length = 0;  ///< Tokens a row, allocated now and never exceeded; 0 grows on demand up to the model's context.
  Device device = {};
  std::optional<Dtype> dtype = {};  ///< kF32, kF16, kBF16 or kF8; otherwise the config's kv_dtype.
  int64_t page_tokens = 64;         ///< A multiple of 16 from 16 to 1024.
};

class KVCache {
 public:
  /// Throws Error{kInvalidArgument} for a size out of range, Error{kUnsupported} for a dtype, Error{kOutOfMemory}.
  explicit KVCache(const ModelConfig& config, const KVCacheOptions& options = {});
  ~KVCache();
  KVCache(KVCache&&) noexcept;
  KVCache& operator=(KVCache&&) noexcept;

  /// Appends k and v, [batch, G, n, D], to `layer` and returns the K and V that attention reads in this step, as float32
  /// [batch, G, tokens, D]: what the transformers layer class shows that this layer stands for. Without max_length all tokens
  /// (DynamicLayer), or in a sliding layer the last window - 1 and the new ones (DynamicSlidingWindowLayer); with max_length as many
  /// slots, zeros behind the tokens (StaticLayer, StaticSlidingWindowLayer). Every token is kept, whatever is shown.
  /// Rows of unequal length cannot be one tensor: throws Error{kInvalidArgument} then, as for a wrong shape or layer.
  /// Throws Error{kCapacity} past max_length; the cache is unchanged then.
  std::pair<Tensor, Tensor> update(const Tensor& k, const Tensor& v, int64_t layer);
  /// K and V of one layer and row, [G, tokens, D].
  std::pair<Tensor, Tensor> read(int64_t layer, int64_t row) const;

  /// Tokens seen by `layer`: of the longest row.
  int64_t get_seq_length(int64_t layer = 0) const;
  /// Tokens in each row, [batch].
  std::vector<int64_t> lengths() const;
  /// Tokens that `layer` can show: max_length, the sliding window, or the smaller of both; -1 without a bound.
  int64_t get_max_length(int64_t layer) const;
  /// The largest of all layers.
  int64_t get_max_length() const noexcept;
  /// Tokens that a row may hold, whatever its layers show: max_length; -1 without a bound.
  int64_t capacity() const noexcept;
  /// (length of the keys that a query of `query_length` tokens meets in what update() returns, position of the first of them).
  std::pair<int64_t, int64_t> get_mask_sizes(int64_t query_length, int64_t layer = 0) const;
  /// n >= 0: every row keeps its first n tokens (no-op where shorter). n < 0: every row loses its -n newest.
  /// (transformers 5.18 and newer takes only n <= 0, where 0 removes nothing; in Python so does ours.)
  void crop(int64_t n);
  /// Row i becomes the old row indices[i] (beam search); pages are shared until written. Throws Error{kInvalidArgument}.
  void reorder_cache(std::span<const int64_t> indices);
  void batch_repeat_interleave(int64_t repeats);                ///< Rows a, b become a, a, b, b.
  void batch_select_indices(std::span<const int64_t> indices);  ///< Keeps the named rows, in that order.
  void reset();                                                 ///< Empty rows; memory is returned unless preallocated.

  /// Writes rows, lengths and `attachment` (bytes of the caller's) to `path`, versioned and checksummed; under another name first, then
  /// renamed, so that `path` is the old file or the whole new one. `fingerprint` (at most 64 characters) says which model the keys and
  /// values belong to: MiniLLM::fingerprint(). Throws Error{kDevice}, and Error{kInvalidArgument} where layers differ in length.
  void save(const std::string& path, const std::string& fingerprint, std::string_view attachment = {}) const;
  /// What save() wrote: generation goes on with the same bits. Rows and dtype are the file's; device, max_length and page_tokens those
  /// of `options`. Throws Error{kNotFound}, Error{kCorruptFile} for a damaged or cut file, Error{kUnsupported} for another version,
  /// Error{kInvalidArgument} for another model's, Error{kCapacity} for rows longer than the context.
  static SavedCache load(const std::string& path, const ModelConfig& config, const std::string& fingerprint,
                         const KVCacheOptions& options = {});

  int64_t n_layers() const noexcept;
  bool is_sliding(int64_t layer) const;
  bool is_preallocated() const noexcept;  ///< With max_length.
  int64_t batch_size() const noexcept;
  Dtype dtype() const noexcept;
  const Device& device() const noexcept;
  int64_t bytes() const noexcept;  ///< Memory held now.

  /// For the layers of this library: the pages behind the interface.
  PagedCache& paged() noexcept;
  const PagedCache& paged() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct SavedCache {
  KVCache cache;
  std::string attachment;
};

}  // namespace minillm
