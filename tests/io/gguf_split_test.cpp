// gguf_split_test.cpp - shards that contradict each other, are missing, or point elsewhere (G19).
#include <gtest/gtest.h>

#include <filesystem>

#include "io/gguf.h"
#include "support/expect_error.h"
#include "support/gguf_writer.h"
#include "support/temp_folder.h"

namespace minillm {
namespace {

using test::expect_error;
using test::GgufImage;
using test::GgufWriter;
using test::TempFolder;

class GgufSplit : public ::testing::Test {
 protected:
  GgufSplit() {
    GgufWriter writer;
    writer.add("general.architecture", "llama").add("general.name", "whole");
    for (int i = 0; i < 6; ++i) writer.random_tensor("t" + std::to_string(i), Dtype::kF32, {8}, 1);
    shards_ = writer.split(3);
  }
  /// Writes the shards and opens the second.
  std::unique_ptr<TensorSource> open() {
    for (int i = 0; i < 3; ++i) folder_.write(GgufWriter::shard_name("m", i, 3), shards_[static_cast<size_t>(i)].bytes);
    return open_gguf(path(1));
  }
  std::string path(int index) const { return folder_ / GgufWriter::shard_name("m", index, 3); }
  void expect_refused(std::string_view part, ErrorCode code = ErrorCode::kCorruptFile) {
    expect_error(code, part, [&] { open(); });
  }

  std::vector<GgufImage> shards_;
  TempFolder folder_;
};

TEST_F(GgufSplit, AMissingShardIsNamed) {
  open();
  std::filesystem::remove(path(2));
  expect_error(ErrorCode::kNotFound, "m-00003-of-00003.gguf: cannot open", [&] { open_gguf(path(1)); });
}

TEST_F(GgufSplit, ShardNumbersAreChecked) {
  shards_[2].put("key/split.no/value", uint16_t{1});
  expect_refused("says that it is shard 1 (from 0) of 3, expected 2 of 3");
}

TEST_F(GgufSplit, TheOpenedShardMustBeWhereItsNameSays) {
  shards_[1].put("key/split.no/value", uint16_t{0});
  expect_refused("a shard's name ends in");
  shards_[1].put("key/split.no/value", uint16_t{7});
  expect_refused("a shard's name ends in");
}

TEST_F(GgufSplit, ShardCountsAreChecked) {
  shards_[0].put("key/split.count/value", uint16_t{4});
  expect_refused("of 4, expected 0 of 3");
}

TEST_F(GgufSplit, TooManyShardsAreRefused) {
  shards_[1].put("key/split.count/value", uint16_t{65535});
  expect_refused("met 65535, the limit is");
}

TEST_F(GgufSplit, TensorCountsAreChecked) {
  shards_[2].put("key/split.tensors.count/value", int32_t{5});
  expect_refused("differs from the other shards'");
}

TEST_F(GgufSplit, TheWholeMustHoldTheStatedTensors) {
  for (GgufImage& shard : shards_) shard.put("key/split.tensors.count/value", int32_t{7});
  expect_refused("7 tensors expected, the 3 shards hold 6");
}

TEST_F(GgufSplit, SplitKeysMustBeSmallIntegers) {
  shards_[1].put("key/split.tensors.count/value", int32_t{-1});
  expect_refused("expected an integer from 0 to 2^31 - 1");
  shards_[1].put("key/split.tensors.count/type", uint32_t{6});
  expect_refused("expected an integer from 0 to 2^31 - 1");
}

TEST_F(GgufSplit, ATensorInTwoShardsIsRefused) {
  GgufImage& shard = shards_[2];
  shard.bytes[shard.at("tensor/t4/name") + 1] = '0';
  expect_refused("tensor 't0': occurs twice");
}

TEST_F(GgufSplit, AnotherModelsShardIsRefused) {
  GgufWriter other;
  other.add("general.architecture", "llama").add("general.name", "other");
  for (int i = 0; i < 6; ++i) other.random_tensor("t" + std::to_string(i), Dtype::kF32, {8}, 1);
  GgufImage shard = other.split(3)[0];  // The first, which repeats the model's name.
  shard.put("key/split.no/value", uint16_t{2});
  shards_[2] = shard;
  expect_refused("is this another model's shard?");
}

TEST_F(GgufSplit, AShardIsNoModelInMemory) {
  expect_error(ErrorCode::kUnsupported, "a shard of a split model", [&] { read_gguf(shards_[0].span(), "x"); });
}

TEST_F(GgufSplit, NamesStayInTheFolder) {
  // The name is made from the opened path and two numbers: nothing in a file can add a component to it.
  shards_[1].put("key/split.count/value", uint16_t{2});
  expect_refused("a shard's name ends in");
}

}  // namespace
}  // namespace minillm
