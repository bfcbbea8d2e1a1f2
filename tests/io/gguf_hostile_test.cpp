// gguf_hostile_test.cpp - GGUF files that lie: each field with each value that once broke a reader, and what is said about it.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <vector>

#include "base/dtype.h"
#include "io/gguf.h"
#include "io/limits.h"
#include "support/expect_error.h"
#include "support/gguf_writer.h"
#include "support/random.h"
#include "support/temp_folder.h"

namespace minillm {
namespace {

using test::GgufImage;
using test::GgufWriter;
using test::TempFolder;

/// Reads a copy of exactly these bytes, so that a sanitizer sees a read past the end.
std::unique_ptr<TensorSource> read_copy(const std::string& bytes) {
  const auto copy = std::make_unique<char[]>(bytes.size());
  std::memcpy(copy.get(), bytes.data(), bytes.size());
  return read_gguf(std::as_bytes(std::span(copy.get(), bytes.size())), "model.gguf");
}

/// The bytes must be refused from memory and from a file.
void expect_refused(const std::string& bytes, std::string_view part, ErrorCode code = ErrorCode::kCorruptFile) {
  SCOPED_TRACE(part);
  test::expect_error(code, part, [&] { read_copy(bytes); });
  const TempFolder folder;
  const std::string path = folder.write("model.gguf", bytes);
  test::expect_error(code, part, [&] { open_gguf(path); });
}

/// One key of each kind and two tensors.
GgufImage small_image() {
  return GgufWriter()
      .add("general.architecture", "llama")
      .add("count", uint32_t{7})
      .add("flag", true)
      .add("list", std::vector<uint16_t>{1, 2, 3})
      .add("words", std::vector<std::string>{"a", "bc"})
      .random_tensor("first", Dtype::kF32, {2, 8}, 1)
      .random_tensor("second", Dtype::kQ8_0, {3, 64}, 2)
      .image();
}

template <typename T>
std::string with(const std::string& field, T value) {
  return small_image().put(field, value).bytes;
}

TEST(GgufHostile, EveryProperPrefixIsRefused) {  // G1, G14
  for (const Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kQ4_0, Dtype::kQ8_0, Dtype::kQ4_K, Dtype::kQ6_K}) {
    const std::string bytes = GgufWriter(dtype == Dtype::kF16 ? 2 : 3).add("k", "v").random_tensor("t", dtype, {2, 256}, 1).image().bytes;
    for (size_t n = 0; n < bytes.size(); ++n) {
      try {
        read_copy(bytes.substr(0, n));
        FAIL() << n << " of " << bytes.size() << " bytes were read as a whole file";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kCorruptFile) << error.what();
      }
    }
    EXPECT_NO_THROW(read_copy(bytes));
  }
}

TEST(GgufHostile, ACutFileSaysHowMuchIsMissing) {  // G14
  const std::string bytes = small_image().bytes;
  expect_refused(bytes.substr(0, bytes.size() - 5), "5 bytes are missing");
}

TEST(GgufHostile, MagicAndVersion) {  // G2
  expect_refused(with("magic", uint32_t{0x47475546}), "expected 'GGUF'");
  expect_refused(with("magic", uint32_t{0}), "met '\\x00\\x00\\x00\\x00'");
  for (const uint32_t version : {0u, 1u, 4u, 0xFFFFFFFFu})
    expect_refused(with("version", version), "version " + std::to_string(version), ErrorCode::kUnsupported);
  for (const uint32_t version : {0x02000000u, 0x03000000u}) expect_refused(with("version", version), "big-endian", ErrorCode::kUnsupported);
}

TEST(GgufHostile, CountsLargerThanTheFile) {  // G3
  for (const uint64_t n : {uint64_t{1} << 31, uint64_t{1} << 63, UINT64_MAX, limits::kTensors + 1})
    expect_refused(with("n_tensors", n), "tensor count: met " + std::to_string(n));
  for (const uint64_t n : {uint64_t{1} << 31, uint64_t{1} << 63, UINT64_MAX, limits::kMetadataKeys + 1})
    expect_refused(with("n_keys", n), "key count: met " + std::to_string(n));
  expect_refused(with("n_tensors", limits::kTensors), "do not fit");
  expect_refused(with("n_keys", limits::kMetadataKeys), "do not fit");
  expect_refused(with("n_tensors", uint64_t{3}), "tensor");     // One more than there are: it reads padding and data.
  expect_refused(with("n_keys", uint64_t{6}), "model.gguf: ");  // One more: it reads a tensor as a key.
}

