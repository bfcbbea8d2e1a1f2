// part_file.h - a file that appears under its name only when it is whole (base/whole_file.h): written as NAME.part, which a later try
// goes on with, and checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "io/sha256.h"

namespace minillm {

class PartFile {
 public:
  enum class Open : uint8_t { kFresh, kResume };  ///< kResume goes on after the bytes that an earlier try left.

  /// Throws Error{kDevice} with path and reason: no such folder, read-only, no space.
  PartFile(std::string path, Open open);
  ~PartFile();  ///< What was written stays, for a later kResume, unless discarded.
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  uint64_t size() const noexcept { return size_; }
  void write(std::span<const std::byte> bytes);  ///< Throws Error{kDevice}: disk full and such.
  void restart();                                ///< Throws away what is there.
  /// SHA-256 of all that was written, earlier tries included.
  std::string sha256() const;
  void commit();            ///< Flushes and renames. Throws Error{kDevice}.
  void discard() noexcept;  ///< Removes the part.

 private:
  [[noreturn]] void fail(const char* what) const;

  std::string path_, part_;
  int fd_ = -1;
  uint64_t size_ = 0;
  Sha256 hash_;
};

/// Writes all of `text` to `path` in the same way.
void write_whole_file(const std::string& path, const std::string& text);

/// Makes `folder` and those above it. Throws Error{kDevice}.
void make_folders(const std::string& folder);

/// Throws Error{kDevice} that names what is missing unless `folder` has room for `bytes`.
void require_space(const std::string& folder, uint64_t bytes);

/// Holds a lock on `folder` (a file .lock in it) against other processes; freed with the object or the process.
class FolderLock {
 public:
  /// Tries once; false from held() means that another process has it. Throws Error{kDevice} if the file cannot be made.
  explicit FolderLock(const std::string& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  bool held() const noexcept { return held_; }
  bool try_again() noexcept;

 private:
  int fd_ = -1;
  bool held_ = false;
};

}  // namespace minillm
