// saved_cache.cpp - KVCache::save and KVCache::load: rows of the cache to a file (cache_file.h) and back.
// Values pass through float32, which holds each storage type exactly, so a loaded cache continues with the same bits.
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "base/bytes.h"
#include "base/dequantise.h"
#include "kv/cache_file.h"
#include "kv/paged_cache.h"
#include "minillm/kv_cache.h"

namespace minillm {
namespace {

/// Float32 values of K or V of a run of tokens, and the same as stored.
class Run {
 public:
  Run(Dtype dtype, int64_t token_elements)
      : dtype_(dtype),
        values_(static_cast<size_t>(CacheFileHeader::kRunTokens * token_elements)),
        stored_(values_.size() * block_bytes(dtype)) {}

  float* values() noexcept { return values_.data(); }
  std::span<std::byte> stored(int64_t n) { return std::span(stored_).first(static_cast<size_t>(n) * block_bytes(dtype_)); }
  void narrow(int64_t n) { narrow_row(dtype_, stored_.data(), values_.data(), n); }
  void widen(int64_t n) { dequantise_row(dtype_, stored_.data(), values_.data(), n); }

 private:
  Dtype dtype_;
  std::vector<float> values_;
  std::vector<std::byte> stored_;
};

/// Calls f(page, slot, n) for pieces of a run [first, first + n) that lie in one page each.
template <typename F>
void for_pages(const PagedCache& cache, int64_t row, int64_t first, int64_t n, F&& f) {
  const int64_t page_tokens = cache.storage().shape().page_tokens;
  for (int64_t done = 0; done < n;) {
    const int64_t slot = (first + done) % page_tokens, count = std::min(n - done, page_tokens - slot);
    f(cache.pages(row)[static_cast<size_t>((first + done) / page_tokens)], slot, done, count);
    done += count;
  }
}

void check_fingerprint(const std::string& fingerprint) {
  if (fingerprint.size() > CacheFileHeader::kFingerprintBytes || fingerprint.find('\0') != std::string::npos)
    throw Error(ErrorCode::kInvalidArgument, "KVCache: a fingerprint of ", fingerprint.size(), " characters: expected at most ",
                CacheFileHeader::kFingerprintBytes, ", none of them zero");
}

void check_model(const CacheFileHeader& header, const ModelConfig& config, const std::string& fingerprint, const std::string& path) {
  if (header.n_layers != config.n_layers || header.n_kv_heads != config.n_kv_heads || header.head_dim != config.head_dim)
    throw Error(ErrorCode::kInvalidArgument, path, ": saved from another model: ", header.n_layers, " layers of ", header.n_kv_heads,
                " heads of ", header.head_dim, ", this one has ", config.n_layers, " of ", config.n_kv_heads, " of ", config.head_dim);
  if (header.fingerprint != fingerprint)
    throw Error(ErrorCode::kInvalidArgument, path, ": saved from another model: the fingerprints differ");
}

/// The rows' lengths, checked against the size of the file before anything is allocated for them.
std::vector<uint64_t> read_lengths(CacheFileReader& file) {
  const CacheFileHeader& header = file.header();
  const uint64_t n_rows = header.n_rows;
  if (n_rows == 0 || n_rows > header.body_bytes / sizeof(uint64_t)) file.corrupt(std::to_string(n_rows) + " rows");
  std::vector<uint64_t> lengths(n_rows);
  file.read(std::as_writable_bytes(std::span(lengths)));
  std::optional<uint64_t> total = 0;
  for (const uint64_t length : lengths)
    if (total) total = checked_add(*total, length);
  uint64_t token_bytes = 2 * block_bytes(header.dtype);
  for (const uint64_t factor : {header.n_layers, header.n_kv_heads, header.head_dim})  // Equal to the model's, which are checked.
    token_bytes *= factor;
  if (total) total = checked_mul(*total, token_bytes);
  if (total) total = checked_add(*total, header.attachment_bytes);
  if (total) total = checked_add(*total, n_rows * sizeof(uint64_t));
  if (total != header.body_bytes) file.corrupt("its rows do not add up to its size");
  return lengths;
}

}  // namespace

void KVCache::save(const std::string& path, const std::string& fingerprint, std::string_view attachment) const {
  check_fingerprint(fingerprint);
  const KvShape& shape = paged().storage().shape();
  for (int64_t layer = 1; layer < shape.n_layers; ++layer)
    if (get_seq_length(layer) != get_seq_length(0))
      throw Error(ErrorCode::kInvalidArgument, "KVCache: save: layer ", layer, " holds ", get_seq_length(layer), " tokens, layer 0 holds ",
                  get_seq_length(0));
  CacheFileWriter file(path);
  for (const int64_t length : lengths()) {
    const auto n = static_cast<uint64_t>(length);
    file.write(std::as_bytes(std::span(&n, 1)));
  }
  file.write(std::as_bytes(std::span(attachment)));
  const int64_t token = shape.n_kv_heads * shape.head_dim;
  Run k(shape.dtype, token), v(shape.dtype, token);
  for (int64_t row = 0; row < batch_size(); ++row)
    for (int64_t layer = 0; layer < shape.n_layers; ++layer)
      for (int64_t first = 0; first < paged().length(row); first += CacheFileHeader::kRunTokens) {
        const int64_t n = std::min(CacheFileHeader::kRunTokens, paged().length(row) - first);
        for_pages(paged(), row, first, n, [&](int32_t page, int64_t slot, int64_t done, int64_t count) {
          const auto view = [&](Run& run) {
            return TensorView(run.values() + done * token, Dtype::kF32, {count, shape.n_kv_heads, shape.head_dim});
          };
          paged().storage().read(layer, page, slot, view(k), view(v));
        });
        for (Run* run : {&k, &v}) {
          run->narrow(n * token);
          file.write(run->stored(n * token));
        }
      }
  file.commit({.dtype = shape.dtype,
               .fingerprint = fingerprint,
               .n_layers = static_cast<uint32_t>(shape.n_layers),
               .n_kv_heads = static_cast<uint32_t>(shape.n_kv_heads),
               .head_dim = static_cast<uint32_t>(shape.head_dim),
               .n_rows = static_cast<uint32_t>(batch_size()),
               .attachment_bytes = attachment.size()});
}

SavedCache KVCache::load(const std::string& path, const ModelConfig& config, const std::string& fingerprint,
                         const KVCacheOptions& options) {
  check_fingerprint(fingerprint);
  CacheFileReader file(path);
  const CacheFileHeader& header = file.header();
  check_model(header, config, fingerprint, path);
  if (options.dtype && *options.dtype != header.dtype)
    throw Error(ErrorCode::kInvalidArgument, path, ": saved as ", name_of(header.dtype), ", asked for as ", name_of(*options.dtype));
  const std::vector<uint64_t> lengths = read_lengths(file);
  KVCacheOptions own = options;
  own.batch_size = header.n_rows;
  own.dtype = header.dtype;
  SavedCache saved{KVCache(config, own), std::string(header.attachment_bytes, '\0')};
  file.read(std::as_writable_bytes(std::span(saved.attachment)));
  PagedCache& paged = saved.cache.paged();
  const int64_t token = config.n_kv_heads * config.head_dim;
  Run k(header.dtype, token), v(header.dtype, token);
  for (int64_t row = 0; row < paged.n_rows(); ++row) {
    const auto length = static_cast<int64_t>(std::min<uint64_t>(lengths[static_cast<size_t>(row)], std::numeric_limits<int64_t>::max()));
    paged.reserve(row, length);  // Error{kCapacity} where the row is longer than the context.
    for (int64_t layer = 0; layer < config.n_layers; ++layer)
      for (int64_t first = 0; first < length; first += CacheFileHeader::kRunTokens) {
        const int64_t n = std::min(CacheFileHeader::kRunTokens, length - first);
        for (Run* run : {&k, &v}) {
          file.read(run->stored(n * token));
          run->widen(n * token);
        }
        for_pages(paged, row, first, n, [&](int32_t page, int64_t slot, int64_t done, int64_t count) {
          const auto view = [&](Run& run) {
            return ConstTensorView(run.values() + done * token, Dtype::kF32, {count, config.n_kv_heads, config.head_dim});
          };
          paged.storage().write(layer, page, slot, view(k), view(v));
        });
      }
    paged.advance(row, length);
  }
  file.finish();
  return saved;
}

}  // namespace minillm
