// download.h - one URL into memory or into a file, through libcurl.
// A cut connection is taken up where it broke (Range with If-Range, so that a file that changed starts over); a silent one is
// given up after a while. Redirects are followed by hand: https only, the token goes to the first host alone, and only the host
// that the user named may have a private address (and where that is this machine, another name of it).
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace minillm {

struct Download {
  std::string url;
  std::string token;   ///< Sent as "Authorization: Bearer" to the URL's own host only; may be empty.
  std::string sha256;  ///< Expected, lower-case hex; empty: the server's X-Linked-Etag, if it has the form of one.
  uint64_t size = 0;   ///< Announced size in bytes; nothing longer is accepted.
};

struct DownloadLimits {
  int connect_seconds = 30;
  int stall_seconds = 30;    ///< Without a byte for so long, the connection counts as cut.
  int tries = 5;             ///< In a row without a new byte.
  int retry_wait_ms = 1000;  ///< Before the second try; doubled for each further one.
};

/// Called with the bytes so far; false cancels.
using DownloadProgress = std::function<bool(uint64_t done)>;

/// The body as text, at most `limit` bytes. Throws Error{kNotFound} for 401, 403 and 404, Error{kDevice} for other trouble,
/// Error{kCancelled}.
std::string download_text(const std::string& url, const std::string& token, uint64_t limit, const DownloadLimits& limits,
                          const DownloadProgress& progress);

/// Fetches into `path` (atomically; the folder exists), resuming PATH.part if it is of the same file. Throws as download_text,
/// and Error{kCorruptFile} for a wrong size or checksum; nothing is kept then.
void download_file(const Download& download, const std::string& path, const DownloadLimits& limits, const DownloadProgress& progress);

}  // namespace minillm
