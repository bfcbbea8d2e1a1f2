// loopback_server.h - an HTTP server on 127.0.0.1 for tests: one handler writes the raw answer, so that it can also misbehave.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace minillm::test {

/// What the client sent: "GET /path HTTP/1.1" and the header lines.
struct HttpRequest {
  std::string path, head;
  /// Value of a header (its name as the client writes it), or empty.
  std::string header(const std::string& name) const {
    const size_t at = head.find("\r\n" + name + ": ");
    if (at == std::string::npos) return "";
    const size_t begin = at + name.size() + 4;
    return head.substr(begin, head.find("\r\n", begin) - begin);
  }
};

class LoopbackServer {
 public:
  /// Gets the request and the connection's descriptor; the connection is closed after it returns.
  using Handler = std::function<void(const HttpRequest&, int fd)>;

  explicit LoopbackServer(Handler handler) : handler_(std::move(handler)), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener_, generic, size) != 0 || ::listen(listener_, 16) != 0 || ::getsockname(listener_, generic, &size) != 0)
      throw std::runtime_error("no loopback server");
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~LoopbackServer() {
    stopping_ = true;
    thread_.join();
    ::close(listener_);
  }
  LoopbackServer(const LoopbackServer&) = delete;
  LoopbackServer& operator=(const LoopbackServer&) = delete;

  std::string url(const std::string& path = "", const std::string& host = "127.0.0.1") const {
    return "http://" + host + ":" + std::to_string(port_) + path;
  }
  std::vector<HttpRequest> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  bool stopping() const { return stopping_; }

  static void send(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return;  // The client went away, as clients may.
      bytes.remove_prefix(static_cast<size_t>(n));
    }
  }
  /// A whole answer; `headers` as "Name: value\r\n" lines.
  static void answer(int fd, int status, const std::string& headers, std::string_view body) {
    send(fd, "HTTP/1.1 " + std::to_string(status) + " Status\r\nConnection: close\r\nContent-Length: " + std::to_string(body.size()) +
                 "\r\n" + headers + "\r\n");
    send(fd, body);
  }

 private:
  bool readable(int fd) const {
    while (!stopping_) {
      pollfd wait{fd, POLLIN, 0};
      if (::poll(&wait, 1, 20) > 0) return true;
    }
    return false;
  }

  void serve() {
    while (readable(listener_)) {
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      std::string head;
      char buffer[4096];
      while (head.find("\r\n\r\n") == std::string::npos && readable(fd)) {
        const ssize_t n = ::read(fd, buffer, sizeof(buffer));
        if (n <= 0) break;
        head.append(buffer, static_cast<size_t>(n));
      }
      const size_t begin = head.find(' '), end = head.find(' ', begin + 1);
      if (end != std::string::npos) {
        const HttpRequest request{head.substr(begin + 1, end - begin - 1), head};
        {
          const std::lock_guard lock(mutex_);
          requests_.push_back(request);
        }
        handler_(request, fd);
      }
      ::close(fd);
    }
  }

  Handler handler_;
  int listener_;
  int port_ = 0;
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;
  std::vector<HttpRequest> requests_;
  std::thread thread_;
};

}  // namespace minillm::test