TEST(GgufHostile, KeyNames) {  // G4
  for (const uint64_t n : {uint64_t{0}, limits::kKeyBytes + 1, UINT64_MAX})
    expect_refused(with("key/count/length", n), "expected 1 to 65535");
  expect_refused(with("key/count/length", limits::kKeyBytes), "needs 65535 bytes");
  expect_refused(with("key/count/name", '\0'), "holds a zero byte");
  expect_refused(GgufWriter().add("\x1B[31m\n\xFF'", true).add("\x1B[31m\n\xFF'", true).image().bytes,
                 "'\\x1b[31m\\x0a\\xff\\x27': occurs twice");
  EXPECT_TRUE(
      read_copy(GgufWriter().add(std::string(limits::kKeyBytes, 'k'), true).image().bytes)->has(std::string(limits::kKeyBytes, 'k')));
  EXPECT_TRUE(read_copy(GgufWriter().add("odd \n\xFF", true).image().bytes)->has("odd \n\xFF"));
}

TEST(GgufHostile, DuplicateKeysAndTensors) {  // G5
  expect_refused(GgufWriter().add("a", 1.0f).add("b", true).add("a", uint8_t{2}).image().bytes, "key 'a': occurs twice");
  expect_refused(GgufWriter().random_tensor("t", Dtype::kF32, {1}, 1).random_tensor("t", Dtype::kF16, {2}, 1).image().bytes,
                 "tensor 't': occurs twice");
}

TEST(GgufHostile, ValueTypesAndBooleans) {  // G6
  for (const uint32_t type : {13u, 14u, 255u, 0x80000000u, 0xFFFFFFFFu})
    expect_refused(with("key/count/type", type), "value type " + std::to_string(type));
  for (const uint32_t type : {13u, 0xFFFFFFFFu}) expect_refused(with("key/list/element_type", type), "an array of type");
  for (int byte = 2; byte < 256; ++byte)
    test::expect_error(ErrorCode::kCorruptFile, "a bool of " + std::to_string(byte),
                       [&] { read_copy(with("key/flag/value", static_cast<uint8_t>(byte))); });
  GgufImage list = GgufWriter().add("flags", std::vector<bool>{true, false, true}).image();
  EXPECT_NO_THROW(read_copy(list.bytes));
  list.bytes[list.at("key/flags/elements") + 2] = 2;
  expect_refused(list.bytes, "a bool of 2");
}

TEST(GgufHostile, StringLengths) {  // G7
  const GgufImage image = small_image();
  const uint64_t left = image.bytes.size() - image.at("key/general.architecture/value") - 8;
  for (const uint64_t n : {UINT64_MAX, uint64_t{1} << 63, uint64_t{1} << 30, left + 1})
    expect_refused(with("key/general.architecture/value", n), "needs " + std::to_string(n) + " bytes");
  expect_refused(with("key/words/elements", UINT64_MAX), "needs 18446744073709551615 bytes");
}

TEST(GgufHostile, Arrays) {  // G8
  expect_refused(with("key/list/element_type", test::kGgufArray), "an array of type 9");
  for (const uint64_t n : {UINT64_MAX, uint64_t{1} << 63, uint64_t{1} << 40, uint64_t{1} << 20}) {
    expect_refused(with("key/list/count", n), "does not fit");
    expect_refused(with("key/words/count", n), "does not fit");
  }
  // Counts whose product with the element's size wraps around 2^64.
  for (const uint32_t type : {2u, 4u, 10u}) {
    GgufImage image = small_image().put("key/list/element_type", type);
    expect_refused(image.put("key/list/count", (UINT64_MAX / 8) + 2).bytes, "does not fit");
  }
  const std::string above = "element 1 is 9223372036854775808";
  expect_refused(GgufWriter().add("a", std::vector<uint64_t>{1, uint64_t{1} << 63}).image().bytes, above, ErrorCode::kUnsupported);
}

TEST(GgufHostile, AllArraysTogetherAreLimited) {  // G8
  const std::vector<uint8_t> most(limits::kArrayElements);
  EXPECT_NO_THROW(read_copy(GgufWriter().add("a", most).image().bytes));
  test::expect_error(ErrorCode::kCorruptFile, "above the limit of",
                     [&] { read_copy(GgufWriter().add("a", most).add("b", std::vector<bool>{true}).image().bytes); });
}

TEST(GgufHostile, Alignment) {  // G9
  GgufImage image = GgufWriter().add("general.alignment", uint32_t{32}).image();
  for (const uint32_t n : {0u, 1u, 4u, 7u, 13u, 24u, 131072u, 0x80000000u})
    expect_refused(image.put("key/general.alignment/value", n).bytes, "met " + std::to_string(n) + ", expected a power of two");
  expect_refused(GgufWriter().add("general.alignment", uint64_t{32}).image().bytes, "of type u64, expected u32");
  expect_refused(GgufWriter().add("general.alignment", int32_t{32}).image().bytes, "of type i32, expected u32");
  expect_refused(GgufWriter().add("general.alignment", "32").image().bytes, "of type string, expected u32");
  expect_refused(GgufWriter().add("general.alignment", std::vector<uint32_t>{32}).image().bytes, "of type array, expected u32");
}

