// whole_file.cpp - see whole_file.h.
#include "base/whole_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

namespace minillm {

bool write_all(int fd, std::span<const std::byte> bytes) noexcept {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return true;
}

const char* publish_file(int fd, const std::string& part, const std::string& path) {
  if (::fsync(fd) != 0) {
    const int error = errno;
    ::close(fd);
    errno = error;
    return "cannot flush to the disk";
  }
  if (::close(fd) != 0) return "cannot close";
  if (::rename(part.c_str(), path.c_str()) != 0) return "cannot rename";
  // The rename itself is in the folder. Some file systems cannot flush folders: then there is nothing more to do.
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const int folder_fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_fd >= 0) {
    (void)::fsync(folder_fd);
    ::close(folder_fd);
  }
  return nullptr;
}

}  // namespace minillm
