// transfer.cpp - libcurl, one hop at a time: curl never follows a redirect itself, so each target passes our own check first.
#include "io/transfer.h"

#include <curl/curl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <exception>
#include <memory>
#include <utility>

#include "io/url_policy.h"
#include "minillm/error.h"

namespace minillm {
namespace {

constexpr int kMaxRedirects = 10;
constexpr size_t kMaxHeaderBytes = 64 << 10;

struct FreeEasy {
  void operator()(CURL* curl) const noexcept { curl_easy_cleanup(curl); }
};
struct FreeList {
  void operator()(curl_slist* list) const noexcept { curl_slist_free_all(list); }
};
using Headers = std::unique_ptr<curl_slist, FreeList>;

void add_header(Headers& headers, const std::string& line) {
  curl_slist* longer = curl_slist_append(headers.get(), line.c_str());
  if (longer == nullptr) throw std::bad_alloc();
  (void)headers.release();
  headers.reset(longer);
}

/// With a proxy the address that we connect to is the proxy's, and it is the proxy that resolves names.
bool uses_proxy() {
  for (const char* name : {"https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY"})
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') return true;
  return false;
}

/// State of one hop that curl's callbacks share. They must not throw: what they would have thrown waits in `failure`.
struct Hop {
  CURL* curl = nullptr;
  Response response = {};
  const Body* body = nullptr;
  const std::function<bool()>* keep_going = nullptr;
  bool may_be_private = false, refused_private = false, cancelled = false;
  size_t header_bytes = 0;
  std::exception_ptr failure = {};
};

size_t on_header(char* data, size_t, size_t n, void* user) noexcept {
  Hop& hop = *static_cast<Hop*>(user);
  try {
    const std::string line(data, n);
    if ((hop.header_bytes += n) > kMaxHeaderBytes)
      throw Error(ErrorCode::kDevice, "the server sends more than ", kMaxHeaderBytes, " bytes of headers");
    if (line.rfind("HTTP/", 0) == 0) hop.response.headers.clear();  // Another response: after "100 Continue", say.
    const size_t colon = line.find(':');
    if (colon == std::string::npos) return n;
    std::string name = line.substr(0, colon);
    for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    const size_t begin = line.find_first_not_of(" \t", colon + 1), end = line.find_last_not_of(" \t\r\n");
    hop.response.headers[name] = begin == std::string::npos || end < begin ? "" : line.substr(begin, end - begin + 1);
    return n;
  } catch (...) {
    hop.failure = std::current_exception();
    return 0;
  }
}

size_t on_body(char* data, size_t, size_t n, void* user) noexcept {
  Hop& hop = *static_cast<Hop*>(user);
  try {
    curl_easy_getinfo(hop.curl, CURLINFO_RESPONSE_CODE, &hop.response.status);
    if (hop.response.status == 200 || hop.response.status == 206) (*hop.body)(hop.response, std::as_bytes(std::span(data, n)));
    return n;
  } catch (...) {
    hop.failure = std::current_exception();
    return 0;
  }
}

int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) noexcept {
  Hop& hop = *static_cast<Hop*>(user);
  try {
    hop.cancelled = !(*hop.keep_going)();
  } catch (...) {
    hop.failure = std::current_exception();
    return 1;
  }
  return hop.cancelled ? 1 : 0;
}

/// Sees each address after the name was resolved, and right before it is connected to.
curl_socket_t on_open_socket(void* user, curlsocktype, curl_sockaddr* address) noexcept {
  Hop& hop = *static_cast<Hop*>(user);
  if (!hop.may_be_private && is_private_address(&address->addr)) {
    hop.refused_private = true;
    return CURL_SOCKET_BAD;
  }
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

bool another_try_may_help(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
      return true;
    default:
      return false;
  }
}

void set_options(CURL* curl, Hop& hop, const std::string& url, const DownloadLimits& limits, const Headers& headers, char* error_text) {
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "minillm");
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, static_cast<long>(limits.connect_seconds));
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, static_cast<long>(limits.stall_seconds));
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error_text);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, &on_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &hop);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &on_body);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &hop);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, &on_progress);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &hop);
  curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, &on_open_socket);
  curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, &hop);
  // Certificates where the environment says, as the curl command does; the library alone would not look.
  if (const char* bundle = std::getenv("CURL_CA_BUNDLE"); bundle != nullptr && *bundle != '\0')
    curl_easy_setopt(curl, CURLOPT_CAINFO, bundle);
}

void run(Hop& hop, const std::string& url, const DownloadLimits& limits, const Headers& headers) {
  const std::unique_ptr<CURL, FreeEasy> curl(curl_easy_init());
  if (!curl) throw Error(ErrorCode::kOutOfMemory, "curl: cannot start");
  std::array<char, CURL_ERROR_SIZE> error_text{};
  hop.curl = curl.get();
  set_options(curl.get(), hop, url, limits, headers, error_text.data());
  const CURLcode code = curl_easy_perform(curl.get());
  if (hop.failure) std::rethrow_exception(hop.failure);
  if (hop.cancelled) throw Error(ErrorCode::kCancelled, "download: cancelled");
  if (hop.refused_private && code != CURLE_OK)
    throw Error(ErrorCode::kDevice, url, ": leads to an address inside a private network, which only the host you name may have");
  const std::string reason = error_text[0] != '\0' ? error_text.data() : curl_easy_strerror(code);
  if (another_try_may_help(code)) throw Interrupted(reason);
  if (code != CURLE_OK) throw Error(ErrorCode::kDevice, url, ": ", reason);
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &hop.response.status);
}

bool is_redirect(long status) { return status == 301 || status == 302 || status == 303 || status == 307 || status == 308; }

std::string unquoted(const std::string& etag) {
  const size_t begin = etag.find('"'), end = etag.rfind('"');
  return begin == std::string::npos || end == begin ? etag : etag.substr(begin + 1, end - begin - 1);
}

}  // namespace

Response transfer(const Request& request, const DownloadLimits& limits, const Body& body, const std::function<bool()>& keep_going) {
  static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (started != CURLE_OK) throw Error(ErrorCode::kDevice, "curl: ", curl_easy_strerror(started));
  const UrlParts asked = checked_url(request.url);
  std::string url = request.url, linked_etag;
  for (int n_redirects = 0;; ++n_redirects) {
    const UrlParts target = checked_url(url);
    const bool same_host = target.same_origin(asked);
    const bool both_here = is_loopback_host(asked.host) && is_loopback_host(target.host);
    Hop hop{.body = &body, .keep_going = &keep_going, .may_be_private = same_host || both_here || uses_proxy()};
    Headers headers;
    if (same_host && !request.token.empty()) add_header(headers, "Authorization: Bearer " + request.token);
    if (request.first_byte > 0) {
      add_header(headers, "Range: bytes=" + std::to_string(request.first_byte) + "-");
      add_header(headers, "If-Range: " + request.if_range);
    }
    run(hop, url, limits, headers);
    if (same_host && linked_etag.empty()) linked_etag = unquoted(hop.response.header("x-linked-etag"));
    if (!is_redirect(hop.response.status)) {
      hop.response.linked_etag = linked_etag;
      return std::move(hop.response);
    }
    if (n_redirects == kMaxRedirects) throw Error(ErrorCode::kDevice, request.url, ": more than ", kMaxRedirects, " redirects");
    url = redirect_target(url, hop.response.header("location"));
  }
}

}  // namespace minillm
