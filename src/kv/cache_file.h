// cache_file.h - the layout of a saved cache, and its bytes in and out of a file. KVCache::save and load are written with it.
// Layout (little endian, no padding):
//   0    magic "MLLMKV\r\n": a transfer that alters line ends alters it
//   8    u32 version, 1                          12  u32 dtype: 0 f32, 1 f16, 2 bf16, 3 f8
//   16   fingerprint of the model, 64 characters, zeros behind a shorter one
//   80   u32 layers, u32 key/value heads, u32 head width, u32 rows
//   96   u64 bytes of the attachment             104 u64 bytes of all that follows the header
//   112  CRC-64 of all that follows the header   120 CRC-64 of bytes 0 to 119
//   128  u64 tokens of each row; the attachment; then for each row and layer and run of page_tokens tokens: K, then V, [n, G, D]
// A reader sees the old file or the new one, never half (base/whole_file.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/crc64.h"
#include "minillm/types.h"

namespace minillm {

struct CacheFileHeader {
  static constexpr size_t kBytes = 128, kFingerprintBytes = 64;
  /// Tokens of a run in the file, whatever the page size of the cache in memory.
  static constexpr int64_t kRunTokens = 64;

  Dtype dtype = Dtype::kF16;
  std::string fingerprint;
  uint32_t n_layers = 0, n_kv_heads = 0, head_dim = 0, n_rows = 0;
  uint64_t attachment_bytes = 0, body_bytes = 0, body_crc = 0;

  std::array<std::byte, kBytes> encode() const;
  /// Throws Error{kCorruptFile} for a wrong magic or checksum, Error{kUnsupported} for another version or dtype.
  static CacheFileHeader decode(std::span<const std::byte, kBytes> bytes, const std::string& path);
};

/// Writes header and body; nothing stands under `path` before commit().
class CacheFileWriter {
 public:
  /// Throws Error{kDevice} with path and reason, as every function here.
  explicit CacheFileWriter(std::string path);
  ~CacheFileWriter();  ///< Removes what was not committed.
  CacheFileWriter(const CacheFileWriter&) = delete;
  CacheFileWriter& operator=(const CacheFileWriter&) = delete;

  void write(std::span<const std::byte> bytes);
  /// Fills in the header's body_bytes and body_crc, writes it, flushes and renames.
  void commit(CacheFileHeader header);

 private:
  [[noreturn]] void fail(const char* what) const;

  std::string path_, part_;
  int fd_ = -1;
  uint64_t n_bytes_ = 0;
  Crc64 crc_;
};

class CacheFileReader {
 public:
  /// Reads and checks the header and the file's size. Throws Error{kNotFound} if it cannot be opened, Error{kCorruptFile}.
  explicit CacheFileReader(std::string path);
  ~CacheFileReader();
  CacheFileReader(const CacheFileReader&) = delete;
  CacheFileReader& operator=(const CacheFileReader&) = delete;

  const CacheFileHeader& header() const noexcept { return header_; }
  /// Fills `bytes` with the next ones of the body. Throws Error{kCorruptFile} at its end.
  void read(std::span<std::byte> bytes);
  /// Throws Error{kCorruptFile} unless all was read and is what was written.
  void finish() const;
  [[noreturn]] void corrupt(const std::string& what) const;

 private:
  void read_at(std::span<std::byte> bytes, uint64_t offset) const;

  std::string path_;
  int fd_ = -1;
  uint64_t n_bytes_ = 0;  ///< Of the body, read so far.
  CacheFileHeader header_;
  Crc64 crc_;
};

}  // namespace minillm
