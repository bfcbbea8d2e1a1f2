// golden_test.cpp - the two real models' tokenizers against the references' stored answers (tools/compare_tokenizers.py).
#include <gtest/gtest.h>

#include "minillm/tokenizer.h"
#include "support/models.h"
#include "text/tokenizer_support.h"

namespace minillm {
namespace {

constexpr EncodeOptions kPlain{.add_special_tokens = false};

void replay(const Tokenizer& tokenizer, const std::string& name) {
  const auto goldens = test::read_golden_tokens(std::string(MINILLM_TEST_DATA) + "/golden/" + name + ".tokens");
  EXPECT_EQ(goldens.size(), 1500u);
  for (const auto& golden : goldens) {
    const std::string text = golden.decodes ? tokenizer.decode(golden.ids) : golden.text;
    ASSERT_EQ(tokenizer.encode(text, kPlain), golden.ids) << text;
  }
}

TEST(GoldenTokens, SmolLm2IsHuggingFaces) {
  MINILLM_NEEDS_MODEL(path, "smollm2");
  const Tokenizer tokenizer = Tokenizer::load(path);
  replay(tokenizer, "smollm2");
  EXPECT_EQ(tokenizer.missing_bytes().size(), 21u);
  EXPECT_EQ(tokenizer.end_tokens(), (std::vector<TokenId>{0, 2}));    // "<|endoftext|>", "<|im_end|>"
  EXPECT_EQ(tokenizer.encode("Hi"), tokenizer.encode("Hi", kPlain));  // No BOS.
}

TEST(GoldenTokens, Gemma3IsSentencePieces) {
  MINILLM_NEEDS_MODEL(path, "gemma3-270m");
  const Tokenizer tokenizer = Tokenizer::load(path);
  replay(tokenizer, "gemma3-270m");
  EXPECT_EQ(tokenizer.end_tokens(), (std::vector<TokenId>{1, 106}));  // "<eos>", "<end_of_turn>"; "</s>" is the HTML tag.
  EXPECT_EQ(tokenizer.encode("Hi").front(), tokenizer.bos());
}

}  // namespace
}  // namespace minillm
