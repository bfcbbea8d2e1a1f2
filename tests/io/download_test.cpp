// download_test.cpp - downloads from a server that cuts, stalls, lies and redirects.
#include "io/download.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <sstream>

#include "io/mapped_file.h"
#include "io/sha256.h"
#include "support/expect_error.h"
#include "support/loopback_server.h"
#include "support/random.h"
#include "support/temp_folder.h"

namespace minillm {
namespace {

using test::expect_error;
using test::HttpRequest;
using test::LoopbackServer;

constexpr DownloadLimits kQuick{.connect_seconds = 5, .stall_seconds = 1, .tries = 3, .retry_wait_ms = 1};

std::string sha256_of(const std::string& bytes) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(bytes)));
  return hash.hex();
}

/// 200 kB that no two parts of are alike.
std::string make_content(uint64_t seed = 1) {
  test::Random random(seed);
  std::string bytes(200'000, '\0');
  for (char& c : bytes) c = static_cast<char>(random.bits());
  return bytes;
}

class DownloadFile : public ::testing::Test {
 protected:
  DownloadFile() {
    for (const char* name : {"http_proxy", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY"}) ::unsetenv(name);
  }
  void fetch(const std::string& url, const std::string& sha256 = "", uint64_t size = 0, const std::string& token = "") {
    download_file({.url = url, .token = token, .sha256 = sha256, .size = size}, path_, kQuick, {});
  }
  std::string got() const { return read_text_file(path_, 1 << 20); }
  bool nothing_there() const { return !std::filesystem::exists(path_) && !std::filesystem::exists(path_ + ".part"); }

  test::TempFolder folder_;
  std::string path_ = folder_ / "model.gguf";
  const std::string content_ = make_content();
};

/// Serves `content` with ranges as RFC 9110 says, but sends at most `most` bytes of it before it hangs up.
void serve_in_pieces(const HttpRequest& request, int fd, const std::string& content, const std::string& etag, size_t most) {
  size_t first = 0;
  if (const std::string range = request.header("Range"); !range.empty() && request.header("If-Range") == etag)
    first = std::stoul(range.substr(range.find('=') + 1));
  std::ostringstream head;
  head << "HTTP/1.1 " << (first > 0 ? "206 Partial" : "200 OK") << "\r\nConnection: close\r\nETag: " << etag
       << "\r\nContent-Length: " << content.size() - first << "\r\n";
  if (first > 0) head << "Content-Range: bytes " << first << "-" << content.size() - 1 << "/" << content.size() << "\r\n";
  LoopbackServer::send(fd, head.str() + "\r\n");
  LoopbackServer::send(fd, std::string_view(content).substr(first, most));
}

TEST_F(DownloadFile, KeepsAWholeFileAndNothingElse) {
  LoopbackServer server([&](const HttpRequest&, int fd) { LoopbackServer::answer(fd, 200, "ETag: \"a\"\r\n", content_); });
  fetch(server.url("/x"), sha256_of(content_), content_.size());
  EXPECT_EQ(got(), content_);
  EXPECT_FALSE(std::filesystem::exists(path_ + ".part"));
  EXPECT_FALSE(std::filesystem::exists(path_ + ".part.from"));
}

TEST_F(DownloadFile, GoesOnWhereTheConnectionWasCut) {
  LoopbackServer server([&](const HttpRequest& request, int fd) { serve_in_pieces(request, fd, content_, "\"a\"", 30'000); });
  fetch(server.url("/x"), sha256_of(content_), content_.size());
  EXPECT_EQ(got(), content_);
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 7u);  // ceil(200,000 / 30,000): no byte came twice.
  EXPECT_EQ(requests[1].header("Range"), "bytes=30000-");
}

TEST_F(DownloadFile, GoesOnInAnotherRun) {
  bool cut = true;
  LoopbackServer server(
      [&](const HttpRequest& request, int fd) { serve_in_pieces(request, fd, content_, "\"a\"", cut ? 50'000 : 1 << 20); });
  const auto cancel_at_50k = [](uint64_t done) { return done < 50'000; };
  EXPECT_THROW(download_file({.url = server.url("/x"), .token = "", .sha256 = sha256_of(content_), .size = content_.size()}, path_, kQuick,
                             cancel_at_50k),
               Error);
  EXPECT_EQ(std::filesystem::file_size(path_ + ".part"), 50'000u);
  cut = false;
  const size_t before = server.requests().size();
  fetch(server.url("/x"), sha256_of(content_), content_.size());
  EXPECT_EQ(got(), content_);
  EXPECT_EQ(server.requests()[before].header("Range"), "bytes=50000-");
}

TEST_F(DownloadFile, StartsOverWhenTheFileChangedInBetween) {
  const std::string newer = make_content(2);
  int n = 0;
  LoopbackServer server([&](const HttpRequest& request, int fd) {
    if (n++ == 0)
      serve_in_pieces(request, fd, content_, "\"old\"", 40'000);
    else
      serve_in_pieces(request, fd, newer, "\"new\"", 1 << 20);
  });
  fetch(server.url("/x"));
  EXPECT_EQ(got(), newer);
}

TEST_F(DownloadFile, GivesUpOnASilentServer) {
  LoopbackServer server([&](const HttpRequest&, int fd) {
    LoopbackServer::send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc");
    ::sleep(2);
  });
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THROW(download_file({.url = server.url("/x"), .token = "", .sha256 = "", .size = 0}, path_,
                             {.connect_seconds = 5, .stall_seconds = 1, .tries = 1, .retry_wait_ms = 1}, {}),
               Error);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST_F(DownloadFile, RefusesOtherBytesThanExpected) {
  std::string corrupt = content_;
  corrupt[100'000] ^= 1;
  LoopbackServer server([&](const HttpRequest&, int fd) { LoopbackServer::answer(fd, 200, "ETag: \"a\"\r\n", corrupt); });
  expect_error(ErrorCode::kCorruptFile, "SHA-256 is " + sha256_of(corrupt),
               [&] { fetch(server.url("/x"), sha256_of(content_), content_.size()); });
  EXPECT_TRUE(nothing_there());
}

TEST_F(DownloadFile, ChecksTheSumThatTheHubPutsIntoItsHeader) {
  const std::string header = "X-Linked-Etag: \"" + sha256_of(make_content(3)) + "\"\r\n";
  LoopbackServer server([&](const HttpRequest&, int fd) { LoopbackServer::answer(fd, 200, header, content_); });
  expect_error(ErrorCode::kCorruptFile, "expected " + sha256_of(make_content(3)), [&] { fetch(server.url("/x")); });
  EXPECT_TRUE(nothing_there());
}

TEST_F(DownloadFile, RefusesAnotherLengthThanAnnounced) {
  LoopbackServer server([&](const HttpRequest& request, int fd) {
    if (request.path == "/endless") {
      LoopbackServer::send(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
      LoopbackServer::send(fd, content_);
    } else {
      LoopbackServer::answer(fd, 200, "", content_);
    }
  });
  expect_error(ErrorCode::kCorruptFile, "announced were 1000", [&] { fetch(server.url("/x"), "", 1000); });
  expect_error(ErrorCode::kCorruptFile, "more than the 1000 bytes", [&] { fetch(server.url("/endless"), "", 1000); });
}

TEST_F(DownloadFile, SaysWhenADiskCannotHoldIt) {
  LoopbackServer server(
      [&](const HttpRequest&, int fd) { LoopbackServer::send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10000000000000000\r\n\r\nabc"); });
  expect_error(ErrorCode::kDevice, "are needed", [&] { fetch(server.url("/x")); });
}

TEST_F(DownloadFile, RefusesARangeThatWasNotAskedFor) {
  int n = 0;
  LoopbackServer server([&](const HttpRequest& request, int fd) {
    if (n++ == 0) return serve_in_pieces(request, fd, content_, "\"a\"", 30'000);
    LoopbackServer::answer(fd, 206, "ETag: \"a\"\r\nContent-Range: bytes 10-19/200000\r\n", "0123456789");
  });
  expect_error(ErrorCode::kDevice, "asked for bytes from 30000", [&] { fetch(server.url("/x")); });
}

TEST_F(DownloadFile, TriesAgainWhenTheServerIsBusyAndNotWhenItRefuses) {
  LoopbackServer busy([&](const HttpRequest&, int fd) { LoopbackServer::answer(fd, 503, "", "later"); });
  expect_error(ErrorCode::kDevice, "HTTP 503 (tried 3 times)", [&] { fetch(busy.url("/x")); });
  EXPECT_EQ(busy.requests().size(), 3u);
  LoopbackServer missing([&](const HttpRequest&, int fd) { LoopbackServer::answer(fd, 404, "X-Error-Message: Entry not found\r\n", ""); });
  expect_error(ErrorCode::kNotFound, "Entry not found", [&] { fetch(missing.url("/x")); });
  EXPECT_EQ(missing.requests().size(), 1u);
  LoopbackServer locked([&](const HttpRequest&, int fd) { LoopbackServer::answer(fd, 401, "", ""); });
  expect_error(ErrorCode::kNotFound, "set HF_TOKEN", [&] { fetch(locked.url("/x")); });
}

TEST_F(DownloadFile, NeverSendsTheTokenToAnotherHost) {
  LoopbackServer store([&](const HttpRequest&, int fd) { LoopbackServer::answer(fd, 200, "", content_); });
  LoopbackServer hub([&](const HttpRequest& request, int fd) {
    if (request.path == "/here") return LoopbackServer::answer(fd, 302, "Location: /there\r\n", "");
    LoopbackServer::answer(fd, 302, "Location: " + store.url("/x", "localhost") + "\r\n", "");
  });
  fetch(hub.url("/here"), sha256_of(content_), content_.size(), "secret");
  EXPECT_EQ(got(), content_);
  for (const HttpRequest& request : hub.requests()) EXPECT_EQ(request.header("Authorization"), "Bearer secret") << request.path;
  EXPECT_EQ(store.requests().at(0).header("Authorization"), "");
}

TEST_F(DownloadFile, RefusesRedirectsToWhereItShouldNotGo) {
  for (const char* target :
       {"file:///etc/passwd", "ftp://example.org/x", "http://example.org/x", "http://169.254.169.254/latest", "gopher://x/",
        "http://user:word@127.0.0.1/x", "https://10.0.0.1/x", "https://[::1]:1/x", "https://169.254.169.254/", ""}) {
    LoopbackServer server(
        [&](const HttpRequest&, int fd) { LoopbackServer::answer(fd, 302, std::string("Location: ") + target + "\r\n", ""); });
    EXPECT_THROW(fetch(server.url("/x")), Error) << target;
    EXPECT_TRUE(!std::filesystem::exists(path_)) << target;
  }
  LoopbackServer circle([&](const HttpRequest&, int fd) { LoopbackServer::answer(fd, 302, "Location: /x\r\n", ""); });
  expect_error(ErrorCode::kDevice, "more than 10 redirects", [&] { fetch(circle.url("/x")); });
}

TEST_F(DownloadFile, EndsOnHeadersWithoutEnd) {
  LoopbackServer server([&](const HttpRequest&, int fd) {
    LoopbackServer::send(fd, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 10'000; ++i) LoopbackServer::send(fd, "X-Long: " + std::string(100, 'x') + "\r\n");
  });
  EXPECT_THROW(fetch(server.url("/x")), Error);
}

TEST(DownloadText, StopsAtItsLimitAndAtCancel) {
  LoopbackServer server([](const HttpRequest&, int fd) { LoopbackServer::answer(fd, 200, "", std::string(1000, 'x')); });
  EXPECT_EQ(download_text(server.url("/x"), "", 1000, kQuick, {}), std::string(1000, 'x'));
  expect_error(ErrorCode::kDevice, "longer than 999", [&] { download_text(server.url("/x"), "", 999, kQuick, {}); });
  expect_error(ErrorCode::kCancelled, "cancelled",
               [&] { download_text(server.url("/x"), "", 1000, kQuick, [](uint64_t) { return false; }); });
}

}  // namespace
}  // namespace minillm
