// tokenizer_test.cpp - tokenizers from GGUF metadata: what they give, what they refuse, and that no text can hurt them.
#include "minillm/tokenizer.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "text/tokenizer_support.h"
#include "text/utf8.h"

namespace minillm {
namespace {

using test::byte_level_source;
using test::MetadataSource;
using test::Random;
using test::spm_source;
using Ids = std::vector<TokenId>;

constexpr EncodeOptions kPlain{.add_special_tokens = false};
constexpr EncodeOptions kSpecial{.add_special_tokens = false, .parse_special_tokens = true};

TokenId byte_id(int byte) { return 3 + byte; }

TEST(Tokenizer, ByteLevelJoinsByRank) {
  const Tokenizer tokenizer = byte_level_source().load();
  EXPECT_EQ(tokenizer.encode("hello hell", kPlain), (Ids{*tokenizer.find("hell"), byte_id('o'), *tokenizer.find("\u0120hell")}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("hello hell", kPlain)), "hello hell");
  EXPECT_EQ(tokenizer.piece(*tokenizer.find("\u0120hell")), "\u0120hell");
  EXPECT_EQ(tokenizer.token_bytes(*tokenizer.find("\u0120hell")), " hell");
  EXPECT_EQ(tokenizer.vocab_size(), 263);
  EXPECT_FALSE(tokenizer.find("no such piece"));
}

TEST(Tokenizer, SentencePieceMarksSpacesAndFallsBackToBytes) {
  const Tokenizer tokenizer = spm_source().load();
  // A space goes before the text (add_space_prefix is not set, so it is on).
  EXPECT_EQ(tokenizer.encode("abc x", kPlain),
            (Ids{*tokenizer.find("\u2581"), *tokenizer.find("abc"), *tokenizer.find("\u2581"), byte_id('x')}));
  EXPECT_EQ(tokenizer.encode("", kPlain), Ids());
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("abc x", kPlain)), "abc x");
  EXPECT_EQ(tokenizer.token_bytes(byte_id('\n')), "\n");
  EXPECT_EQ(tokenizer.encode("a\n\nb", kPlain), (Ids{*tokenizer.find("\u2581"
                                                                     "a"),
                                                     *tokenizer.find("\n\n"), *tokenizer.find("b")}));
}

TEST(Tokenizer, BosAndEosGoAroundTheTextWhereTheFileSaysSo) {
  EXPECT_EQ(byte_level_source().load().encode("a"), (Ids{byte_id('a')}));
  EXPECT_EQ(spm_source().load().encode("a"), (Ids{1, 264}));
  const Tokenizer both = spm_source().set("tokenizer.ggml.add_bos_token", true).set("tokenizer.ggml.add_eos_token", true).load();
  EXPECT_EQ(both.encode("a"), (Ids{1, 264, 2}));
  EXPECT_EQ(both.encode(""), (Ids{1, 2}));
  EXPECT_EQ(spm_source().set("tokenizer.ggml.add_bos_token", false).load().encode("a"), (Ids{264}));
  EXPECT_EQ(both.bos(), TokenId{1});
  EXPECT_EQ(both.eos(), TokenId{2});
}

TEST(Tokenizer, SpecialTokensInATextAreTextUnlessAskedFor) {
  const Tokenizer tokenizer = byte_level_source().load();
  Random random(5);
  for (int i = 0; i < 3000; ++i) {
    const std::string text = test::random_text(random, random.below(15)) + (i % 2 == 0 ? "<|im_end|>" : "");
    for (const TokenId id : tokenizer.encode(text)) ASSERT_FALSE(tokenizer.is_special(id)) << text;
  }
  EXPECT_EQ(tokenizer.encode("<|im_end|>a<tool>", kSpecial), (Ids{1, byte_id('a'), 2}));
  EXPECT_EQ(tokenizer.encode("a<tool>", kPlain), (Ids{byte_id('a'), 2}));  // User-defined: always a token.
  EXPECT_EQ(tokenizer.decode(Ids{1, byte_id('a')}), "<|im_end|>a");
  EXPECT_EQ(tokenizer.decode(Ids{1, byte_id('a')}, {.skip_special_tokens = true}), "a");
  const Tokenizer spm = spm_source().load();
  for (const TokenId id : spm.encode("<s></s><unk><0x0A>", kPlain)) EXPECT_FALSE(spm.is_special(id));
  EXPECT_EQ(spm.encode("</s>", kSpecial), (Ids{2}));
}

