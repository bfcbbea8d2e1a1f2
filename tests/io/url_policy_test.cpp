// url_policy_test.cpp - addresses that are not fetched from, and names that never become paths.
#include "io/url_policy.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <cstring>

#include "support/expect_error.h"

namespace minillm {
namespace {

using test::expect_error;

TEST(CheckedUrl, TakesHttpsAndHttpFromThisMachineAlone) {
  EXPECT_EQ(checked_url("https://Example.ORG/x").host, "example.org");
  EXPECT_EQ(checked_url("https://example.org/x").port, "443");
  EXPECT_EQ(checked_url("http://127.0.0.1:80/x").port, "80");
  EXPECT_NO_THROW(checked_url("http://localhost:8080"));
  EXPECT_NO_THROW(checked_url("http://[::1]:8080"));
  for (const char* url : {"http://example.org", "http://127.0.0.2", "ftp://127.0.0.1", "file:///etc/passwd", "", "x", "https://",
                          "https://user@example.org", "https://user:word@example.org", "http://localhost.example.org"})
    EXPECT_THROW(checked_url(url), Error) << url;
}

TEST(RedirectTarget, ResolvesAndNeverLeavesHttps) {
  EXPECT_EQ(redirect_target("https://example.org/a/b", "/c"), "https://example.org/c");
  EXPECT_EQ(redirect_target("https://example.org/a/b", "https://cdn.example.com/x?y"), "https://cdn.example.com/x?y");
  expect_error(ErrorCode::kInvalidArgument, "from https", [] { redirect_target("https://example.org/", "http://127.0.0.1/"); });
  EXPECT_THROW(redirect_target("https://example.org/", "file:///etc/passwd"), Error);
  EXPECT_THROW(redirect_target("http://127.0.0.1/", "http://192.168.0.1/"), Error);
}

bool is_private(const char* text) {
  sockaddr_in v4{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {}, .sin_zero = {}};
  if (::inet_pton(AF_INET, text, &v4.sin_addr) == 1) return is_private_address(reinterpret_cast<sockaddr*>(&v4));
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  EXPECT_EQ(::inet_pton(AF_INET6, text, &v6.sin6_addr), 1) << text;
  return is_private_address(reinterpret_cast<sockaddr*>(&v6));
}

TEST(IsPrivateAddress, KnowsTheRangesInsideNetworks) {
  for (const char* address : {"127.0.0.1",
                              "127.255.255.255",
                              "10.0.0.1",
                              "172.16.0.1",
                              "172.31.255.255",
                              "192.168.1.1",
                              "169.254.169.254",
                              "100.64.0.1",
                              "0.0.0.0",
                              "224.0.0.1",
                              "255.255.255.255",
                              "::1",
                              "::",
                              "fe80::1",
                              "fc00::1",
                              "fd12::1",
                              "ff02::1",
                              "::ffff:10.0.0.1",
                              "::ffff:169.254.169.254",
                              "64:ff9b::a9fe:a9fe"})
    EXPECT_TRUE(is_private(address)) << address;
  for (const char* address : {"8.8.8.8", "172.32.0.1", "172.15.255.255", "192.169.0.1", "100.128.0.1", "9.255.255.255", "11.0.0.0",
                              "2001:4860:4860::8888", "::ffff:8.8.8.8"})
    EXPECT_FALSE(is_private(address)) << address;
  sockaddr other{.sa_family = AF_UNIX, .sa_data = {}};
  EXPECT_TRUE(is_private_address(&other));
}

TEST(CheckPathComponents, TakesNamesOfModelsAndNothingThatLeavesTheFolder) {
  for (const char* path : {"model.gguf", "OWNER/REPO", "a/b/c-00001-of-00002.gguf", "Qwen2.5-0.5B_x (1).gguf", "console.txt"})
    EXPECT_NO_THROW(check_path_components(path, "test")) << path;
  for (const std::string& path :
       {std::string(""), std::string("/etc/passwd"), std::string("../x"), std::string("a/../b"), std::string("a//b"), std::string("a/"),
        std::string("."), std::string(".hidden"), std::string("a\\b"), std::string("c:x"), std::string("nul"), std::string("COM1.gguf"),
        std::string("a\0b", 3), std::string("a\nb"), std::string(300, 'x')})
    expect_error(ErrorCode::kInvalidArgument, "cannot be part of a path", [&] { check_path_components(path, "test"); });
}

}  // namespace
}  // namespace minillm
