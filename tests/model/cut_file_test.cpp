// cut_file_test.cpp - a real model file whose download stopped half way: refused while loading, with the number of missing bytes.
#include <gtest/gtest.h>

#include <filesystem>

#include "minillm/model.h"
#include "support/expect_error.h"
#include "support/models.h"
#include "support/temp_folder.h"

namespace minillm {
namespace {

class CutFile : public ::testing::TestWithParam<const char*> {};

TEST_P(CutFile, IsRefusedWhereverTheDownloadStopped) {  // reliability row G14
  MINILLM_NEEDS_MODEL(whole, GetParam());
  const test::TempFolder folder;
  const std::string path = folder / "cut.gguf";
  std::filesystem::copy_file(whole, path);
  const auto size = std::filesystem::file_size(path);
  std::filesystem::resize_file(path, size - 1);
  test::expect_error(ErrorCode::kCorruptFile, "1 bytes are missing", [&] { MiniLLM::load(path); });
  for (uintmax_t tenth = 9; tenth > 0; --tenth) {
    std::filesystem::resize_file(path, size * tenth / 10);
    test::expect_error(ErrorCode::kCorruptFile, "bytes are missing", [&] { MiniLLM::load(path); });
  }
  std::filesystem::resize_file(path, size / 100);  // Within the vocabulary, before any tensor.
  test::expect_error(ErrorCode::kCorruptFile, "cut.gguf", [&] { MiniLLM::load(path); });
}

INSTANTIATE_TEST_SUITE_P(Models, CutFile, ::testing::Values("smollm2", "gemma3-270m"),
                         [](const auto& test) { return test.param[0] == 's' ? "SmolLM2" : "Gemma3"; });

}  // namespace
}  // namespace minillm
