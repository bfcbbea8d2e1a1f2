// mapped_file_test.cpp - mapping a file, and noticing that it changed.
#include "io/mapped_file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>

#include "io/tensor_source.h"
#include "support/expect_error.h"
#include "support/gguf_writer.h"
#include "support/temp_folder.h"

namespace minillm {
namespace {

using test::expect_error;
using test::TempFolder;

TEST(MappedFile, HoldsTheFilesBytes) {
  const TempFolder folder;
  MappedFile file(folder.write("f", "hello"));
  ASSERT_EQ(file.bytes().size(), 5u);
  EXPECT_EQ(static_cast<char>(file.bytes()[4]), 'o');
  EXPECT_EQ(file.path(), folder / "f");
  const MappedFile moved(std::move(file));
  EXPECT_EQ(static_cast<char>(moved.bytes()[0]), 'h');
  EXPECT_NO_THROW(moved.check_unchanged());
}

TEST(MappedFile, AnEmptyFileHasNoBytes) {
  const TempFolder folder;
  EXPECT_TRUE(MappedFile(folder.write("f", "")).bytes().empty());
}

TEST(MappedFile, SaysWhyAPathCannotBeOpened) {
  const TempFolder folder;
  expect_error(ErrorCode::kNotFound, "absent: cannot open: No such file or directory", [&] { MappedFile(folder / "absent"); });
  expect_error(ErrorCode::kUnsupported, "not a regular file", [&] { MappedFile(folder.path()); });
  expect_error(ErrorCode::kUnsupported, "not a regular file", [] { MappedFile("/dev/zero"); });
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  expect_error(ErrorCode::kUnsupported, "not a regular file", [&] { MappedFile(folder / "pipe"); });  // And does not hang.
}

TEST(MappedFile, NoticesAFileThatIsCutOrGrown) {
  const TempFolder folder;
  const MappedFile file(folder.write("f", "hello"));
  std::filesystem::resize_file(folder / "f", 3);
  expect_error(ErrorCode::kCorruptFile, "changed while it was read: 5 bytes before, 3 now", [&] { file.check_unchanged(); });
}

TEST(MappedFile, NoticesAFileThatIsWrittenTo) {
  const TempFolder folder;
  const MappedFile file(folder.write("f", "hello"));
  std::filesystem::last_write_time(folder / "f", std::filesystem::file_time_type::clock::now() + std::chrono::hours(1));
  expect_error(ErrorCode::kCorruptFile, "was written to while it was read", [&] { file.check_unchanged(); });
}

TEST(MappedFile, AFileReplacedByRenameKeepsItsOldBytes) {
  const TempFolder folder;
  const MappedFile file(folder.write("f", "hello"));
  std::filesystem::rename(folder.write("new", "HELLO WORLD"), folder / "f");
  EXPECT_EQ(static_cast<char>(file.bytes()[0]), 'h');
  EXPECT_NO_THROW(file.check_unchanged());
}

TEST(MappedFile, ASourceNoticesAFileCutAfterOpening) {
  const TempFolder folder;
  const std::string path = folder.write("m.gguf", test::GgufWriter().random_tensor("t", Dtype::kF32, {4}, 1).image().bytes);
  const auto source = open_tensor_source(path);
  EXPECT_NO_THROW(source->check_unchanged());
  std::filesystem::resize_file(path, 10);
  expect_error(ErrorCode::kCorruptFile, "10 now", [&] { source->check_unchanged(); });
}

TEST(MappedFile, AFileCutWhileMappedReadsAsZerosAndIsNoticed) {
  const TempFolder folder;
  const std::string content(5 * 4096 + 17, 'x');
  const MappedFile file(folder.write("f", content)), other(folder.write("other", content));
  std::filesystem::resize_file(folder / "f", 4096);
  int64_t n_zeros = 0;
  for (const std::byte byte : file.bytes()) n_zeros += byte == std::byte{0};
  EXPECT_EQ(n_zeros, 4 * 4096 + 17);
  std::filesystem::resize_file(folder / "f", content.size());  // Also where the size is the old one again.
  expect_error(ErrorCode::kCorruptFile, "a part could not be read", [&] { file.check_unchanged(); });
  EXPECT_NO_THROW(other.check_unchanged());
}

TEST(MappedFileDeathTest, FaultsElsewhereStillKill) {
  const auto killed = [](int status) {  // A sanitizer's handler, which was there before ours, exits instead.
    return (WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) || (WIFEXITED(status) && WEXITSTATUS(status) != 0);
  };
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const TempFolder folder;
        const MappedFile guarded(folder.write("guarded", "x"));
        ::raise(SIGBUS);  // Its address is no mapping's.
        ::raise(SIGBUS);  // The default action is back.
      },
      killed, "");
}

TEST(ReadTextFile, GivesTheTextUpToItsLimit) {
  const TempFolder folder;
  const std::string path = folder.write("f", std::string("a\0b", 3));
  EXPECT_EQ(read_text_file(path, 3), std::string("a\0b", 3));
  expect_error(ErrorCode::kCorruptFile, "3 bytes, expected at most 2", [&] { read_text_file(path, 2); });
}

}  // namespace
}  // namespace minillm
