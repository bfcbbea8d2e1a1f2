// cache_file.cpp - see cache_file.h.
#include "kv/cache_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/whole_file.h"
#include "minillm/error.h"

namespace minillm {
namespace {

static_assert(std::endian::native == std::endian::little, "a saved cache is written as memory holds it");

constexpr std::array<char, 8> kMagic = {'M', 'L', 'L', 'M', 'K', 'V', '\r', '\n'};
constexpr uint32_t kVersion = 1;
constexpr Dtype kDtypes[] = {Dtype::kF32, Dtype::kF16, Dtype::kBF16, Dtype::kF8};  // In the file's order.
constexpr size_t kChecked = CacheFileHeader::kBytes - sizeof(uint64_t);

std::string reason() { return std::generic_category().message(errno); }

uint64_t crc_of(std::span<const std::byte> bytes) {
  Crc64 crc;
  crc.update(bytes);
  return crc.value();
}

template <typename T>
void put(std::span<std::byte> to, size_t at, const T& value) {
  std::memcpy(to.data() + at, &value, sizeof value);
}
template <typename T>
T get(std::span<const std::byte> from, size_t at) {
  T value;
  std::memcpy(&value, from.data() + at, sizeof value);
  return value;
}

}  // namespace

std::array<std::byte, CacheFileHeader::kBytes> CacheFileHeader::encode() const {
  MINILLM_CHECK(fingerprint.size() <= kFingerprintBytes, "fingerprint of ", fingerprint.size(), " characters");
  std::array<std::byte, kBytes> bytes{};
  put(bytes, 0, kMagic);
  put(bytes, 8, kVersion);
  put(bytes, 12, static_cast<uint32_t>(std::find(std::begin(kDtypes), std::end(kDtypes), dtype) - std::begin(kDtypes)));
  std::memcpy(bytes.data() + 16, fingerprint.data(), fingerprint.size());
  put(bytes, 80, n_layers);
  put(bytes, 84, n_kv_heads);
  put(bytes, 88, head_dim);
  put(bytes, 92, n_rows);
  put(bytes, 96, attachment_bytes);
  put(bytes, 104, body_bytes);
  put(bytes, 112, body_crc);
  put(bytes, kChecked, crc_of(std::span(bytes).first(kChecked)));
  return bytes;
}

CacheFileHeader CacheFileHeader::decode(std::span<const std::byte, kBytes> bytes, const std::string& path) {
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0)
    throw Error(ErrorCode::kCorruptFile, path, ": not a saved cache: it does not begin with MLLMKV");
  if (get<uint64_t>(bytes, kChecked) != crc_of(bytes.first(kChecked)))
    throw Error(ErrorCode::kCorruptFile, path, ": the header's checksum does not match: the file is damaged");
  if (const auto version = get<uint32_t>(bytes, 8); version != kVersion)
    throw Error(ErrorCode::kUnsupported, path, ": saved cache of version ", version, ", expected ", kVersion);
  const auto dtype = get<uint32_t>(bytes, 12);
  if (dtype >= std::size(kDtypes)) throw Error(ErrorCode::kUnsupported, path, ": saved cache of dtype ", dtype, ", expected 0 to 3");
  CacheFileHeader header;
  header.dtype = kDtypes[dtype];
  header.fingerprint.assign(reinterpret_cast<const char*>(bytes.data()) + 16, kFingerprintBytes);
  header.fingerprint.resize(std::min(header.fingerprint.find('\0'), header.fingerprint.size()));
  header.n_layers = get<uint32_t>(bytes, 80);
  header.n_kv_heads = get<uint32_t>(bytes, 84);
  header.head_dim = get<uint32_t>(bytes, 88);
  header.n_rows = get<uint32_t>(bytes, 92);
  header.attachment_bytes = get<uint64_t>(bytes, 96);
  header.body_bytes = get<uint64_t>(bytes, 104);
  header.body_crc = get<uint64_t>(bytes, 112);
  return header;
}

CacheFileWriter::CacheFileWriter(std::string path) : path_(std::move(path)), part_(path_ + ".XXXXXX") {
  fd_ = ::mkostemp(part_.data(), O_CLOEXEC);
  if (fd_ < 0) throw Error(ErrorCode::kDevice, path_, ": cannot save: ", reason());
  if (::lseek(fd_, static_cast<off_t>(CacheFileHeader::kBytes), SEEK_SET) < 0) fail("cannot seek");
}

CacheFileWriter::~CacheFileWriter() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(part_.c_str());
}

void CacheFileWriter::fail(const char* what) const { throw Error(ErrorCode::kDevice, path_, ": cannot save: ", what, ": ", reason()); }

void CacheFileWriter::write(std::span<const std::byte> bytes) {
  crc_.update(bytes);
  n_bytes_ += bytes.size();
  if (!write_all(fd_, bytes)) fail("cannot write");
}

void CacheFileWriter::commit(CacheFileHeader header) {
  header.body_bytes = n_bytes_;
  header.body_crc = crc_.value();
  if (::lseek(fd_, 0, SEEK_SET) < 0) fail("cannot seek");
  if (!write_all(fd_, header.encode())) fail("cannot write");
  if (const char* failed = publish_file(std::exchange(fd_, -1), part_, path_)) {
    const int error = errno;
    ::unlink(part_.c_str());
    errno = error;
    fail(failed);
  }
}

CacheFileReader::CacheFileReader(std::string path) : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) throw Error(ErrorCode::kNotFound, path_, ": cannot open: ", reason());
  try {
    struct stat status {};
    if (::fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) corrupt("not a file");
    const auto size = static_cast<uint64_t>(status.st_size);
    if (size < CacheFileHeader::kBytes) corrupt("cut off: " + std::to_string(size) + " bytes, the header has 128");
    std::array<std::byte, CacheFileHeader::kBytes> bytes;
    read_at(bytes, 0);
    header_ = CacheFileHeader::decode(bytes, path_);
    if (size - CacheFileHeader::kBytes != header_.body_bytes)
      corrupt("has " + std::to_string(size - CacheFileHeader::kBytes) + " bytes behind the header, expected " +
              std::to_string(header_.body_bytes));
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

CacheFileReader::~CacheFileReader() { ::close(fd_); }

void CacheFileReader::corrupt(const std::string& what) const { throw Error(ErrorCode::kCorruptFile, path_, ": ", what); }

void CacheFileReader::read_at(std::span<std::byte> bytes, uint64_t offset) const {
  while (!bytes.empty()) {
    const ssize_t n = ::pread(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw Error(ErrorCode::kDevice, path_, ": cannot read: ", reason());
    if (n == 0) corrupt("cut off at byte " + std::to_string(offset));
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
}

void CacheFileReader::read(std::span<std::byte> bytes) {
  if (bytes.size() > header_.body_bytes - n_bytes_) corrupt("its rows need more bytes than it has");
  read_at(bytes, CacheFileHeader::kBytes + n_bytes_);
  n_bytes_ += bytes.size();
  crc_.update(bytes);
}

void CacheFileReader::finish() const {
  if (n_bytes_ != header_.body_bytes) corrupt(std::to_string(header_.body_bytes - n_bytes_) + " bytes more than its rows need");
  if (crc_.value() != header_.body_crc) corrupt("the checksum does not match: the file is damaged");
}

}  // namespace minillm