TEST(Tokenizer, EndTokensAreFoundByNameAndKey) {
  EXPECT_EQ(byte_level_source().load().end_tokens(), (Ids{0, 1}));  // "<|endoftext|>" and "<|im_end|>"
  EXPECT_EQ(spm_source().load().end_tokens(), (Ids{2}));
  EXPECT_EQ(spm_source().set("tokenizer.ggml.eot_token_id", int64_t{259}).load().end_tokens(), (Ids{2, 259}));
  EXPECT_EQ(spm_source().set("tokenizer.ggml.eos_token_ids", std::vector<int64_t>{2, 260}).load().end_tokens(), (Ids{2, 260}));
}

TEST(Tokenizer, AHtmlTagIsNoEnd) {
  MetadataSource source = spm_source();
  std::vector<std::string> tokens(2, "x");
  tokens = {"<eos>", "</s>", "<end_of_turn>", "a"};
  source.set("tokenizer.ggml.tokens", tokens).set("tokenizer.ggml.token_type", std::vector<int64_t>{3, 4, 3, 1});
  source.set("tokenizer.ggml.scores", std::vector<double>(4, 0.0)).set("tokenizer.ggml.eos_token_id", int64_t{0});
  EXPECT_EQ(source.load().end_tokens(), (Ids{0, 2}));
}

TEST(Tokenizer, MissingBytesAreListedAndDropped) {
  MetadataSource source = byte_level_source();
  std::vector<std::string> tokens = {"<|endoftext|>", "<|im_end|>", "a", "b", "ab"};
  source.set("tokenizer.ggml.tokens", tokens).set("tokenizer.ggml.token_type", std::vector<int64_t>{3, 3, 1, 1, 1});
  source.set("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
  const Tokenizer tokenizer = source.load();
  EXPECT_EQ(tokenizer.missing_bytes().size(), 254u);
  EXPECT_TRUE(std::is_sorted(tokenizer.missing_bytes().begin(), tokenizer.missing_bytes().end()));
  EXPECT_EQ(tokenizer.encode("(ab)", kPlain), (Ids{4}));
  EXPECT_TRUE(byte_level_source().load().missing_bytes().empty());
}

TEST(Tokenizer, DecodingTheCodeGivesTheTextBack) {
  for (const Tokenizer& tokenizer : {byte_level_source().load(), spm_source().load()}) {
    Random random(6);
    for (int i = 0; i < 5000; ++i) {
      const std::string text = test::random_text(random, random.below(25));
      std::string want = replace_invalid_utf8(text);
      if (tokenizer.find("\u2581"))  // A "▁" of the text is a space to SentencePiece.
        for (size_t at = want.find("\u2581"); at != std::string::npos; at = want.find("\u2581", at)) want.replace(at, 3, " ");
      ASSERT_EQ(tokenizer.decode(tokenizer.encode(text, kPlain)), want);
      ASSERT_EQ(tokenizer.encode(text, kPlain), tokenizer.encode(replace_invalid_utf8(text), kPlain));
    }
  }
}

TEST(StreamingDecoder, GivesWhatDecodeGivesNeverCuttingACharacter) {
  for (const Tokenizer& tokenizer : {byte_level_source().load(), spm_source().load()}) {
    Random random(8);
    for (int i = 0; i < 10000; ++i) {
      Ids ids(static_cast<size_t>(random.below(20)));
      for (TokenId& id : ids) id = static_cast<TokenId>(random.below(tokenizer.vocab_size()));
      const DecodeOptions options{.skip_special_tokens = i % 2 == 0};
      StreamingDecoder decoder(tokenizer, options);
      std::string joined;
      for (const TokenId id : ids) {
        const std::string piece = decoder.push(id);
        ASSERT_EQ(find_invalid_utf8(piece), piece.size());
        joined += piece;
      }
      ASSERT_EQ(joined + decoder.flush(), tokenizer.decode(ids, options));
    }
  }
}

TEST(StreamingDecoder, HoldsACutCharacterAndFlushesItAsReplaced) {
  const Tokenizer tokenizer = byte_level_source().load();
  StreamingDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push(byte_id(0xE4)), "");
  EXPECT_EQ(decoder.push(byte_id(0xB8)), "");
  EXPECT_EQ(decoder.push(byte_id(0xAD)), "\u4E2D");
  EXPECT_EQ(decoder.push(byte_id(0xF0)), "");
  EXPECT_EQ(decoder.flush(), "\uFFFD");
  EXPECT_EQ(decoder.flush(), "");
}

