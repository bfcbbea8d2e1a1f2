// part_file.cpp - writing files that are whole or not there.
#include "io/part_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/bytes.h"
#include "base/whole_file.h"
#include "minillm/error.h"

namespace minillm {
namespace {

std::string reason(int error) { return std::generic_category().message(error); }

}  // namespace

PartFile::PartFile(std::string path, Open open) : path_(std::move(path)), part_(path_ + ".part") {
  fd_ = ::open(part_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (open == Open::kFresh ? O_TRUNC : 0), 0644);
  if (fd_ < 0) fail("cannot open for writing");
  std::array<std::byte, 1 << 16> buffer;
  for (;;) {  // The hash covers what an earlier try left.
    const ssize_t n = ::read(fd_, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      ::close(std::exchange(fd_, -1));
      errno = error;
      fail("cannot read");
    }
    if (n == 0) break;
    hash_.update(std::span(buffer).first(static_cast<size_t>(n)));
    size_ += static_cast<uint64_t>(n);
  }
}

PartFile::~PartFile() {
  if (fd_ >= 0) ::close(fd_);
}

void PartFile::fail(const char* what) const { throw Error(ErrorCode::kDevice, part_, ": ", what, ": ", reason(errno)); }

void PartFile::write(std::span<const std::byte> bytes) {
  if (!write_all(fd_, bytes)) fail("cannot write");
  hash_.update(bytes);
  size_ += bytes.size();
}

void PartFile::restart() {
  if (::ftruncate(fd_, 0) != 0 || ::lseek(fd_, 0, SEEK_SET) != 0) fail("cannot start over");
  size_ = 0;
  hash_ = Sha256();
}

std::string PartFile::sha256() const { return Sha256(hash_).hex(); }

void PartFile::commit() {
  if (const char* failed = publish_file(std::exchange(fd_, -1), part_, path_)) fail(failed);
}

void PartFile::discard() noexcept {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  (void)::unlink(part_.c_str());
}

void write_whole_file(const std::string& path, const std::string& text) {
  PartFile file(path, PartFile::Open::kFresh);
  file.write(std::as_bytes(std::span(text)));
  file.commit();
}

void make_folders(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw Error(ErrorCode::kDevice, folder, ": cannot make the folder: ", error.message());
}

void require_space(const std::string& folder, uint64_t bytes) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (!error && space.available < bytes)
    throw Error(ErrorCode::kDevice, folder, ": ", readable_bytes(bytes), " are needed, ", readable_bytes(space.available),
                " are free (MINILLM_HOME names another folder)");
}

FolderLock::FolderLock(const std::string& folder) {
  const std::string path = folder + "/.lock";
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) throw Error(ErrorCode::kDevice, path, ": cannot open: ", reason(errno));
  try_again();
}

FolderLock::~FolderLock() { ::close(fd_); }

bool FolderLock::try_again() noexcept { return held_ = held_ || ::flock(fd_, LOCK_EX | LOCK_NB) == 0; }

}  // namespace minillm
