// golden_greedy_test.cpp - greedy text of real models, token by token, against Hugging Face in float32.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "minillm/generator.h"
#include "support/models.h"

namespace minillm {
namespace {

class GoldenGreedy : public ::testing::TestWithParam<const char*> {
 protected:
  /// The first `most` new tokens of each prompt, or all, equal Hugging Face's.
  void expect_same(const LoadOptions& options, size_t most) {
    const std::string package = GetParam() == std::string("gemma3") ? "gemma3-270m" : GetParam();
    MINILLM_NEEDS_MODEL(path, package);
    std::ifstream file(std::string(MINILLM_TEST_DATA) + "/golden/" + GetParam() + "_greedy.json");
    const auto records = nlohmann::json::parse(file);
    MiniLLM model = MiniLLM::load(path, options);
    const Tokenizer tokenizer = Tokenizer::load(path);
    TextGenerator generator(model, {.tokenizer = &tokenizer});
    for (const auto& record : records) {
      const auto prompt = record.at("prompt").get<std::string>();
      auto expected = record.at("new_ids").get<std::vector<TokenId>>();
      expected.resize(std::min(expected.size(), most));
      const auto ids = tokenizer.encode(prompt, {.parse_special_tokens = true});
      EXPECT_EQ(ids, record.at("prompt_ids").get<std::vector<TokenId>>()) << prompt;
      const auto got = generator.generate_batch({ids}, {.max_new_tokens = static_cast<int64_t>(expected.size())});
      EXPECT_EQ(got.at(0).ids, expected) << prompt << "\n" << got.at(0).text;
    }
  }
};

TEST_P(GoldenGreedy, Float32WritesWhatHuggingFaceWrites) { expect_same({.dtype = Dtype::kF32, .kv_dtype = Dtype::kF32}, 32); }
TEST_P(GoldenGreedy, DefaultPathWritesTheSameFirst24Tokens) { expect_same({}, 24); }

INSTANTIATE_TEST_SUITE_P(Models, GoldenGreedy, ::testing::Values("smollm2", "gemma3"), [](const auto& test) { return test.param; });

}  // namespace
}  // namespace minillm