TEST(GgufHostile, TensorNamesAndRanks) {  // G10
  for (const uint64_t n : {uint64_t{0}, uint64_t{65}, uint64_t{1} << 32, UINT64_MAX})
    expect_refused(with("tensor/first/length", n), "expected 1 to 64");
  expect_refused(with("tensor/first/name", '\0'), "holds a zero byte");
  const std::string longest(64, 'n');
  EXPECT_NE(read_copy(GgufWriter().random_tensor(longest, Dtype::kF32, {1}, 1).image().bytes)->find(longest), nullptr);
  for (const uint32_t rank : {0u, 5u, 0xFFFFFFFFu})
    expect_refused(with("tensor/first/rank", rank), std::to_string(rank) + " dimensions, expected 1 to 4");
}

TEST(GgufHostile, Dimensions) {  // G11
  expect_refused(with("tensor/first/dim0", uint64_t{0}), "dimension 0 is zero");
  expect_refused(with("tensor/first/dim1", uint64_t{0}), "dimension 1 is zero");
  for (const uint64_t n : {uint64_t{1} << 60, uint64_t{1} << 63, UINT64_MAX}) {
    expect_refused(with("tensor/first/dim0", n), "tensor 'first'");
    expect_refused(with("tensor/first/dim1", n), "tensor 'first'");
  }
  expect_refused(with("tensor/second/dim0", uint64_t{33}), "rows of 33 elements in q8_0, expected a multiple of 32");
}

TEST(GgufHostile, RandomShapesAgreeWithWideArithmetic) {  // G11
  const GgufImage image = GgufWriter().random_tensor("t", Dtype::kF32, {4, 4, 4, 4}, 1).image();
  constexpr uint64_t kDims[] = {0,
                                1,
                                2,
                                3,
                                8,
                                31,
                                32,
                                33,
                                256,
                                1u << 16,
                                uint64_t{1} << 31,
                                uint64_t{1} << 32,
                                uint64_t{1} << 61,
                                (uint64_t{1} << 62) + 1,
                                uint64_t{1} << 63,
                                UINT64_MAX};
  constexpr Dtype kDtypes[] = {Dtype::kF32, Dtype::kF16, Dtype::kQ4_0, Dtype::kQ6_K};
  const uint64_t available = image.bytes.size() - image.at("data");
  test::Random random(11);
  int n_read = 0;
  for (int i = 0; i < 100'000; ++i) {
    GgufImage hostile = image;
    const Dtype dtype = kDtypes[random.below(std::size(kDtypes))];
    hostile.put("tensor/t/type", test::gguf_tensor_type(dtype));
    // Four factors below 2^64 do not fit 128 bits; saturating at 2^100 keeps every comparison right.
    unsigned __int128 n = 1;
    uint64_t first = 0;
    bool zero = false;
    for (int d = 0; d < 4; ++d) {
      const uint64_t dim = random.below(2) == 0 ? uint64_t{1} << random.below(6) : kDims[random.below(std::size(kDims))];
      hostile.put("tensor/t/dim" + std::to_string(d), dim);
      if (d == 0) first = dim;
      zero |= dim == 0;
      n = std::min(n * dim, static_cast<unsigned __int128>(1) << 100);
      if (n > (static_cast<unsigned __int128>(1) << 63)) n = static_cast<unsigned __int128>(1) << 63;
    }
    const auto block = static_cast<uint64_t>(block_elements(dtype));
    const bool valid = !zero && first % block == 0 && n / block * block_bytes(dtype) <= available;
    try {
      const auto source = read_gguf(hostile.span(), "t");
      ASSERT_TRUE(valid) << "shape " << i;
      ASSERT_LE(source->tensors()[0].bytes, available);
      ++n_read;
    } catch (const Error& error) {
      ASSERT_FALSE(valid) << error.what();
    }
  }
  EXPECT_GT(n_read, 1000);  // Both answers were met often.
  EXPECT_LT(n_read, 99'000);
}

TEST(GgufHostile, TensorTypes) {  // G12
  for (int64_t id = -1; id < 256; ++id) {
    bool supported = false;
    for (const Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16, Dtype::kI32, Dtype::kQ4_0, Dtype::kQ4_1, Dtype::kQ5_0, Dtype::kQ5_1,
                              Dtype::kQ8_0, Dtype::kQ4_K, Dtype::kQ5_K, Dtype::kQ6_K})
      supported |= test::gguf_tensor_type(dtype) == id;
    if (supported) continue;
    test::expect_error(ErrorCode::kUnsupported, "tensor type " + std::to_string(id),
                       [&] { read_copy(with("tensor/first/type", static_cast<int32_t>(id))); });
  }
  expect_refused(with("tensor/first/type", uint32_t{10}), "(Q2_K)", ErrorCode::kUnsupported);
  expect_refused(with("tensor/first/type", uint32_t{4}), "is not known", ErrorCode::kUnsupported);
}

