// safetensors_test.cpp - the rules of a safetensors file, valid and broken, one test a rule.
#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "io/limits.h"
#include "support/expect_error.h"
#include "support/random.h"
#include "support/safetensors_writer.h"

namespace minillm {
namespace {

using test::expect_error;
using test::safetensors_bytes;
using test::safetensors_file;

/// Reads a copy of exactly these bytes, so that a sanitizer sees a read past the end.
std::unique_ptr<TensorSource> read_copy(const std::string& bytes, std::unique_ptr<char[]>& copy) {
  copy = std::make_unique<char[]>(bytes.size());
  std::memcpy(copy.get(), bytes.data(), bytes.size());
  return read_safetensors(std::as_bytes(std::span(copy.get(), bytes.size())), "model.safetensors");
}

void expect_read(const std::string& bytes) {
  std::unique_ptr<char[]> copy;
  EXPECT_NO_THROW(read_copy(bytes, copy));
}

void expect_refused(const std::string& bytes, std::string_view part, ErrorCode code = ErrorCode::kCorruptFile) {
  SCOPED_TRACE(part);
  std::unique_ptr<char[]> copy;
  expect_error(code, part, [&] { read_copy(bytes, copy); });
}

/// A header with one tensor "a", and data.
std::string one(const std::string& fields, size_t data_bytes = 4) {
  return safetensors_bytes("{\"a\":{" + fields + "}}", std::string(data_bytes, '\1'));
}

constexpr const char* kValid = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";

TEST(Safetensors, GivesTensorsRowMajorInFileOrder) {
  const std::string bytes = safetensors_file({{"w", "F32", {2, 3}, std::string(24, 'w')},
                                              {"h", "F16", {4}, std::string(8, 'h')},
                                              {"b", "BF16", {1, 2, 3, 4}, std::string(48, 'b')},
                                              {"i", "I32", {1}, "iiii"}});
  std::unique_ptr<char[]> copy;
  const auto source = read_copy(bytes, copy);
  EXPECT_EQ(source->format(), "safetensors");
  EXPECT_FALSE(source->names_are_gguf());
  ASSERT_EQ(source->tensors().size(), 4u);
  const SourceTensor& w = source->tensors()[0];
  EXPECT_EQ(w.name, "w");
  EXPECT_EQ(w.view.dtype, Dtype::kF32);
  EXPECT_EQ(w.view.rank, 2);
  EXPECT_EQ(w.view.dim(0), 2);
  EXPECT_EQ(w.view.dim(1), 3);
  EXPECT_EQ(w.bytes, 24u);
  EXPECT_EQ(std::memcmp(w.view.data, std::string(24, 'w').data(), 24), 0);
  EXPECT_EQ(source->find("h")->view.dtype, Dtype::kF16);
  EXPECT_EQ(source->find("b")->view.dtype, Dtype::kBF16);
  EXPECT_EQ(source->find("b")->view.dim(3), 4);
  EXPECT_EQ(source->find("i")->view.dtype, Dtype::kI32);
}

TEST(Safetensors, OrderInTheHeaderIsFree) {
  const std::string header =
      R"({"b":{"dtype":"F16","shape":[1],"data_offsets":[4,6]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  std::unique_ptr<char[]> copy;
  const auto source = read_copy(safetensors_bytes(header, "aaaabb"), copy);
  EXPECT_EQ(source->tensors()[0].name, "a");
  EXPECT_EQ(std::memcmp(source->find("b")->view.data, "bb", 2), 0);
}

TEST(Safetensors, ScalarsAndEmptyTensorsAreLegal) {  // S6
  std::unique_ptr<char[]> copy;
  const auto source =
      read_copy(safetensors_file({{"none", "F32", {0, 5}, ""}, {"scalar", "F32", {}, "abcd"}, {"last", "F16", {3, 0}, ""}}), copy);
  EXPECT_EQ(source->find("scalar")->view.rank, 1);
  EXPECT_EQ(source->find("scalar")->view.dim(0), 1);
  EXPECT_EQ(source->find("none")->view.n_elements(), 0);
  EXPECT_EQ(source->find("last")->view.dim(0), 3);
  expect_read(safetensors_bytes("{}", ""));
}

TEST(Safetensors, ATensorOffItsAlignmentIsCopied) {
  const std::string bytes = safetensors_file({{"odd", "F16", {1}, "oo"}, {"f", "F32", {2}, "abcdefgh"}});
  std::unique_ptr<char[]> copy;
  const auto source = read_copy(bytes, copy);
  const ConstTensorView& view = source->find("f")->view;
  EXPECT_EQ(reinterpret_cast<uintptr_t>(view.data) % 4, 0u);
  EXPECT_EQ(std::memcmp(view.data, "abcdefgh", 8), 0);
}

TEST(Safetensors, EveryProperPrefixIsRefused) {  // S1
  const std::string bytes = safetensors_file({{"a", "F32", {3}, std::string(12, 'a')}, {"b", "BF16", {2}, "bbbb"}});
  for (size_t n = 0; n < bytes.size(); ++n) expect_refused(bytes.substr(0, n), "model.safetensors: ");
  expect_read(bytes);
}

TEST(Safetensors, HeaderLengths) {  // S1
  expect_refused("1234567", "header length: needs 8 bytes");
  expect_refused(safetensors_bytes("", ""), "expected '{'");
  expect_refused(safetensors_bytes("{}", "", 1), "ends in");
  for (const int64_t n : {INT64_MIN, int64_t{100'000'001}, INT64_MAX}) {
    std::string bytes = safetensors_bytes("{}", "");
    std::memcpy(bytes.data(), &n, sizeof(n));
    expect_refused(bytes, "the limit is 100000000");
  }
  expect_refused(safetensors_bytes("{}", "", 100'000'000), "needs 100000000 bytes");
  expect_refused(safetensors_bytes("{}", "", 3), "needs 3 bytes");
}

TEST(Safetensors, HeaderFormAndPadding) {  // S2
  const std::string valid = std::string("{\"a\":{") + kValid + "}}", data = "1234";
  expect_read(safetensors_bytes(valid, data));
  expect_read(safetensors_bytes(valid + "    ", data));
  for (const char* padding : {"\n", "\t", " \n ", "x", "{}", ",", "  ]"})
    expect_refused(safetensors_bytes(valid + padding, data), "header");
  expect_refused(safetensors_bytes(valid + std::string("\0", 1), data), "ends in '\\x00'");
  expect_refused(safetensors_bytes(valid + std::string("\0{}", 3), data), "a zero byte");
  for (const char* start : {" ", "\n", "\xEF\xBB\xBF", "["}) expect_refused(safetensors_bytes(start + valid, data), "expected '{'");
  for (const char* bad : {"\xFF", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80"})
    expect_refused(safetensors_bytes("{\"" + std::string(bad) + "\":{" + kValid + "}}", data), "not JSON");
  expect_refused(safetensors_bytes("{\"\\ud800\":{" + std::string(kValid) + "}}", data), "not JSON");
  expect_refused(safetensors_bytes("{]}", data), "not JSON");
  expect_refused(safetensors_bytes("{/**/}", ""), "not JSON");
}

TEST(Safetensors, NothingOccursTwice) {  // S3
  expect_refused(safetensors_bytes(std::string("{\"a\":{") + kValid + "},\"a\":{" + kValid + "}}", "1234"), "tensor 'a' occurs twice");
  expect_refused(safetensors_bytes(std::string("{\"a\":{") + kValid + "},\"\\u0061\":{" + kValid + "}}", "1234"),
                 "tensor 'a' occurs twice");
  expect_refused(one(std::string(kValid) + R"(,"dtype":"F32")"), "dtype occurs twice");
  expect_refused(one(std::string(kValid) + R"(,"shape":[1])"), "shape occurs twice");
  expect_refused(one(std::string(kValid) + R"(,"data_offsets":[0,4])"), "data_offsets occurs twice");
  expect_refused(safetensors_bytes(R"({"__metadata__":{},"__metadata__":{}})", ""), "__metadata__ occurs twice");
  expect_refused(safetensors_bytes(R"({"__metadata__":{"k":"1","k":"1"}})", ""), "key 'k' of __metadata__ occurs twice");
}

TEST(Safetensors, Metadata) {  // S4
  expect_read(safetensors_bytes(R"({"__metadata__":{"format":"pt","":"x"}})", ""));
  for (const char* value : {"1", "-1", "1.5", "null", "true", "[]", "{}"})
    expect_refused(safetensors_bytes(std::string(R"({"__metadata__":{"k":)") + value + "}}", ""), "expected text as metadata");
  for (const char* value : {"1", "null", "\"x\"", "[]"})
    expect_refused(safetensors_bytes(std::string(R"({"__metadata__":)") + value + "}", ""), "expected an object for __metadata__");
  std::string many = R"({"__metadata__":{)";
  for (uint64_t i = 0; i <= limits::kSafetensorsMetadata; ++i)
    many.append(i > 0 ? ",\"" : "\"").append(std::to_string(i)).append("\":\"\"");
  expect_refused(safetensors_bytes(many + "}}", ""), "more than 100000 keys in __metadata__");
  const std::string deep(1'000'000, '[');
  expect_refused(safetensors_bytes("{\"a\":" + deep + "}", ""), "expected an object with dtype");
}

TEST(Safetensors, Dtypes) {  // S5
  for (const char* dtype : {"F64", "I8", "U8", "I16", "U16", "U32", "I64", "U64", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3",
                            "C64", "f32", "", "F32 ", "BF17"})
    expect_refused(one(std::string("\"dtype\":\"") + dtype + R"(","shape":[1],"data_offsets":[0,4])"), std::string("dtype '") + dtype + "'",
                   ErrorCode::kUnsupported);
  for (const char* value : {"1", "null", "[\"F32\"]", "{}", "true", "-1", "1.5"})
    expect_refused(one(std::string("\"dtype\":") + value + R"(,"shape":[1],"data_offsets":[0,4])"), "expected text as dtype");
}

std::string shape(const std::string& text, size_t bytes = 4) {
  return one(R"("dtype":"F32","shape":)" + text + R"(,"data_offsets":[0,)" + std::to_string(bytes) + "]", bytes);
}

TEST(Safetensors, Shapes) {  // S6
  expect_refused(shape("[-1]"), "met a negative number");
  expect_refused(shape("[-0]"), "met a negative number");
  for (const char* text : {"[1.0]", "[1e0]", "[1e2]", "[18446744073709551616]"})
    expect_refused(shape(text), "expected an integer below 2^64");
  for (const char* text : {"1", "null", "\"[1]\"", "{}", "true"}) expect_refused(shape(text), "expected an array as shape");
  for (const char* text : {"[null]", "[\"1\"]", "[[1]]", "[{}]", "[true]"}) expect_refused(shape(text), "expected a dimension");
  for (const char* text : {"[4294967296,4294967296]", "[4611686018427387904]", "[9223372036854775808]", "[18446744073709551615,2]",
                           "[9223372036854775808,4,0]", "[0,18446744073709551615]"})
    expect_refused(shape(text, 0), "or makes more than 2^64 bytes");
  expect_read(shape("[1,1,1,1]"));
  expect_refused(shape("[1,1,1,1,1]"), "more than 4 dimensions", ErrorCode::kUnsupported);
  std::string long_shape = "[1";
  for (int i = 1; i < 10'000; ++i) long_shape += ",1";
  expect_refused(shape(long_shape + "]"), "more than 4 dimensions", ErrorCode::kUnsupported);
}

std::string offsets(const std::string& text, size_t data = 4) { return one(R"("dtype":"F32","shape":[1],"data_offsets":)" + text, data); }

TEST(Safetensors, Offsets) {  // S7
  expect_refused(offsets("[4,0]"), "data_offsets [4, 0]");
  expect_refused(offsets("[0,3]", 3), "needs 4");
  expect_refused(offsets("[0,5]", 5), "needs 4");
  expect_refused(offsets("[1,5]", 5), "expected to begin at 0");
  expect_refused(offsets("[0,4]", 5), "the tensors end at 4, the data has 5 bytes");
  expect_refused(offsets("[0,4]", 3), "within the 3 bytes");
  expect_refused(offsets("[0,18446744073709551615]"), "within the 4 bytes");
  expect_refused(offsets("[18446744073709551612,0]"), "expected to begin at 0");
  expect_refused(offsets("[0,4,4]"), "more than 2 elements");
  expect_refused(offsets("[0]"), "1 elements, expected 2");
  expect_refused(offsets("[]"), "0 elements, expected 2");
  expect_refused(offsets("[-1,4]"), "met a negative number");
  expect_refused(offsets("[0,4.0]"), "expected an integer below 2^64");
  expect_refused(offsets("[\"0\",4]"), "expected an offset");
  expect_refused(offsets("\"0,4\""), "expected an array as data_offsets");
  const std::string two = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":)";
  expect_refused(safetensors_bytes(two + "[5,9]}}", "123456789"), "tensor 'b': data_offsets [5, 9], expected to begin at 4");
  expect_refused(safetensors_bytes(two + "[2,6]}}", "123456"), "tensor 'b': data_offsets [2, 6], expected to begin at 4");
  expect_refused(safetensors_bytes(two + "[0,4]}}", "1234"), "expected to begin at 4");
}

TEST(Safetensors, MissingAndUnknownFields) {
  expect_refused(one(R"("shape":[1],"data_offsets":[0,4])"), "dtype is missing");
  expect_refused(one(R"("dtype":"F32","data_offsets":[0,4])"), "shape is missing");
  expect_refused(one(R"("dtype":"F32","shape":[1])"), "data_offsets is missing");
  expect_refused(one(std::string(kValid) + R"(,"extra":1)"), "field 'extra', expected dtype, shape or data_offsets");
  for (const char* value : {"1", "null", "\"x\"", "[]", "true"})
    expect_refused(safetensors_bytes(std::string("{\"a\":") + value + "}", ""), "expected an object with dtype");
}

TEST(Safetensors, HostileNamesAreEscapedInMessages) {
  expect_refused(safetensors_bytes("{\"\\u001b[31m\\n\\u00ff'\":{}}", ""), "tensor '\\x1b[31m\\x0a\\xc3\\xbf\\x27': dtype is missing");
}

TEST(Safetensors, TheNumberOfTensorsIsLimited) {  // S10
  const auto file = [](uint64_t n) {
    std::string header = "{";
    for (uint64_t i = 0; i < n; ++i)
      header.append(i > 0 ? ",\"" : "\"").append(std::to_string(i)).append(R"(":{"dtype":"F16","shape":[0],"data_offsets":[0,0]})");
    return safetensors_bytes(header + "}", "");
  };
  expect_read(file(limits::kTensors));
  expect_refused(file(limits::kTensors + 1), "more than 100000 tensors");
}

TEST(Safetensors, RandomTablesAgreeWithAnOracle) {  // S7
  test::Random random(7);
  int n_read = 0;
  for (int i = 0; i < 10'000; ++i) {
    // A valid tiling, disturbed in one place with probability 2/3.
    const int n = 1 + static_cast<int>(random.below(5));
    std::vector<std::pair<uint64_t, uint64_t>> ranges;
    std::vector<uint64_t> sizes;
    uint64_t end = 0;
    for (int t = 0; t < n; ++t) {
      sizes.push_back(2 * static_cast<uint64_t>(random.below(4)));
      ranges.emplace_back(end, end + sizes.back());
      end += sizes.back();
    }
    const int64_t disturb = random.below(6);
    const auto victim = static_cast<size_t>(random.below(n));
    const uint64_t by = 2 * static_cast<uint64_t>(random.below(3));
    if (disturb == 0) ranges[victim].first += by;
    if (disturb == 1) ranges[victim].second += by;
    if (disturb == 2) sizes[victim] += by;
    if (disturb == 3) end += by;
    std::vector<size_t> order;  // Of the header; the rules do not depend on it.
    for (size_t t = 0; t < ranges.size(); ++t) order.insert(order.begin() + random.below(static_cast<int64_t>(t) + 1), t);
    std::string header = "{";
    for (const size_t t : order)
      header.append(header.size() > 1 ? ",\"" : "\"")
          .append(std::to_string(t))
          .append(R"(":{"dtype":"F16","shape":[)")
          .append(std::to_string(sizes[t] / 2))
          .append(R"(],"data_offsets":[)")
          .append(std::to_string(ranges[t].first))
          .append(",")
          .append(std::to_string(ranges[t].second))
          .append("]}");

    // The rule, said another way: each byte of the data belongs to exactly one tensor, and each range has its size.
    bool valid = true;
    std::vector<int> owners(end, 0);
    for (size_t t = 0; t < ranges.size(); ++t) {
      const auto [from, to] = ranges[t];
      valid &= from <= to && to <= end && to - from == sizes[t];
      for (uint64_t b = from; valid && b < to; ++b) ++owners[b];
      // An empty tensor may stand at a border only.
      if (sizes[t] == 0)
        for (const auto& [other_from, other_to] : ranges) valid &= from <= other_from || from >= other_to;
    }
    for (const int n_owners : owners) valid &= n_owners == 1;
    std::unique_ptr<char[]> copy;
    try {
      read_copy(safetensors_bytes(header + "}", std::string(end, 'x')), copy);
      ASSERT_TRUE(valid) << header;
      ++n_read;
    } catch (const Error& error) {
      ASSERT_FALSE(valid) << header << "\n" << error.what();
    }
  }
  EXPECT_GT(n_read, 2'000);
  EXPECT_LT(n_read, 9'000);
}

}  // namespace
}  // namespace minillm
