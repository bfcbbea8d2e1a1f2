// npy.h - writes float32 matrices as NumPy reads them.
// Layout:  magic "\x93NUMPY", version 1.0, header length (2 bytes, little endian), a Python dict padded with spaces to a multiple
//          of 64 bytes, then the rows. Source: numpy.lib.format.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>

namespace minillm::cli {

class NpyWriter {
 public:
  /// Creates `path` for a matrix of rows x cols. Throws Error{kDevice} with the reason.
  NpyWriter(const std::string& path, int64_t rows, int64_t cols);
  void write_row(std::span<const float> row);
  /// Throws Error{kDevice} unless every row arrived and was written.
  void finish();

 private:
  [[noreturn]] void fail() const;
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace minillm::cli
