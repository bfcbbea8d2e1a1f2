// whole_file_test.cpp - a file that is whole or not there, and what is said when the disk says no.
#include "base/whole_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "support/temp_folder.h"

namespace minillm {
namespace {

int make_file(const std::string& path, const std::string& text) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  EXPECT_GE(fd, 0);
  EXPECT_TRUE(write_all(fd, std::as_bytes(std::span(text))));
  return fd;
}

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(WholeFile, TakesThePlaceOfAnOlderOneWithAllItsBytes) {
  const test::TempFolder folder;
  const std::string path = folder / "file", part = folder / "file.part";
  std::ofstream(path) << "old";
  EXPECT_EQ(publish_file(make_file(part, std::string(100000, 'n')), part, path), nullptr);
  EXPECT_EQ(text_of(path), std::string(100000, 'n'));
  EXPECT_FALSE(std::filesystem::exists(part));
}

TEST(WholeFile, SaysWhatCouldNotBeDone) {
  const test::TempFolder folder;
  const std::string part = folder / "file.part";
  EXPECT_STREQ(publish_file(make_file(part, "new"), part, folder / "no/such/folder"), "cannot rename");
  EXPECT_EQ(errno, ENOENT);
  EXPECT_STREQ(publish_file(-1, part, folder / "file"), "cannot flush to the disk");
  EXPECT_EQ(errno, EBADF);
  EXPECT_FALSE(std::filesystem::exists(folder / "file"));
}

TEST(WholeFile, AFullDiskIsNoticed) {
  const int fd = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  if (fd < 0) GTEST_SKIP() << "no /dev/full here";
  EXPECT_FALSE(write_all(fd, std::as_bytes(std::span("x", 1))));
  EXPECT_EQ(errno, ENOSPC);
  ::close(fd);
}

}  // namespace
}  // namespace minillm
