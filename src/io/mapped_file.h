// mapped_file.h - a file's bytes, mapped read-only.
// Memory:  pages come from the page cache on first touch; nothing is copied.
// Safety:  the mapping is as long as the file was when it was opened. A file that is replaced by rename keeps its old bytes.
//          One that is cut short reads as zeros from there on (fault_guard.h). So a loader copies what it needs, then calls
//          check_unchanged(): if that is silent, what it copied is what was checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "io/fault_guard.h"

namespace minillm {

class MappedFile {
 public:
  /// Maps the regular file at `path`. Throws Error{kNotFound} if it cannot be opened, Error{kUnsupported} if it is not a
  /// regular file, Error{kOutOfMemory} if it cannot be mapped; each with the path and the system's reason.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
  const std::string& path() const noexcept { return path_; }

  /// Throws Error{kCorruptFile} if a part could not be read, or the file's size or modification time is no longer what it was
  /// when it was opened.
  void check_unchanged() const;

 private:
  std::string path_;
  int fd_ = -1;
  const std::byte* data_ = nullptr;  ///< Null for an empty file.
  size_t size_ = 0;
  int64_t modified_ns_ = 0;
  FaultGuard guard_;
};

/// The whole text of a small file. Throws Error{kNotFound} as MappedFile does, Error{kCorruptFile} above `limit` bytes.
std::string read_text_file(const std::string& path, uint64_t limit);

}  // namespace minillm
