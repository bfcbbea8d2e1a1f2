// generator_test.cpp - TextGenerator with a tokenizer: text, stop texts across token borders, end tokens, callbacks, seeds of rows.
#include "minillm/generator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <memory>

#include "support/expect_error.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

namespace minillm {
namespace {

constexpr TokenId kEnd = 95;

/// The tiny model with a vocabulary of the printable ASCII characters, a space and an end token.
test::TinyModel with_tokenizer() {
  test::TinyModel tiny = test::tiny_model("llama3");
  std::vector<std::string> tokens;
  std::vector<int32_t> types(96, 1);
  for (char c = '!'; c <= '~'; ++c) tokens.emplace_back(1, c);
  tokens.emplace_back("\xC4\xA0");  // A space, as GPT-2 writes it.
  tokens.emplace_back("<|endoftext|>");
  types[kEnd] = 3;  // Control.
  tiny.keys.set("tokenizer.ggml.model", std::string("gpt2"));
  tiny.keys.set("tokenizer.ggml.pre", std::string("gpt-2"));
  tiny.keys.set("tokenizer.ggml.tokens", tokens);
  tiny.keys.set("tokenizer.ggml.token_type", types);
  tiny.keys.set("tokenizer.ggml.merges", std::vector<std::string>{});
  tiny.keys.set("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(kEnd));
  return tiny;
}

class Generator : public testing::Test {
 protected:
  Generator() { load(with_tokenizer()); }
  void load(const test::TinyModel& tiny) {
    const test::TempFolder folder;
    const std::string path = folder.write("model.gguf", tiny.writer().image().bytes);
    LoadOptions options;
    options.device = parse_device("reference");
    model_ = std::make_unique<MiniLLM>(MiniLLM::load(path, options));
    tokenizer_ = std::make_unique<Tokenizer>(Tokenizer::load(path));
  }
  TextGenerator generator(int64_t max_batch = 16) {
    TextGeneratorOptions options;
    options.tokenizer = tokenizer_.get();
    options.max_batch = max_batch;
    return TextGenerator(*model_, options);
  }
  Generation one(const std::string& prompt, const GenerationOptions& options) {
    return generator().generate_batch({tokenizer_->encode(prompt)}, options)[0];
  }
  static GenerationOptions sampled(uint64_t seed) {
    GenerationOptions options;
    options.max_new_tokens = 40;
    options.temperature = 1.0f;
    options.seed = seed;
    return options;
  }

  std::unique_ptr<MiniLLM> model_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(Generator, GivesPromptAndContinuation) {
  const std::vector<TokenId> prompt = tokenizer_->encode("hello");
  TextGenerator text_generator = generator();
  GenerationOptions options = sampled(1);
  options.ignore_eos = true;
  const std::vector<TokenId> ids = text_generator.generate(prompt, options);
  ASSERT_EQ(ids.size(), prompt.size() + 40);
  EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), ids.begin()));
  EXPECT_EQ(text_generator.timings().prefill_tokens, 5);
  EXPECT_EQ(text_generator.timings().decode_tokens, 39);
}

TEST_F(Generator, TellsTheTextOfTheNewTokens) {
  GenerationOptions options = sampled(1);
  options.ignore_eos = true;
  const Generation generation = one("hello", options);
  std::vector<TokenId> shown;
  for (TokenId id : generation.ids)
    if (id != kEnd) shown.push_back(id);  // Special tokens have no text.
  EXPECT_EQ(generation.text, tokenizer_->decode(shown));
  EXPECT_EQ(generation.finish_reason, FinishReason::kLength);
}

TEST_F(Generator, EndsBeforeAStopTextOfSeveralTokens) {
  const Generation whole = one("hello", sampled(3));
  ASSERT_GT(whole.text.size(), 20u);
  for (const size_t at : {size_t{0}, size_t{7}, size_t{15}}) {
    GenerationOptions options = sampled(3);
    options.stop = {"never ever", whole.text.substr(at, 3)};
    const Generation stopped = one("hello", options);
    const size_t first = whole.text.find(options.stop[1]);
    EXPECT_EQ(stopped.text, whole.text.substr(0, first));
    EXPECT_EQ(stopped.finish_reason, FinishReason::kStop);
    EXPECT_EQ(stopped.ids.size(), first + 3);  // One token a character here; the ending one is told.
  }
}

TEST_F(Generator, GivesBackHeldTextAtTheEnd) {
  const Generation whole = one("hello", sampled(3));
  GenerationOptions options = sampled(3);
  options.stop = {whole.text.substr(whole.text.size() - 2) + "?!"};  // The text ends in the middle of it.
  EXPECT_EQ(one("hello", options).text, whole.text);
}

TEST_F(Generator, GivesBackHeldTextWhereLogitsAreNotFinite) {
  const Generation whole = one("hello", sampled(3));
  const TokenId first = whole.ids[0];
  ASSERT_EQ(std::string("hello").find(whole.text[0]), std::string::npos) << "the prompt itself would be poisoned";
  test::TinyModel poisoned = with_tokenizer();
  const auto hidden = static_cast<size_t>(poisoned.config.hidden_size);
  for (size_t e = 0; e < hidden; ++e) poisoned.tensors["token_embd.weight"].values[static_cast<size_t>(first) * hidden + e] = std::nanf("");
  load(poisoned);
  GenerationOptions options = sampled(3);
  options.stop = {whole.text.substr(0, 1) + "?!"};
  CachedText cached{KVCache(model_->config(), {.device = model_->device()})};
  for (const Generation& got : {one("hello", options), generator().generate_cached(cached, tokenizer_->encode("hello"), options)}) {
    EXPECT_EQ(got.finish_reason, FinishReason::kError);
    EXPECT_EQ(got.error, "non-finite logits at position 5");
    EXPECT_EQ(got.text, whole.text.substr(0, 1));
  }
}

TEST_F(Generator, EndsAtTheModelsEndTokenUnlessToldNotTo) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const Generation generation = one("a", sampled(seed));
    if (generation.finish_reason != FinishReason::kStop) continue;
    EXPECT_EQ(generation.ids.back(), kEnd);
    EXPECT_EQ(generation.text.size(), generation.ids.size() - 1);
    GenerationOptions options = sampled(seed);
    options.ignore_eos = true;
    EXPECT_EQ(one("a", options).ids.size(), 40u);
    return;
  }
  FAIL() << "no seed gave the end token";
}

