// tensor_source_test.cpp - typed reads of metadata, and which reader opens a path.
#include "io/tensor_source.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "io/gguf.h"
#include "support/expect_error.h"
#include "support/gguf_writer.h"
#include "support/safetensors_writer.h"
#include "support/temp_folder.h"

namespace minillm {
namespace {

using test::expect_error;
using test::GgufImage;
using test::GgufWriter;
using test::safetensors_file;
using test::TempFolder;

class TypedReads : public ::testing::Test {
 protected:
  const double infinity_ = std::numeric_limits<double>::infinity();
  GgufImage image_ = GgufWriter()
                         .add("integer", int32_t{-7})
                         .add("large", UINT64_MAX)
                         .add("number", 0.5)
                         .add("infinite", infinity_)
                         .add("flag", true)
                         .add("text", "hello")
                         .add("integers", std::vector<int32_t>{1, -2})
                         .add("numbers", std::vector<float>{0.5f, 1.0f})
                         .add("infinities", std::vector<double>{0.0, -infinity_})
                         .add("words", std::vector<std::string>{"a"})
                         .image();
  std::unique_ptr<TensorSource> source_ = read_gguf(image_.span(), "test.gguf");
};

TEST_F(TypedReads, GiveTheValueOrTheFallback) {
  const TensorSource& source = *source_;
  EXPECT_TRUE(source.has("integer"));
  EXPECT_FALSE(source.has("absent"));
  EXPECT_EQ(source.integer("integer"), -7);
  EXPECT_EQ(source.integer("integer", 3), -7);
  EXPECT_EQ(source.integer("absent", 3), 3);
  EXPECT_EQ(source.number("number"), 0.5);
  EXPECT_EQ(source.number("integer"), -7.0);
  EXPECT_EQ(source.number("large"), 0x1p64);
  EXPECT_EQ(source.number("absent", 2.5), 2.5);
  EXPECT_TRUE(source.boolean("flag", false));
  EXPECT_TRUE(source.boolean("absent", true));
  EXPECT_EQ(source.string("text"), "hello");
  EXPECT_EQ(source.string("absent", "fallback"), "fallback");
  EXPECT_EQ(source.integers("integers"), (std::vector<int64_t>{1, -2}));
  EXPECT_EQ(source.numbers("numbers"), (std::vector<double>{0.5, 1.0}));
  EXPECT_EQ(source.numbers("integers"), (std::vector<double>{1.0, -2.0}));
  EXPECT_EQ(source.strings("words"), (std::vector<std::string>{"a"}));
  EXPECT_EQ(source.find("absent"), nullptr);
}

TEST_F(TypedReads, SayWhatIsMissing) {
  const TensorSource& source = *source_;
  const std::string_view message = "test.gguf: key 'absent' is missing";
  expect_error(ErrorCode::kNotFound, message, [&] { source.integer("absent"); });
  expect_error(ErrorCode::kNotFound, message, [&] { source.number("absent"); });
  expect_error(ErrorCode::kNotFound, message, [&] { source.string("absent"); });
  expect_error(ErrorCode::kNotFound, message, [&] { source.strings("absent"); });
  expect_error(ErrorCode::kNotFound, message, [&] { source.integers("absent"); });
  expect_error(ErrorCode::kNotFound, message, [&] { source.numbers("absent"); });
}

TEST_F(TypedReads, RefuseOtherTypesAlsoWithAFallback) {
  const TensorSource& source = *source_;
  const auto refused = [](std::string_view message, auto&& read) { expect_error(ErrorCode::kCorruptFile, message, read); };
  refused("key 'number': met a number, expected an integer", [&] { source.integer("number"); });
  refused("met a string, expected an integer", [&] { source.integer("text", 3); });
  refused("met a boolean, expected an integer", [&] { source.integer("flag"); });
  refused("met 18446744073709551615, expected at most 2^63 - 1", [&] { source.integer("large"); });
  refused("met a string, expected a number", [&] { source.number("text", 1.0); });
  refused("met inf, expected a finite number", [&] { source.number("infinite"); });
  refused("met an integer, expected a boolean", [&] { source.boolean("integer", true); });
  refused("met an integer, expected a string", [&] { source.string("integer"); });
  refused("met an array of integers, expected a string", [&] { source.string("integers", ""); });
  refused("met an array of numbers, expected an array of integers", [&] { source.integers("numbers"); });
  refused("met an array of integers, expected an array of strings", [&] { source.strings("integers"); });
  refused("met an array of strings, expected an array of numbers", [&] { source.numbers("words"); });
  refused("element 1 is -inf, expected a finite number", [&] { source.numbers("infinities"); });
}

constexpr const char* kConfig =
    R"({"model_type":"llama","num_hidden_layers":1,"hidden_size":8,"intermediate_size":8,"num_attention_heads":2,"vocab_size":4,)"
    R"("max_position_embeddings":16,"rms_norm_eps":1e-5})";

class Opening : public ::testing::Test {
 protected:
  std::string gguf_ = GgufWriter().add("general.architecture", "llama").random_tensor("t", Dtype::kF32, {4}, 1).image().bytes;
  std::string weights_ = safetensors_file({{"a", "F32", {1}, "aaaa"}, {"b", "F16", {2}, "bbbb"}});
  std::string second_ = safetensors_file({{"c", "BF16", {1}, "cc"}});
  TempFolder folder_;

