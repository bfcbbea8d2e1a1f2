// gguf_test.cpp - what valid GGUF files give.
#include "io/gguf.h"

#include <gtest/gtest.h>

#include "base/dtype.h"
#include "minillm/error.h"
#include "support/gguf_writer.h"
#include "support/temp_folder.h"

namespace minillm {
namespace {

using test::GgufImage;
using test::GgufWriter;
using test::TempFolder;

constexpr Dtype kEveryDtype[] = {Dtype::kF32,  Dtype::kF16,  Dtype::kBF16, Dtype::kI32,  Dtype::kQ4_0, Dtype::kQ4_1,
                                 Dtype::kQ5_0, Dtype::kQ5_1, Dtype::kQ8_0, Dtype::kQ4_K, Dtype::kQ5_K, Dtype::kQ6_K};

std::string bytes_of(const SourceTensor& tensor) { return {static_cast<const char*>(tensor.view.data), tensor.bytes}; }

TEST(Gguf, ReadsMetadataOfEveryType) {
  const GgufImage image = GgufWriter()
                              .add("u8", uint8_t{255})
                              .add("i8", int8_t{-128})
                              .add("u16", uint16_t{65535})
                              .add("i16", int16_t{-32768})
                              .add("u32", uint32_t{4294967295})
                              .add("i32", int32_t{-5})
                              .add("i64", INT64_MIN)
                              .add("u64", uint64_t{7})
                              .add("large", UINT64_MAX)
                              .add("f32", 1.5f)
                              .add("f64", -2.25)
                              .add("yes", true)
                              .add("no", false)
                              .add("text", "a\0b\xFF")
                              .image();
  const auto source = read_gguf(image.span(), "test");
  EXPECT_EQ(source->format(), "gguf v3");
  EXPECT_TRUE(source->names_are_gguf());
  EXPECT_EQ(source->integer("u8"), 255);
  EXPECT_EQ(source->integer("i8"), -128);
  EXPECT_EQ(source->integer("u16"), 65535);
  EXPECT_EQ(source->integer("i16"), -32768);
  EXPECT_EQ(source->integer("u32"), 4294967295);
  EXPECT_EQ(source->integer("i32"), -5);
  EXPECT_EQ(source->integer("i64"), INT64_MIN);
  EXPECT_EQ(source->integer("u64"), 7);
  EXPECT_EQ(std::get<uint64_t>(source->metadata().at("large")), UINT64_MAX);
  EXPECT_EQ(source->number("f32"), 1.5);
  EXPECT_EQ(source->number("f64"), -2.25);
  EXPECT_TRUE(source->boolean("yes", false));
  EXPECT_FALSE(source->boolean("no", true));
  EXPECT_EQ(source->string("text"), "a");
}

TEST(Gguf, ReadsArraysOfEveryType) {
  const GgufImage image = GgufWriter()
                              .add("u8", std::vector<uint8_t>{1, 255})
                              .add("i8", std::vector<int8_t>{-1})
                              .add("u16", std::vector<uint16_t>{2, 65535})
                              .add("i16", std::vector<int16_t>{-2})
                              .add("u32", std::vector<uint32_t>{4294967295})
                              .add("i32", std::vector<int32_t>{-3, 3})
                              .add("u64", std::vector<uint64_t>{4})
                              .add("i64", std::vector<int64_t>{INT64_MIN})
                              .add("f32", std::vector<float>{0.5f})
                              .add("f64", std::vector<double>{0.1, -0.1})
                              .add("bool", std::vector<bool>{true, false})
                              .add("text", std::vector<std::string>{"", "two"})
                              .add("empty", std::vector<int32_t>{})
                              .image();
  const auto source = read_gguf(image.span(), "test");
  using Integers = std::vector<int64_t>;
  EXPECT_EQ(source->integers("u8"), (Integers{1, 255}));
  EXPECT_EQ(source->integers("i8"), (Integers{-1}));
  EXPECT_EQ(source->integers("u16"), (Integers{2, 65535}));
  EXPECT_EQ(source->integers("i16"), (Integers{-2}));
  EXPECT_EQ(source->integers("u32"), (Integers{4294967295}));
  EXPECT_EQ(source->integers("i32"), (Integers{-3, 3}));
  EXPECT_EQ(source->integers("u64"), (Integers{4}));
  EXPECT_EQ(source->integers("i64"), (Integers{INT64_MIN}));
  EXPECT_EQ(source->numbers("f32"), (std::vector<double>{0.5}));
  EXPECT_EQ(source->numbers("f64"), (std::vector<double>{0.1, -0.1}));
  EXPECT_EQ(source->integers("bool"), (Integers{1, 0}));
  EXPECT_EQ(source->strings("text"), (std::vector<std::string>{"", "two"}));
  EXPECT_TRUE(source->integers("empty").empty());
}

TEST(Gguf, GivesTensorsOfEveryTypeRowMajorWithTheirBytes) {
  for (const uint32_t version : {2u, 3u}) {
    GgufWriter writer(version);
    for (const Dtype dtype : kEveryDtype) writer.random_tensor(std::string(name_of(dtype)), dtype, {3, 512}, /*seed=*/1);
    const GgufImage image = writer.image();
    const auto source = read_gguf(image.span(), "test");
    ASSERT_EQ(source->tensors().size(), std::size(kEveryDtype));
    for (size_t i = 0; i < std::size(kEveryDtype); ++i) {
      const Dtype dtype = kEveryDtype[i];
      const SourceTensor& tensor = source->tensors()[i];
      EXPECT_EQ(tensor.name, name_of(dtype));
      EXPECT_EQ(source->find(name_of(dtype)), &tensor);
      EXPECT_EQ(tensor.view.dtype, dtype);
      ASSERT_EQ(tensor.view.rank, 2);
      EXPECT_EQ(tensor.view.dim(0), 3);
      EXPECT_EQ(tensor.view.dim(1), 512);
      EXPECT_EQ(tensor.bytes, 3 * row_bytes(dtype, 512));
      EXPECT_EQ(bytes_of(tensor), test::tensor_bytes(dtype, 3, 512, 1)) << tensor.name;
    }
  }
}

TEST(Gguf, KeepsTheOrderOfUpToFourDimensions) {
  const GgufImage image = GgufWriter()
                              .random_tensor("one", Dtype::kF32, {5}, 1)
                              .random_tensor("three", Dtype::kF16, {2, 3, 4}, 2)
                              .random_tensor("four", Dtype::kF16, {2, 3, 4, 5}, 3)
                              .image();
  const auto source = read_gguf(image.span(), "test");
  const auto shape = [&](const char* name) {
    const ConstTensorView& view = source->find(name)->view;
    return std::vector<int64_t>(view.shape.begin(), view.shape.begin() + view.rank);
  };
  EXPECT_EQ(shape("one"), (std::vector<int64_t>{5}));
  EXPECT_EQ(shape("three"), (std::vector<int64_t>{2, 3, 4}));
  EXPECT_EQ(shape("four"), (std::vector<int64_t>{2, 3, 4, 5}));
}

TEST(Gguf, EveryAlignmentFrom8To65536PlacesTensors) {
  for (uint32_t alignment = 8; alignment <= 65536; alignment *= 2) {
    const GgufImage image = GgufWriter()
                                .add("general.alignment", alignment)
                                .random_tensor("a", Dtype::kF32, {3}, 1)
                                .random_tensor("b", Dtype::kQ4_0, {32}, 2)
                                .image();
    const auto source = read_gguf(image.span(), "test");
    EXPECT_EQ(bytes_of(*source->find("a")), test::tensor_bytes(Dtype::kF32, 1, 3, 1));
    EXPECT_EQ(bytes_of(*source->find("b")), test::tensor_bytes(Dtype::kQ4_0, 1, 32, 2));
  }
}

TEST(Gguf, AFileOfMetadataOnlyNeedsNoPadding) {
  const GgufImage image = GgufWriter().add("k", uint8_t{1}).image();
  const auto source = read_gguf(image.span().first(image.at("key/k/value") + 1), "test");
  EXPECT_EQ(source->integer("k"), 1);
  EXPECT_TRUE(source->tensors().empty());
}

TEST(Gguf, OpeningAnyShardGivesTheWholeModel) {
  GgufWriter writer;
  writer.add("general.architecture", "llama");
  for (int i = 0; i < 7; ++i) writer.random_tensor("t" + std::to_string(i), Dtype::kF32, {4, i + 1}, static_cast<uint64_t>(i));
  const TempFolder folder;
  const auto shards = writer.split(3);
  for (int i = 0; i < 3; ++i) folder.write(GgufWriter::shard_name("model", i, 3), shards[static_cast<size_t>(i)].bytes);
  for (int i = 0; i < 3; ++i) {
    const auto source = open_gguf(folder / GgufWriter::shard_name("model", i, 3));
    EXPECT_EQ(source->string("general.architecture"), "llama");
    ASSERT_EQ(source->tensors().size(), 7u);
    for (int t = 0; t < 7; ++t) {
      const SourceTensor& tensor = source->tensors()[static_cast<size_t>(t)];
      EXPECT_EQ(tensor.name, "t" + std::to_string(t));
      EXPECT_EQ(bytes_of(tensor), test::tensor_bytes(Dtype::kF32, 4, t + 1, static_cast<uint64_t>(t)));
    }
    EXPECT_NO_THROW(source->check_unchanged());
  }
}

}  // namespace
}  // namespace minillm