TEST(Tokenizer, IdsOutsideTheVocabularyAreRefused) {
  const Tokenizer tokenizer = byte_level_source().load();
  for (const TokenId id : {-1, 263, INT32_MAX, INT32_MIN}) {
    const std::string part = "token id " + std::to_string(id) + " is outside the vocabulary of 263";
    test::expect_error(ErrorCode::kInvalidArgument, part, [&] { (void)tokenizer.decode(Ids{id}); });
    test::expect_error(ErrorCode::kInvalidArgument, part, [&] { (void)tokenizer.decode(Ids{id}, {.skip_special_tokens = true}); });
    test::expect_error(ErrorCode::kInvalidArgument, part, [&] { (void)tokenizer.piece(id); });
    test::expect_error(ErrorCode::kInvalidArgument, part, [&] { (void)tokenizer.token_bytes(id); });
    test::expect_error(ErrorCode::kInvalidArgument, part, [&] { (void)tokenizer.is_special(id); });
    test::expect_error(ErrorCode::kInvalidArgument, part, [&] { StreamingDecoder(tokenizer).push(id); });
  }
}

struct Refusal {
  const char* name;
  ErrorCode code;
  const char* part;
  bool spm;
  const char* key;
  MetadataValue value;
};
class RefusedMetadata : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusedMetadata, SaysWhatIsWrong) {
  const Refusal& refusal = GetParam();
  MetadataSource source = refusal.spm ? spm_source() : byte_level_source();
  source.set(refusal.key, refusal.value);
  test::expect_error(refusal.code, refusal.part, [&] { source.load(); });
}

