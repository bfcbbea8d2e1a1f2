// replay_test.cpp - runs a fuzz target over its corpus in a plain build, so that an input that once failed keeps being tried.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

/// Runs the target on a buffer of exactly `size` bytes, so that a sanitizer sees a read past the end.
void run(const std::vector<char>& bytes, size_t size) {
  const std::vector<uint8_t> input(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
  LLVMFuzzerTestOneInput(input.data(), input.size());
}

TEST(Replay, CorpusAndItsPrefixes) {
  run({}, 0);
  int n_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(MINILLM_FUZZ_CORPUS)) {
    SCOPED_TRACE(entry.path().filename().string());
    std::ifstream file(entry.path(), std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    const size_t step = 1 + bytes.size() / 512;  // At most 512 prefixes of a file.
    for (size_t size = 0; size < bytes.size(); size += step) run(bytes, size);
    run(bytes, bytes.size());
    ++n_files;
  }
  EXPECT_GT(n_files, 0) << "the corpus " << MINILLM_FUZZ_CORPUS << " is empty";
}

}  // namespace
