// url_policy.cpp - see url_policy.h.
#include "io/url_policy.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string_view>

#include "io/printable.h"
#include "minillm/error.h"

namespace minillm {
namespace {

struct FreeUrl {
  void operator()(CURLU* url) const noexcept { curl_url_cleanup(url); }
};
using Url = std::unique_ptr<CURLU, FreeUrl>;

Url parse(const std::string& text) {
  Url url(curl_url());
  if (!url || curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0) != CURLUE_OK)
    throw Error(ErrorCode::kInvalidArgument, printable(text), " is no URL that can be fetched");
  return url;
}

/// Empty if the part is not there.
std::string part(const Url& url, CURLUPart which, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url.get(), which, &text, flags) != CURLUE_OK) return "";
  std::string result = text;
  curl_free(text);
  return result;
}

UrlParts parts_of(const Url& url) {
  UrlParts parts{part(url, CURLUPART_SCHEME), part(url, CURLUPART_HOST), part(url, CURLUPART_PORT, CURLU_DEFAULT_PORT)};
  std::transform(parts.host.begin(), parts.host.end(), parts.host.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return parts;
}

bool is_private_v4(uint32_t a) noexcept {  // Host byte order. IANA's special-purpose registry, the parts that are not global.
  const auto in = [a](uint32_t network, int bits) { return a >> (32 - bits) == network >> (32 - bits); };
  return in(0x00000000, 8) || in(0x0A000000, 8) || in(0x64400000, 10) || in(0x7F000000, 8) || in(0xA9FE0000, 16) || in(0xAC100000, 12) ||
         in(0xC0000000, 24) || in(0xC0A80000, 16) || in(0xC6120000, 15) || in(0xE0000000, 3);
}

bool is_private_v6(const std::array<uint8_t, 16>& a) noexcept {
  const auto starts_with_zeros = [&](size_t n) {
    return std::all_of(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), [](uint8_t b) { return b == 0; });
  };
  const uint32_t last = static_cast<uint32_t>(a[12]) << 24 | static_cast<uint32_t>(a[13]) << 16 | static_cast<uint32_t>(a[14]) << 8 | a[15];
  if (starts_with_zeros(10) && a[10] == 0xFF && a[11] == 0xFF) return is_private_v4(last);       // ::ffff:a.b.c.d
  if (starts_with_zeros(12)) return true;                                                        // ::, ::1, old IPv4-compatible
  if (a[0] == 0x00 && a[1] == 0x64 && a[2] == 0xFF && a[3] == 0x9B) return is_private_v4(last);  // 64:ff9b::a.b.c.d (NAT64)
  return (a[0] & 0xFE) == 0xFC || (a[0] == 0xFE && a[1] >= 0x80) || a[0] == 0xFF;  // Unique local, link and site local, multicast.
}

bool is_windows_device(std::string_view name) {
  std::string stem(name.substr(0, name.find('.')));
  std::transform(stem.begin(), stem.end(), stem.begin(), [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  if (stem == "CON" || stem == "PRN" || stem == "AUX" || stem == "NUL") return true;
  return stem.size() == 4 && (stem.starts_with("COM") || stem.starts_with("LPT")) && stem[3] >= '0' && stem[3] <= '9';
}

}  // namespace

bool is_loopback_host(const std::string& host) { return host == "localhost" || host == "127.0.0.1" || host == "[::1]"; }

UrlParts checked_url(const std::string& url) {
  const Url parsed = parse(url);
  const UrlParts parts = parts_of(parsed);
  if (!part(parsed, CURLUPART_USER).empty() || !part(parsed, CURLUPART_PASSWORD).empty())
    throw Error(ErrorCode::kInvalidArgument, parts.scheme, "://", parts.host, ": a URL with a user or password in it is not fetched");
  if (parts.scheme != "https" && !(parts.scheme == "http" && is_loopback_host(parts.host)))
    throw Error(ErrorCode::kInvalidArgument, printable(url), ": only https is fetched (http from this machine alone)");
  return parts;
}

std::string redirect_target(const std::string& url, const std::string& location) {
  const Url parsed = parse(url);
  const UrlParts from = parts_of(parsed);
  if (curl_url_set(parsed.get(), CURLUPART_URL, location.c_str(), 0) != CURLUE_OK)
    throw Error(ErrorCode::kInvalidArgument, url, ": redirects to ", printable(location), ", which is no URL that can be fetched");
  const std::string target = part(parsed, CURLUPART_URL);
  if (from.scheme == "https" && checked_url(target).scheme != "https")
    throw Error(ErrorCode::kInvalidArgument, url, ": redirects from https to ", printable(target));
  checked_url(target);
  return target;
}

bool is_private_address(const sockaddr* address) noexcept {
  if (address->sa_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, address, sizeof(v4));
    return is_private_v4(ntohl(v4.sin_addr.s_addr));
  }
  if (address->sa_family != AF_INET6) return true;
  sockaddr_in6 v6{};
  std::memcpy(&v6, address, sizeof(v6));
  std::array<uint8_t, 16> bytes{};
  std::memcpy(bytes.data(), &v6.sin6_addr, bytes.size());
  return is_private_v6(bytes);
}

void check_path_components(const std::string& path, const std::string& what) {
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    const std::string_view name = std::string_view(path).substr(at, end - at);
    const bool bad_byte = std::any_of(name.begin(), name.end(),
                                      [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127 || c == '\\' || c == ':'; });
    if (name.empty() || name.front() == '.' || name.size() > 200 || bad_byte || is_windows_device(name))
      throw Error(ErrorCode::kInvalidArgument, what, ": ", printable(name), " cannot be part of a path");
    at = end + 1;
  }
}

}  // namespace minillm