using Texts = std::vector<std::string>;
using Integers = std::vector<int64_t>;
constexpr ErrorCode kCorrupt = ErrorCode::kCorruptFile;
INSTANTIATE_TEST_SUITE_P(
    Table, RefusedMetadata,
    ::testing::Values(Refusal{"UnknownModel", ErrorCode::kUnsupported, "'rwkv'", false, "tokenizer.ggml.model", std::string("rwkv")},
                      Refusal{"UnknownPreTokenizer", ErrorCode::kUnsupported, "'new'", false, "tokenizer.ggml.pre", std::string("new")},
                      Refusal{"NoTokens", kCorrupt, "empty", false, "tokenizer.ggml.tokens", Texts{}},
                      Refusal{"EqualTokens", kCorrupt, "same text", true, "tokenizer.ggml.tokens", Texts(268, "x")},
                      Refusal{"TooFewTypes", kCorrupt, "have 2 types", false, "tokenizer.ggml.token_type", Integers{1, 1}},
                      Refusal{"UnknownType", kCorrupt, "has the type 7", false, "tokenizer.ggml.token_type", Integers(263, 7)},
                      Refusal{"NegativeType", kCorrupt, "has the type -1", false, "tokenizer.ggml.token_type", Integers(263, -1)},
                      Refusal{"TooFewScores", kCorrupt, "has 3 scores", true, "tokenizer.ggml.scores", std::vector<double>(3)},
                      Refusal{"NanScore", kCorrupt, "score", true, "tokenizer.ggml.scores", std::vector<double>(268, std::nan(""))},
                      Refusal{"MergeOfUnknown", kCorrupt, "'hx' is not in the vocabulary", false, "tokenizer.ggml.merges", Texts{"h x"}},
                      Refusal{"MergeWithoutSpace", kCorrupt, "not two parts", false, "tokenizer.ggml.merges", Texts{"he"}},
                      Refusal{"MergeWithoutRight", kCorrupt, "not two parts", false, "tokenizer.ggml.merges", Texts{"he "}},
                      Refusal{"BosAboveVocabulary", kCorrupt, "bos_token_id is 263", false, "tokenizer.ggml.bos_token_id", int64_t{263}},
                      Refusal{"EosNegative", kCorrupt, "eos_token_id is -1", false, "tokenizer.ggml.eos_token_id", int64_t{-1}},
                      Refusal{"EotAbove", kCorrupt, "eot_token_id is 4294967295", false, "tokenizer.ggml.eot_token_id",
                              int64_t{4294967295}},
                      Refusal{"EosOfList", kCorrupt, "eos_token_ids is 999", false, "tokenizer.ggml.eos_token_ids", Integers{1, 999}},
                      Refusal{"UnknownIdAbove", kCorrupt, "unknown_token_id", true, "tokenizer.ggml.unknown_token_id", int64_t{1} << 40},
                      Refusal{"BosOfWrongType", kCorrupt, "bos_token_id", false, "tokenizer.ggml.bos_token_id", std::string("1")},
                      Refusal{"TokensOfWrongType", kCorrupt, "tokens", false, "tokenizer.ggml.tokens", Integers{1, 2}}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(Tokenizer, MissingKeysAreNamed) {
  for (const char* key : {"tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"})
    test::expect_error(ErrorCode::kNotFound, key, [&] { byte_level_source().erase(key).load(); });
  test::expect_error(ErrorCode::kNotFound, "scores", [] { spm_source().erase("tokenizer.ggml.scores").load(); });
  test::expect_error(ErrorCode::kUnsupported, "tokenizer.ggml.pre", [] { byte_level_source().erase("tokenizer.ggml.pre").load(); });
}

TEST(Tokenizer, TooManyTokensAndTooLongOnesAreRefused) {
  test::expect_error(kCorrupt, "at most 4194304", [] {
    byte_level_source().set("tokenizer.ggml.tokens", Texts((1 << 22) + 1)).erase("tokenizer.ggml.token_type").load();
  });
  MetadataSource source = byte_level_source();
  source.set("tokenizer.ggml.tokens", Texts{std::string(2000, 'x')})
      .set("tokenizer.ggml.token_type", Integers{3})
      .set("tokenizer.ggml.merges", Texts{});
  source.erase("tokenizer.ggml.eos_token_id").erase("tokenizer.ggml.bos_token_id");
  test::expect_error(ErrorCode::kUnsupported, "2000 bytes", [&] { source.load(); });
}

TEST(Tokenizer, AMegabyteOfAnythingTakesUnderASecond) {
  for (const Tokenizer& tokenizer : {byte_level_source().load(), spm_source().load()}) {
    for (std::string_view unit : {"A", "a", "0", ".", "'", " ", "\n", "\u4E2D", "\U0001F600", "\u0301", "\u200D", "\xFF", "a ", "ab",
                                  "hell", "<|im_end|>", "<|im_"}) {
      double times[2] = {1e9, 1e9};
      for (int i = 0; i < 4; ++i) {
        std::string text;
        while (text.size() < (i % 2 == 0 ? test::kLong / 8 : test::kLong)) text += unit;
        const double start = test::cpu_seconds();
        EXPECT_FALSE(tokenizer.encode(text, kSpecial).empty());
        times[i % 2] = std::min(times[i % 2], test::cpu_seconds() - start);
      }
      EXPECT_LT(times[1], 1.0 * test::kSlow) << unit;
      EXPECT_LT(times[1] / times[0], 24) << unit;  // 8 times the text; quadratic work would take 64 times as long.
    }
  }
}

}  // namespace
}  // namespace minillm
