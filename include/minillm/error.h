// error.h - the one exception type of the library. Nothing in the library prints, exits or aborts.
#pragma once

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>

namespace minillm {

enum class ErrorCode : uint8_t {
  kInvalidArgument,  ///< The caller asked for something that makes no sense.
  kNotFound,         ///< A file, tensor, key or model is missing.
  kCorruptFile,      ///< A file contradicts its own format.
  kUnsupported,      ///< Understood, but not implemented (a dtype, an architecture, a device).
  kOutOfMemory,      ///< Memory could not be had.
  kCapacity,         ///< A configured limit (context, cache, batch) would be passed.
  kDevice,           ///< A device call failed.
  kCancelled,        ///< The caller cancelled the work.
  kInternal,         ///< A bug of ours: an invariant does not hold.
};

/// Bad input, a bad file or a failing device. The message says what was met, what was expected, and where.
class Error : public std::runtime_error {
 public:
  template <typename... Parts>
  explicit Error(ErrorCode code, const Parts&... parts) : std::runtime_error(join(parts...)), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  template <typename... Parts>
  static std::string join(const Parts&... parts) {
    std::ostringstream out;
    (out << ... << parts);
    return out.str();
  }

  ErrorCode code_;
};

}  // namespace minillm
