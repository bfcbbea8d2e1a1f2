// byte_reader.h - the one place that moves through the bytes of a file. Little endian, as the machine.
// Every step is compared with what is left before it is taken, without adding: a length from a file may be 2^64 - 1.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "minillm/error.h"

namespace minillm {

static_assert(std::endian::native == std::endian::little, "file formats here are little endian");

class ByteReader {
 public:
  /// Borrows `bytes`. `what` names the file in messages.
  ByteReader(std::span<const std::byte> bytes, std::string_view what) : bytes_(bytes), what_(what) {}

  uint64_t at() const noexcept { return at_; }
  uint64_t size() const noexcept { return bytes_.size(); }
  uint64_t left() const noexcept { return bytes_.size() - at_; }
  const std::string& what() const noexcept { return what_; }

  /// The next `n` bytes, borrowed. Throws Error{kCorruptFile} naming `field` if fewer are left.
  std::span<const std::byte> take(uint64_t n, std::string_view field) {
    if (n > left())
      throw Error(ErrorCode::kCorruptFile, what_, ": ", field, ": needs ", n, " bytes at offset ", at_, ", the file has ", left(),
                  " more (", size(), " in all)");
    at_ += n;
    return bytes_.subspan(at_ - n, n);
  }

  /// The next number. `T` is an arithmetic type but bool, whose bytes need a check.
  template <typename T>
  T read(std::string_view field) {
    static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
    T value;
    std::memcpy(&value, take(sizeof(T), field).data(), sizeof(T));
    return value;
  }

  /// The next `n` bytes as text, borrowed.
  std::string_view text(uint64_t n, std::string_view field) {
    const auto bytes = take(n, field);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  std::span<const std::byte> bytes_;
  std::string what_;
  uint64_t at_ = 0;
};

}  // namespace minillm
