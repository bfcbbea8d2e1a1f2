// url_policy.h - which addresses a download may go to, and which names from the network may become paths.
#pragma once

#include <string>

struct sockaddr;

namespace minillm {

/// A URL's parts as libcurl reads them: the same parser that fetches.
struct UrlParts {
  std::string scheme, host, port;  ///< Lower case; the port is always filled in.
  bool same_origin(const UrlParts& other) const noexcept { return scheme == other.scheme && host == other.host && port == other.port; }
};

/// Throws Error{kInvalidArgument} for what is no URL, has a user or password in it, or is neither https nor http to this machine.
UrlParts checked_url(const std::string& url);

/// Where `location` leads from `url`. Throws as checked_url, and for a step from https to http.
std::string redirect_target(const std::string& url, const std::string& location);

/// Loopback, private, link-local and such: addresses inside someone's network. Unknown families count as private.
bool is_private_address(const sockaddr* address) noexcept;
bool is_loopback_host(const std::string& host);

/// A path inside a repository, as in "OWNER/REPO" or "sub/model.gguf". Throws Error{kInvalidArgument} naming `what` if any
/// component is empty, starts with a dot, is over 200 bytes, is a device name of Windows, or holds a control byte, a
/// backslash or a colon.
void check_path_components(const std::string& path, const std::string& what);

}  // namespace minillm
