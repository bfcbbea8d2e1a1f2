// buffer.h - owner of device bytes; move-only, null when empty.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace minillm {

class Buffer {
 public:
  Buffer() = default;
  /// `release` frees `data`; it must not throw.
  Buffer(void* data, size_t bytes, std::function<void(void*)> release) : data_(data, std::move(release)), bytes_(bytes) {}

  void* data() const noexcept { return data_.get(); }
  size_t bytes() const noexcept { return bytes_; }

 private:
  std::unique_ptr<void, std::function<void(void*)>> data_{nullptr, [](void*) {}};
  size_t bytes_ = 0;
};

}  // namespace minillm