  void write_sharded(const std::string& weight_map) {
    folder_.write("config.json", kConfig);
    folder_.write("model-00001-of-00002.safetensors", weights_);
    folder_.write("model-00002-of-00002.safetensors", second_);
    folder_.write("model.safetensors.index.json", weight_map);
  }
  void expect_refused(ErrorCode code, std::string_view part, const std::string& name = "") {
    expect_error(code, part, [&] { open_tensor_source(name.empty() ? folder_.path() : folder_ / name); });
  }
};

TEST_F(Opening, AGgufFileUnderAnyName) {
  const auto source = open_tensor_source(folder_.write("model.bin", gguf_));
  EXPECT_EQ(source->format(), "gguf v3");
  EXPECT_EQ(source->path(), folder_ / "model.bin");
  EXPECT_NE(source->find("t"), nullptr);
}

TEST_F(Opening, AFolderWithOneGgufModel) {
  folder_.write("model.gguf", gguf_);
  EXPECT_NE(open_tensor_source(folder_.path())->find("t"), nullptr);
  folder_.write("other.gguf", gguf_);
  expect_refused(ErrorCode::kInvalidArgument, "holds 2 models");
}

TEST_F(Opening, AFolderWithOneSplitModel) {
  const auto shards = GgufWriter().random_tensor("t", Dtype::kF32, {4}, 1).random_tensor("u", Dtype::kF32, {4}, 1).split(2);
  for (int i = 0; i < 2; ++i) folder_.write(GgufWriter::shard_name("m", i, 2), shards[static_cast<size_t>(i)].bytes);
  EXPECT_EQ(open_tensor_source(folder_.path())->tensors().size(), 2u);
}

TEST_F(Opening, ASafetensorsFolderFileAndIndex) {
  folder_.write("config.json", kConfig);
  folder_.write("generation_config.json", R"({"eos_token_id":3})");
  folder_.write("tokenizer.json", "{\"version\":\"1.0\"}");
  folder_.write("tokenizer_config.json", R"({"chat_template":"from config"})");
  folder_.write("model.safetensors", weights_);
  for (const std::string& path : {folder_.path(), folder_.path() + "/", folder_ / "model.safetensors"}) {
    const auto source = open_tensor_source(path);
    EXPECT_EQ(source->format(), "safetensors");
    EXPECT_EQ(source->path(), path);
    EXPECT_FALSE(source->names_are_gguf());
    EXPECT_EQ(source->tensors().size(), 2u);
    EXPECT_EQ(source->integer("llama.block_count"), 1);
    EXPECT_EQ(source->integer("tokenizer.ggml.eos_token_id"), 3);
    EXPECT_EQ(source->string("tokenizer.chat_template"), "from config");
    EXPECT_EQ(source->string("general.name"), std::filesystem::path(folder_.path()).filename().string());
    EXPECT_EQ(source->tokenizer_json(), "{\"version\":\"1.0\"}");
    EXPECT_NO_THROW(source->check_unchanged());
  }
  folder_.write("chat_template.jinja", "from file");
  EXPECT_EQ(open_tensor_source(folder_.path())->string("tokenizer.chat_template"), "from file");
}

TEST_F(Opening, ShardsOfAnIndex) {
  write_sharded(
      R"({"metadata":{"total_size":10},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00001-of-00002.safetensors","c":"model-00002-of-00002.safetensors"}})");
  for (const std::string& path : {folder_.path(), folder_ / "model.safetensors.index.json"}) {
    const auto source = open_tensor_source(path);
    EXPECT_EQ(source->tensors().size(), 3u);
    EXPECT_EQ(source->find("c")->view.dtype, Dtype::kBF16);
  }
}

