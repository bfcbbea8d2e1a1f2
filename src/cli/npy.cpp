// npy.cpp - see npy.h.
#include "npy.h"

#include <bit>
#include <cerrno>
#include <system_error>

#include "minillm/error.h"

namespace minillm::cli {

static_assert(std::endian::native == std::endian::little, "the header says '<f4'");

NpyWriter::NpyWriter(const std::string& path, int64_t rows, int64_t cols) : path_(path), file_(std::fopen(path.c_str(), "wb")) {
  if (!file_) fail();
  std::string dict = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(rows) + ", " + std::to_string(cols) + "), }";
  constexpr size_t kBefore = 10;  // Magic, version, length.
  dict.append((64 - (kBefore + dict.size() + 1) % 64) % 64, ' ');
  dict += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(dict.size() & 255);
  header += static_cast<char>(dict.size() >> 8);
  header += dict;
  if (std::fwrite(header.data(), 1, header.size(), file_.get()) != header.size()) fail();
}

void NpyWriter::fail() const { throw Error(ErrorCode::kDevice, path_, ": cannot write: ", std::generic_category().message(errno)); }

void NpyWriter::write_row(std::span<const float> row) {
  if (std::fwrite(row.data(), sizeof(float), row.size(), file_.get()) != row.size()) fail();
}

void NpyWriter::finish() {
  if (std::fflush(file_.get()) != 0) fail();
  file_.reset();
}

}  // namespace minillm::cli