TEST_F(Generator, RowsAreIndependentAndUseSeedPlusRow) {
  std::vector<std::vector<TokenId>> prompts;
  for (const char* text : {"one", "a longer prompt", "x", "four", "five!"}) prompts.push_back(tokenizer_->encode(text));
  for (int64_t max_batch : {1, 2, 16}) {
    const std::vector<Generation> together = generator(max_batch).generate_batch(prompts, sampled(10));
    for (size_t row = 0; row < prompts.size(); ++row) {
      const Generation alone = generator().generate_batch({prompts[row]}, sampled(10 + row))[0];
      EXPECT_EQ(together[row].ids, alone.ids) << row;
      EXPECT_EQ(together[row].text, alone.text) << row;
      EXPECT_EQ(together[row].finish_reason, alone.finish_reason) << row;
    }
  }
}

TEST_F(Generator, CallsBackForEveryTokenAndStopsWhenTold) {
  const std::vector<std::vector<TokenId>> prompts(2, tokenizer_->encode("hello"));
  std::vector<std::string> texts(2);
  std::vector<int64_t> n_tokens(2);
  GenerationOptions options = sampled(1);
  options.ignore_eos = true;
  const auto generations = generator().generate_batch(prompts, options, [&](int64_t row, const StepEvent& event) {
    texts[static_cast<size_t>(row)] += event.text;
    if (event.token) ++n_tokens[static_cast<size_t>(row)];
    return !(row == 0 && n_tokens[0] == 5);
  });
  EXPECT_EQ(generations[0].finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(generations[0].ids.size(), 5u);
  EXPECT_EQ(generations[1].finish_reason, FinishReason::kLength);
  for (const size_t row : {size_t{0}, size_t{1}}) {
    EXPECT_EQ(texts[row], generations[row].text);
    EXPECT_EQ(static_cast<size_t>(n_tokens[row]), generations[row].ids.size());
  }
}

TEST_F(Generator, GivesNothingForNoPrompts) { EXPECT_TRUE(generator().generate_batch({}, sampled(1)).empty()); }

TEST_F(Generator, RefusesWhatTheEngineRefuses) {
  test::expect_error(ErrorCode::kInvalidArgument, "prompt is empty", [&] { generator().generate({}, sampled(1)); });
  test::expect_error(ErrorCode::kInvalidArgument, "max_batch is 0", [&] { generator(0).generate({1}, sampled(1)); });
}

TEST(DefaultGenerator, SaysHowToGetTheModelThatIsMissing) {
  const test::TempFolder empty;
  const char* old = std::getenv("MINILLM_HOME");
  const std::string saved = old == nullptr ? "" : old;
  ::setenv("MINILLM_HOME", empty.path().c_str(), 1);
  test::expect_error(ErrorCode::kNotFound, "minillm pull", [] { TextGenerator(TextGeneratorOptions{}); });
  old == nullptr ? ::unsetenv("MINILLM_HOME") : ::setenv("MINILLM_HOME", saved.c_str(), 1);
}

}  // namespace
}  // namespace minillm
