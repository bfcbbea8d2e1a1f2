// gguf_fields.h - where the numbers of a GGUF file lie, for a fuzzer that should change them rather than random bytes.
// A walk of its own over the format in src/io/gguf.h: it trusts lengths as long as they stay inside the input, and stops where
// they do not, so that half-broken files keep their first fields.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <vector>

namespace minillm::fuzz {

struct Field {
  size_t at;
  size_t width;  ///< 1, 2, 4 or 8 bytes.
};

class GgufFields {
 public:
  GgufFields(const uint8_t* data, size_t size) : data_(data), size_(size) { walk(); }
  const std::vector<Field>& fields() const noexcept { return fields_; }

 private:
  /// The number at the current place, as a field of `width`; 0 past the end.
  uint64_t number(size_t width) {
    uint64_t value = 0;
    if (!left(width)) return 0;
    fields_.push_back({at_, width});
    std::memcpy(&value, data_ + at_, width);
    at_ += width;
    return value;
  }
  void stop() { ended_ = true; }
  bool left(uint64_t n) {
    if (n > size_ - at_) ended_ = true;
    return !ended_;
  }
  void skip(uint64_t n) {
    if (left(n)) at_ += n;
  }
  void text() { skip(number(8)); }

  void value(uint64_t type) {
    static constexpr size_t kWidths[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    constexpr uint64_t kString = 8, kArray = 9;
    if (type == kString) return text();
    if (type != kArray) {
      if (type >= std::size(kWidths)) return stop();
      number(kWidths[type]);
      return;
    }
    const uint64_t element = number(4), count = number(8);
    if (element == kString)
      for (uint64_t i = 0; i < count && !ended_; ++i) text();
    else if (element < std::size(kWidths) && element != kArray && count <= size_)
      skip(count * kWidths[element]);
    else
      stop();
  }

  void walk() {
    number(4);
    number(4);
    const uint64_t n_tensors = number(8), n_keys = number(8);
    for (uint64_t i = 0; i < n_keys && !ended_; ++i) {
      text();
      value(number(4));
    }
    for (uint64_t i = 0; i < n_tensors && !ended_; ++i) {
      text();
      const uint64_t rank = number(4);
      for (uint64_t d = 0; d < rank && !ended_; ++d) number(8);
      number(4);
      number(8);
    }
  }

  const uint8_t* data_;
  size_t size_, at_ = 0;
  bool ended_ = false;
  std::vector<Field> fields_;
};

}  // namespace minillm::fuzz
