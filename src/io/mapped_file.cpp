// mapped_file.cpp - mmap and its errors.
#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "minillm/error.h"

namespace minillm {
namespace {

/// errno as text. Unlike strerror, safe with threads.
std::string reason(int error) { return std::generic_category().message(error); }

int64_t modified_ns(const struct stat& status) noexcept {
  return static_cast<int64_t>(status.st_mtim.tv_sec) * 1'000'000'000 + status.st_mtim.tv_nsec;
}

/// Closes on scope exit unless released: the constructor throws between open and the end.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  Descriptor opened{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};  // Non-blocking: a pipe must not hang us.
  if (opened.fd < 0) throw Error(ErrorCode::kNotFound, path, ": cannot open: ", reason(errno));
  struct stat status {};
  if (::fstat(opened.fd, &status) != 0) throw Error(ErrorCode::kNotFound, path, ": cannot stat: ", reason(errno));
  if (!S_ISREG(status.st_mode)) throw Error(ErrorCode::kUnsupported, path, ": not a regular file");
  size_ = static_cast<size_t>(status.st_size);
  modified_ns_ = modified_ns(status);
  if (size_ > 0) {
    void* mapping = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, opened.fd, 0);
    if (mapping == MAP_FAILED) throw Error(ErrorCode::kOutOfMemory, path, ": cannot map ", size_, " bytes: ", reason(errno));
    try {
      guard_ = FaultGuard(mapping, size_);
    } catch (...) {
      ::munmap(mapping, size_);
      throw;
    }
    data_ = static_cast<const std::byte*>(mapping);
  }
  fd_ = std::exchange(opened.fd, -1);
}

MappedFile::~MappedFile() {
  guard_ = FaultGuard();  // Before the range can be another mapping's.
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  if (fd_ >= 0) ::close(fd_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      modified_ns_(other.modified_ns_),
      guard_(std::move(other.guard_)) {}

void MappedFile::check_unchanged() const {
  struct stat status {};
  if (::fstat(fd_, &status) != 0) throw Error(ErrorCode::kCorruptFile, path_, ": cannot stat: ", reason(errno));
  if (static_cast<size_t>(status.st_size) != size_)
    throw Error(ErrorCode::kCorruptFile, path_, ": changed while it was read: ", size_, " bytes before, ", status.st_size, " now");
  if (guard_.faulted()) throw Error(ErrorCode::kCorruptFile, path_, ": a part could not be read: was it cut short meanwhile?");
  if (modified_ns(status) != modified_ns_) throw Error(ErrorCode::kCorruptFile, path_, ": was written to while it was read");
}

std::string read_text_file(const std::string& path, uint64_t limit) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  if (bytes.size() > limit) throw Error(ErrorCode::kCorruptFile, path, ": ", bytes.size(), " bytes, expected at most ", limit);
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  file.check_unchanged();
  return text;
}

}  // namespace minillm