TEST(GgufHostile, Offsets) {  // G13
  for (const uint64_t offset : {uint64_t{1}, uint64_t{8}, uint64_t{63}})
    expect_refused(with("tensor/second/offset", offset), "no multiple of 32");
  for (const uint64_t offset : {uint64_t{1} << 20, uint64_t{1} << 63, UINT64_MAX - 31})
    expect_refused(with("tensor/second/offset", offset), "bytes at offset");
  expect_refused(with("tensor/second/offset", uint64_t{32}), "share the byte");
  expect_refused(with("tensor/second/offset", uint64_t{0}), "share the byte");
}

TEST(GgufHostile, RandomLayoutsAgreeWithAnOracle) {  // G13
  GgufWriter writer;
  constexpr int kTensors = 4;
  constexpr uint64_t kAlignment = 32;
  for (int i = 0; i < kTensors; ++i) writer.random_tensor("t" + std::to_string(i), Dtype::kF32, {4 * (i + 1)}, 1);
  writer.random_tensor("room", Dtype::kF32, {64}, 1);
  const GgufImage image = writer.image();
  const uint64_t data = image.bytes.size() - image.at("data");
  test::Random random(13);
  int n_read = 0;
  for (int i = 0; i < 10'000; ++i) {
    GgufImage hostile = image;
    hostile.put("n_tensors", uint64_t{kTensors + 1});
    std::vector<std::pair<uint64_t, uint64_t>> ranges;
    bool valid = true;
    for (int t = 0; t < kTensors; ++t) {
      uint64_t offset = static_cast<uint64_t>(random.below(static_cast<int64_t>(data / kAlignment))) * kAlignment;
      if (random.below(40) == 0) offset += 8;
      if (random.below(40) == 0) offset = UINT64_MAX - kAlignment + 1;
      hostile.put("tensor/t" + std::to_string(t) + "/offset", offset);
      ranges.emplace_back(offset, uint64_t{16} * static_cast<uint64_t>(t + 1));
    }
    hostile.put("tensor/room/dim0", uint64_t{1});
    ranges.emplace_back(image.at("tensor/room/data") - image.at("data"), 4);
    for (const auto& [offset, size] : ranges) {
      valid &= offset % kAlignment == 0 && offset <= data && size <= data - offset;
      for (const auto& [other, other_size] : ranges)
        valid &= (other == offset && other_size == size) || offset >= other + other_size || other >= offset + size;
    }
    try {
      read_gguf(hostile.span(), "t");
      ASSERT_TRUE(valid) << "layout " << i;
      ++n_read;
    } catch (const Error& error) {
      ASSERT_FALSE(valid) << error.what();
    }
  }
  EXPECT_GT(n_read, 100);
  EXPECT_LT(n_read, 9'900);
}

TEST(GgufHostile, TrailingBytesPaddingAndAnyOrderAreAccepted) {  // G13, G15
  GgufImage image = small_image();
  for (size_t i = image.at("tensor/second/offset") + 8; i < image.at("data"); ++i) image.bytes[i] = '\xAA';
  image.bytes += std::string(100, '\xBB');
  EXPECT_NO_THROW(read_copy(image.bytes));

  GgufImage shuffled = GgufWriter().random_tensor("a", Dtype::kF32, {8}, 1).random_tensor("b", Dtype::kF32, {8}, 2).image();
  shuffled.put("tensor/a/offset", uint64_t{32}).put("tensor/b/offset", uint64_t{0});
  const auto source = read_gguf(shuffled.span(), "t");
  EXPECT_EQ(std::memcmp(source->find("a")->view.data, test::tensor_bytes(Dtype::kF32, 1, 8, 2).data(), 32), 0);
}

TEST(GgufHostile, NonFiniteWeightsLoad) {  // G20: what they do to a result is the engine's to report.
  GgufImage image = small_image();
  image.put("tensor/first/data", std::numeric_limits<float>::quiet_NaN()).put("tensor/second/data", uint16_t{0x7C00});
  EXPECT_NO_THROW(read_copy(image.bytes));
}

}  // namespace
}  // namespace minillm
