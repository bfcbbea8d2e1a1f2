// part_file_test.cpp - files that are whole or not there; SHA-256; other programs.
#include "io/part_file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "io/mapped_file.h"
#include "io/process.h"
#include "support/expect_error.h"
#include "support/temp_folder.h"

namespace minillm {
namespace {

using test::expect_error;
namespace fs = std::filesystem;

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST(Sha256, AgreesWithThePublishedExamples) {  // FIPS 180-4's examples, and every length around a block's end.
  Sha256 empty, abc, million;
  EXPECT_EQ(empty.hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  abc.update(bytes_of("abc"));
  EXPECT_EQ(abc.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  for (int i = 0; i < 1000; ++i) million.update(bytes_of(std::string(1000, 'a')));
  EXPECT_EQ(million.hex(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, DoesNotDependOnHowTheBytesArrive) {
  for (size_t n = 50; n < 135; ++n) {
    const std::string text(n, 'q');
    Sha256 whole, single;
    whole.update(bytes_of(text));
    for (const char& c : text) single.update(bytes_of(std::string_view(&c, 1)));
    EXPECT_EQ(whole.hex(), single.hex()) << n;
  }
}

TEST(PartFile, AppearsOnlyWhenCommitted) {
  test::TempFolder folder;
  const std::string path = folder.write("x", "old");
  {
    PartFile file(path, PartFile::Open::kFresh);
    file.write(bytes_of("new"));
    EXPECT_EQ(read_text_file(path, 100), "old");
    file.commit();
  }
  EXPECT_EQ(read_text_file(path, 100), "new");
  EXPECT_FALSE(fs::exists(path + ".part"));
}

TEST(PartFile, GoesOnAfterWhatIsThereAndItsHashCoversAll) {
  test::TempFolder folder;
  { PartFile(folder / "x", PartFile::Open::kFresh).write(bytes_of("ab")); }
  PartFile file(folder / "x", PartFile::Open::kResume);
  EXPECT_EQ(file.size(), 2u);
  file.write(bytes_of("c"));
  EXPECT_EQ(file.sha256(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  file.restart();
  EXPECT_EQ(file.size(), 0u);
  file.write(bytes_of("abc"));
  EXPECT_EQ(file.sha256(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  file.discard();
  EXPECT_FALSE(fs::exists((folder / "x") + ".part"));
}

TEST(PartFile, SaysWhyItCannotWriteAndKeepsTheOldFile) {
  test::TempFolder folder;
  const std::string path = folder.write("x", "old");
  expect_error(ErrorCode::kDevice, "No such file", [&] { PartFile(folder / "none/x", PartFile::Open::kFresh); });
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, SIG_IGN);  // Then a write past the limit fails with EFBIG, as one to a full disk does with ENOSPC.
  const rlimit small{1000, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  expect_error(ErrorCode::kDevice, "cannot write: File too large", [&] { write_whole_file(path, std::string(5000, 'x')); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(read_text_file(path, 100), "old");
}

TEST(PartFile, IsOldOrNewAfterAKillAtAnyTime) {
  test::TempFolder folder;
  const std::string path = folder / "x", a(300'000, 'a'), b(200'000, 'b');
  write_whole_file(path, a);
  for (int i = 0; i < 50; ++i) {
    const pid_t pid = ::fork();
    if (pid == 0)
      for (;;) {
        write_whole_file(path, b);
        write_whole_file(path, a);
      }
    ::usleep(static_cast<useconds_t>(500 + i * 997 % 5000));  // Spread over the steps of a write.
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    const std::string found = read_text_file(path, 1 << 20);
    EXPECT_TRUE(found == a || found == b) << "kill " << i << ": " << found.size() << " bytes";
  }
}

TEST(RequireSpace, NamesWhatIsMissing) {
  test::TempFolder folder;
  EXPECT_NO_THROW(require_space(folder.path(), 1));
  expect_error(ErrorCode::kDevice, "are free", [&] { require_space(folder.path(), uint64_t{1} << 60); });
}

TEST(MakeFolders, SaysWhyNot) {
  test::TempFolder folder;
  const std::string file = folder.write("file", "");
  EXPECT_NO_THROW(make_folders(folder / "a/b"));
  expect_error(ErrorCode::kDevice, "cannot make the folder", [&] { make_folders(file + "/b"); });
}

TEST(FolderLock, IsHeldByOneAtATime) {
  test::TempFolder folder;
  {
    FolderLock first(folder.path()), second(folder.path());
    EXPECT_TRUE(first.held());
    EXPECT_FALSE(second.held());
    EXPECT_FALSE(second.try_again());
  }
  EXPECT_TRUE(FolderLock(folder.path()).held());
  expect_error(ErrorCode::kDevice, "cannot open", [&] { FolderLock lock(folder / "none"); });
}

TEST(RunProcess, GivesTheExitCodeAndTheLastWords) {
  const auto go_on = [] { return true; };
  const ProcessResult result = run_process({"sh", "-c", "echo out; echo \"last $WORD\" >&2; exit 3"}, {{"WORD", "words"}}, go_on);
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_EQ(result.last_words, "last words\n");
  EXPECT_EQ(run_process({"sh", "-c", "kill -9 $$"}, {}, go_on).exit_code, 128 + 9);
  expect_error(ErrorCode::kNotFound, "cannot run it", [&] { run_process({"no-such-program-here"}, {}, go_on); });
}

TEST(RunProcess, EndsEverythingItStartedWhenCancelled) {
  int ticks = 0;
  const auto start = std::chrono::steady_clock::now();
  expect_error(ErrorCode::kCancelled, "cancelled", [&] {
    run_process({"sh", "-c", "sleep 60 & sleep 60"}, {}, [&] { return ++ticks < 2; });
  });
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

}  // namespace
}  // namespace minillm
