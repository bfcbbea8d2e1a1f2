// options_test.cpp - every field of GenerationOptions inside and outside its range.
#include <gtest/gtest.h>

#include <limits>

#include "minillm/engine.h"
#include "support/expect_error.h"

namespace minillm {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

template <typename T>
void expect_range(const char* field, T GenerationOptions::*member, std::initializer_list<T> good, std::initializer_list<T> bad) {
  GenerationOptions options;
  for (T value : good) {
    options.*member = value;
    EXPECT_NO_THROW(options.validate(100)) << field << " = " << value;
  }
  for (T value : bad) {
    options.*member = value;
    const std::string message =
        test::expect_error(ErrorCode::kInvalidArgument, std::string(field) + " is ", [&] { options.validate(100); });
    EXPECT_NE(message.find("expected"), std::string::npos) << message;
  }
}

TEST(GenerationOptions, AreCheckedFieldByField) {
  using O = GenerationOptions;
  constexpr int64_t kTwoTo31 = int64_t{1} << 31;
  expect_range<int64_t>("max_new_tokens", &O::max_new_tokens, {1, kTwoTo31 - 1}, {0, -1, kTwoTo31, 10'000'000'000});
  expect_range<float>("temperature", &O::temperature, {0, 1e-38f, 1, 100}, {-1, -1e-38f, 101, 1e38f, kNan, kInf, -kInf});
  expect_range<int64_t>("top_k", &O::top_k, {0, 1, 1'000'000, kTwoTo31 - 1}, {-1, -2, kTwoTo31});
  expect_range<float>("top_p", &O::top_p, {1e-38f, 0.5f, 1}, {0, -1, 1.001f, 1e38f, kNan, kInf});
  expect_range<float>("min_p", &O::min_p, {0, 1e-38f, 0.999f}, {-1, 1, 1e38f, kNan, kInf});
  expect_range<float>("repetition_penalty", &O::repetition_penalty, {1e-38f, 1, 100}, {0, -1, 1e38f, kNan, kInf});
  expect_range<float>("presence_penalty", &O::presence_penalty, {-2, 0, 2}, {-2.001f, 2.001f, 1e38f, kNan, kInf});
  expect_range<float>("frequency_penalty", &O::frequency_penalty, {-2, 0, 2}, {-2.001f, 2.001f, 1e38f, kNan, -kInf});
}

TEST(GenerationOptions, BoundStopTexts) {
  GenerationOptions options;
  options.stop.assign(64, "x");
  EXPECT_NO_THROW(options.validate(100));
  options.stop.assign(65, "x");
  test::expect_error(ErrorCode::kInvalidArgument, "stop is 65", [&] { options.validate(100); });
  options.stop = {"ok", ""};
  test::expect_error(ErrorCode::kInvalidArgument, "stop is 0 bytes long", [&] { options.validate(100); });
  options.stop = {std::string(1025, 'x')};
  test::expect_error(ErrorCode::kInvalidArgument, "stop is 1025 bytes long", [&] { options.validate(100); });
}

TEST(GenerationOptions, BoundStopTokens) {
  GenerationOptions options;
  options.stop_token_ids = {0, 99};
  EXPECT_NO_THROW(options.validate(100));
  for (TokenId id : {-1, 100}) {
    options.stop_token_ids = {5, id};
    test::expect_error(ErrorCode::kInvalidArgument, "stop_token_ids holds " + std::to_string(id), [&] { options.validate(100); });
  }
  options.stop_token_ids.assign(1025, 5);
  test::expect_error(ErrorCode::kInvalidArgument, "stop_token_ids is 1025", [&] { options.validate(100); });
}

TEST(FinishReason, HasNames) {
  EXPECT_EQ(name_of(FinishReason::kNone), "none");
  EXPECT_EQ(name_of(FinishReason::kStop), "stop");
  EXPECT_EQ(name_of(FinishReason::kLength), "length");
  EXPECT_EQ(name_of(FinishReason::kCancelled), "cancelled");
  EXPECT_EQ(name_of(FinishReason::kError), "error");
}

}  // namespace
}  // namespace minillm