TEST_F(Opening, IndexNamesStayInTheFolder) {  // S8
  for (const char* name : {"/etc/passwd", "../model.safetensors", "sub/model.safetensors", "..\\\\model.safetensors", "C:model.safetensors",
                           "", ".", "..", "model.bin", "a\\u0000.safetensors", "\\n.safetensors/"}) {
    write_sharded(std::string(R"({"weight_map":{"a":")") + name + "\"}}");
    expect_refused(ErrorCode::kCorruptFile, "expected NAME.safetensors in the same folder");
  }
  write_sharded(R"({"weight_map":{"a":")" + std::string(300, 'n') + ".safetensors\"}}");
  expect_refused(ErrorCode::kCorruptFile, "expected NAME.safetensors in the same folder");
}

TEST_F(Opening, AnIndexMustAgreeWithItsFiles) {  // S8
  const std::string first = "\"model-00001-of-00002.safetensors\"", second = "\"model-00002-of-00002.safetensors\"";
  write_sharded("{\"weight_map\":{\"a\":\"gone.safetensors\"}}");
  expect_refused(ErrorCode::kNotFound, "gone.safetensors: cannot open");
  write_sharded("{\"weight_map\":{\"a\":" + first + ",\"c\":" + first + "}}");
  expect_refused(ErrorCode::kCorruptFile, "tensor 'c' is not in 'model-00001-of-00002.safetensors'");
  write_sharded("{\"weight_map\":{\"a\":" + first + ",\"b\":" + second + "}}");
  expect_refused(ErrorCode::kCorruptFile, "tensor 'b' is not in 'model-00002-of-00002.safetensors'");
  second_ = weights_;
  write_sharded("{\"weight_map\":{\"a\":" + first + ",\"b\":" + second + "}}");
  expect_refused(ErrorCode::kCorruptFile, "tensor 'a': occurs twice");
  write_sharded("{}");
  expect_refused(ErrorCode::kCorruptFile, "weight_map is missing");
  write_sharded("{\"weight_map\":[]}");
  expect_refused(ErrorCode::kCorruptFile, "expected an object");
  write_sharded("{\"weight_map\":{\"a\\n\":1}}");
  expect_refused(ErrorCode::kCorruptFile, "'a\\x0a': met number, expected a file name");
  std::string many = "{\"weight_map\":{";
  for (int i = 0; i <= 512; ++i)
    many.append(i > 0 ? ",\"" : "\"").append(std::to_string(i)).append("\":\"").append(std::to_string(i)).append(".safetensors\"");
  write_sharded(many + "}}");
  expect_refused(ErrorCode::kCorruptFile, "513 files, the limit is 512");
}

TEST_F(Opening, WhatIsMissingIsNamed) {
  expect_refused(ErrorCode::kNotFound, "cannot open: No such file", "absent.gguf");
  expect_refused(ErrorCode::kNotFound, "holds neither model.safetensors");
  folder_.write("model.safetensors", weights_);
  expect_refused(ErrorCode::kNotFound, "config.json: missing beside the weights");
  expect_refused(ErrorCode::kUnsupported, "it starts with 'hello \\x1b'",
                 std::filesystem::path(folder_.write("x", "hello \x1B")).filename().string());
  expect_refused(ErrorCode::kUnsupported, "it starts with ''", std::filesystem::path(folder_.write("empty", "")).filename().string());
  expect_refused(ErrorCode::kNotFound, "neither model.safetensors nor", "absent/model.safetensors.index.json");
}

TEST_F(Opening, ATokenizerOrConfigAboveItsLimitIsRefused) {
  folder_.write("model.safetensors", weights_);
  folder_.write("config.json", kConfig);
  folder_.write("tokenizer.json", "");
  std::filesystem::resize_file(folder_ / "tokenizer.json", (uint64_t{64} << 20) + 1);  // Sparse: no disk, no time.
  expect_refused(ErrorCode::kCorruptFile, "tokenizer.json: 67108865 bytes, expected at most 67108864");
  std::filesystem::resize_file(folder_ / "config.json", (uint64_t{16} << 20) + 1);
  expect_refused(ErrorCode::kCorruptFile, "config.json: 16777217 bytes, expected at most 16777216");
}

}  // namespace
}  // namespace minillm
