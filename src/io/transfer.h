// transfer.h - one HTTP request with its redirects: what download.cpp retries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>

#include "io/download.h"

namespace minillm {

struct Response {
  long status = 0;
  std::map<std::string, std::string> headers;  ///< Of the last response; names in lower case.
  std::string linked_etag;                     ///< X-Linked-Etag, from the host that was asked; without quotes.
  /// A header of the last response, or empty.
  std::string header(const std::string& name) const {
    const auto it = headers.find(name);
    return it == headers.end() ? "" : it->second;
  }
};

struct Request {
  std::string url, token;
  uint64_t first_byte = 0;  ///< Above 0: ask for the rest only.
  std::string if_range;     ///< The ETag that the first part had.
};

/// Called for each piece of the body of a 200 or 206, with the response so far. May throw; the transfer ends then.
using Body = std::function<void(const Response&, std::span<const std::byte>)>;

/// The connection broke, was silent too long, or could not be made: worth another try.
struct Interrupted : std::exception {
  explicit Interrupted(std::string reason) : reason_(std::move(reason)) {}
  const char* what() const noexcept override { return reason_.c_str(); }

 private:
  std::string reason_;
};

/// Throws Interrupted, what `body` threw, Error{kCancelled}, and Error{kDevice} for what another try would not mend.
/// A status that is not 200 or 206 is no exception.
Response transfer(const Request& request, const DownloadLimits& limits, const Body& body, const std::function<bool()>& keep_going);

}  // namespace minillm
