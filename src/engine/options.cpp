// options.cpp - the ranges of GenerationOptions, and names of finish reasons.
#include <cmath>
#include <limits>

#include "minillm/engine.h"
#include "minillm/error.h"

namespace minillm {
namespace {

constexpr size_t kMaxStops = 64;
constexpr size_t kMaxStopBytes = 1024;
constexpr size_t kMaxStopTokens = 1024;
constexpr int64_t kMaxCount = std::numeric_limits<int32_t>::max();

[[noreturn]] void refuse(std::string_view field, const auto& value, std::string_view range) {
  throw Error(ErrorCode::kInvalidArgument, field, " is ", value, ", expected ", range);
}

/// NaN fails every comparison, so it is refused too.
void require(bool in_range, std::string_view field, const auto& value, std::string_view range) {
  if (!in_range) refuse(field, value, range);
}

}  // namespace

void GenerationOptions::validate(int64_t vocab_size) const {
  require(max_new_tokens >= 1 && max_new_tokens <= kMaxCount, "max_new_tokens", max_new_tokens, "1 to 2147483647");
  require(temperature >= 0.0f && temperature <= 100.0f, "temperature", temperature, "0 to 100");
  require(top_k >= 0 && top_k <= kMaxCount, "top_k", top_k, "0 (off) to 2147483647");
  require(top_p > 0.0f && top_p <= 1.0f, "top_p", top_p, "more than 0 and at most 1");
  require(min_p >= 0.0f && min_p < 1.0f, "min_p", min_p, "at least 0 and less than 1");
  require(repetition_penalty > 0.0f && repetition_penalty <= 100.0f, "repetition_penalty", repetition_penalty,
          "more than 0 and at most 100");
  require(presence_penalty >= -2.0f && presence_penalty <= 2.0f, "presence_penalty", presence_penalty, "-2 to 2");
  require(frequency_penalty >= -2.0f && frequency_penalty <= 2.0f, "frequency_penalty", frequency_penalty, "-2 to 2");
  require(stop.size() <= kMaxStops, "stop", stop.size(), "at most 64 texts");
  for (const std::string& text : stop)
    require(!text.empty() && text.size() <= kMaxStopBytes, "stop", std::to_string(text.size()) + " bytes long", "1 to 1024 bytes");
  require(stop_token_ids.size() <= kMaxStopTokens, "stop_token_ids", stop_token_ids.size(), "at most 1024 ids");
  for (TokenId id : stop_token_ids)
    if (id < 0 || id >= vocab_size)
      throw Error(ErrorCode::kInvalidArgument, "stop_token_ids holds ", id, ", expected 0 to ", vocab_size - 1);
}

std::string_view name_of(FinishReason reason) noexcept {
  switch (reason) {
    case FinishReason::kNone:
      return "none";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "?";
}

}  // namespace minillm
