// tokenizer_json_test.cpp - tokenizer.json: ten shapes of file against Hugging Face's answers, and what is refused.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "minillm/tokenizer.h"
#include "support/expect_error.h"
#include "support/temp_folder.h"
#include "text/tokenizer_support.h"

namespace minillm {
namespace {

using nlohmann::json;
using Ids = std::vector<TokenId>;

constexpr EncodeOptions kPlain{.add_special_tokens = false};
const std::string kFolder = std::string(MINILLM_TEST_DATA) + "/golden/tokenizers/";

Tokenizer from_json(const json& document) { return test::MetadataSource().json(document.dump()).load(); }

class Family : public ::testing::TestWithParam<const char*> {};

TEST_P(Family, GivesTheIdsOfHuggingFace) {
  const Tokenizer tokenizer = Tokenizer::load(kFolder + GetParam() + ".json");
  const auto goldens = test::read_golden_tokens(kFolder + GetParam() + ".tokens");
  EXPECT_EQ(goldens.size(), 100u);
  for (const auto& golden : goldens) {
    const std::string text = golden.decodes ? tokenizer.decode(golden.ids) : golden.text;
    EXPECT_EQ(tokenizer.encode(text, kPlain), golden.ids) << text;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Family,
                         ::testing::Values("gpt2", "smollm", "llama3", "qwen2", "gpt4o", "deepseek3", "digits", "llama2", "gemma",
                                           "metaspace"),
                         [](const auto& test) { return std::string(test.param); });

/// Two letters, one merge, everything else plain.
json small() {
  return json::parse(R"({
    "version": "1.0",
    "added_tokens": [{"id": 3, "content": "<s>", "special": true, "normalized": false}],
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": "Isolated", "invert": false},
                                                            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]},
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                       "special_tokens": {"<s>": {"id": "<s>", "ids": [3], "tokens": ["<s>"]}}},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
}

TEST(TokenizerJson, TemplateGivesBosAndIds) {
  const Tokenizer tokenizer = from_json(small());
  EXPECT_EQ(tokenizer.encode("abb"), (Ids{3, 2, 1}));
  EXPECT_EQ(tokenizer.encode("abb", kPlain), (Ids{2, 1}));
  EXPECT_EQ(tokenizer.bos(), TokenId{3});
  EXPECT_TRUE(tokenizer.is_special(3));
}

TEST(TokenizerJson, ConfigSaysEosAndTemplate) {
  test::MetadataSource source;
  source.set("tokenizer.ggml.eos_token_id", int64_t{3}).set("tokenizer.chat_template", std::string("{{ x }}")).json(small().dump());
  const Tokenizer tokenizer = source.load();
  EXPECT_EQ(tokenizer.end_tokens(), (Ids{3}));
  EXPECT_EQ(tokenizer.chat_template(), "{{ x }}");
}

TEST(TokenizerJson, StripFlagsTakeWhiteSpaceAlong) {
  json document = small();
  document["added_tokens"][0]["rstrip"] = true;
  document["added_tokens"][0]["lstrip"] = true;
  EXPECT_EQ(from_json(document).encode("a \n<s>\u3000\u00A0"
                                       "b",
                                       {.add_special_tokens = false, .parse_special_tokens = true}),
            (Ids{0, 3, 1}));
}

struct Patch {
  const char* name;
  ErrorCode code;
  const char* part;
  const char* patch;  ///< RFC 7386: merged into small().
};
class RefusedJson : public ::testing::TestWithParam<Patch> {};

TEST_P(RefusedJson, IsNamed) {
  json document = small();
  document.merge_patch(json::parse(GetParam().patch));
  test::expect_error(GetParam().code, GetParam().part, [&] { from_json(document); });
}

constexpr ErrorCode kCorrupt = ErrorCode::kCorruptFile, kUnsupported = ErrorCode::kUnsupported;
INSTANTIATE_TEST_SUITE_P(
    Table, RefusedJson,
    ::testing::Values(
        Patch{"NoModel", kCorrupt, "model is missing", R"({"model": null})"},
        Patch{"Unigram", kUnsupported, "'Unigram'", R"({"model": {"type": "Unigram"}})"},
        Patch{"Dropout", kUnsupported, "dropout", R"({"model": {"dropout": 0.1}})"},
        Patch{"Suffix", kUnsupported, "end_of_word_suffix", R"({"model": {"end_of_word_suffix": "</w>"}})"},
        Patch{"Prefix", kUnsupported, "continuing_subword_prefix", R"({"model": {"continuing_subword_prefix": "##"}})"},
        Patch{"BytesTwice", kUnsupported, "byte_fallback", R"({"model": {"byte_fallback": true}})"},
        Patch{"UnknownMissing", kCorrupt, "unk_token", R"({"model": {"unk_token": "?"}})"},
        Patch{"NoVocab", kCorrupt, "vocab is missing", R"({"model": {"vocab": null}})"},
        Patch{"NoMerges", kCorrupt, "merges is missing", R"({"model": {"merges": null}})"},
        Patch{"MergesNoArray", kCorrupt, "merges", R"({"model": {"merges": "a b"}})"},
        Patch{"MergeOfNumber", kCorrupt, "merges", R"({"model": {"merges": [1]}})"},
        Patch{"MergeOfThree", kCorrupt, "not two parts", R"({"model": {"merges": ["a b c"]}})"},
        Patch{"MergeOfOne", kCorrupt, "not two parts", R"({"model": {"merges": ["ab"]}})"},
        Patch{"MergeListOfThree", kCorrupt, "merges", R"({"model": {"merges": [["a", "b", "c"]]}})"},
        Patch{"IdNegative", kCorrupt, "-1", R"({"model": {"vocab": {"c": -1}}})"},
        Patch{"IdHuge", kCorrupt, "4194304", R"({"model": {"vocab": {"c": 4194304}}})"},
        Patch{"IdAboveInt64", kCorrupt, "id", R"({"model": {"vocab": {"c": 18446744073709551615}}})"},
        Patch{"IdNoInteger", kCorrupt, "id", R"({"model": {"vocab": {"c": 4.5}}})"},
        Patch{"IdTwice", kCorrupt, "is both", R"({"model": {"vocab": {"c": 1}}})"},
        Patch{"IdsSparse", kCorrupt, "dense", R"({"model": {"vocab": {"c": 9}}})"},
        Patch{"AddedIdHuge", kCorrupt, "2147483648", R"({"added_tokens": [{"id": 2147483648, "content": "x"}]})"},
        Patch{"AddedNoContent", kCorrupt, "content is missing", R"({"added_tokens": [{"id": 3}]})"},
        Patch{"AddedNoArray", kCorrupt, "added_tokens", R"({"added_tokens": {"id": 3}})"},
        Patch{"AddedAtTwoIds", kCorrupt, "same text", R"({"added_tokens": [{"id": 3, "content": "a"}]})"},
        Patch{"SingleWord", kUnsupported, "single_word", R"({"added_tokens": [{"id": 3, "content": "<s>", "single_word": true}]})"},
        Patch{"Normalizer", kUnsupported, "'BertNormalizer'", R"({"normalizer": {"type": "BertNormalizer"}})"},
        Patch{"NormalizerNoType", kCorrupt, "type is missing", R"({"normalizer": {"type": null}})"},
        Patch{"NormalizerNoText", kCorrupt, "prepend is missing", R"({"normalizer": {"type": "Prepend"}})"},
        Patch{"ReplaceEmpty", kCorrupt, "empty pattern",
              R"({"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"}})"},
        Patch{"ReplaceNoPattern", kCorrupt, "pattern is missing", R"({"normalizer": {"type": "Replace", "content": "x"}})"},
        Patch{"SequenceNoArray", kCorrupt, "no array", R"({"normalizer": {"type": "Sequence"}})"},
        Patch{"PreTokenizer", kUnsupported, "'BertPreTokenizer'", R"({"pre_tokenizer": {"type": "BertPreTokenizer"}})"},
        Patch{"AfterByteLevel", kUnsupported, "nothing after ByteLevel",
              R"({"pre_tokenizer": {"pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]}})"},
        Patch{"LateSpace", kUnsupported, "add_prefix_space",
              R"({"pre_tokenizer": {"pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]}})"},
        Patch{"LateMetaspace", kUnsupported, "Metaspace",
              R"({"pre_tokenizer": {"pretokenizers": [{"type": "Digits"}, {"type": "Metaspace"}]}})"},
        Patch{"MetaspaceMark", kUnsupported, "replacement",
              R"({"pre_tokenizer": {"pretokenizers": [{"type": "Metaspace", "replacement": "_"}]}})"},
        Patch{"MetaspaceScheme", kUnsupported, "prepend_scheme",
              R"({"pre_tokenizer": {"pretokenizers": [{"type": "Metaspace", "prepend_scheme": "x"}]}})"},
        Patch{"Behavior", kUnsupported, "behavior",
              R"({"pre_tokenizer": {"pretokenizers": [{"type": "Split", "pattern": {"Regex": "a"}, "behavior": "x"}]}})"},
        Patch{"BadPattern", kCorrupt, "pattern '(a'",
              R"({"pre_tokenizer": {"pretokenizers": [{"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"}]}})"},
        Patch{"WordBorder", kUnsupported, "this escape",
              R"({"pre_tokenizer": {"pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\b"}, "behavior": "Isolated"}]}})"},
        Patch{"PostProcessor", kUnsupported, "'Odd'", R"({"post_processor": {"type": "Odd"}})"},
        Patch{"TemplateNoText", kCorrupt, "does not occur", R"({"post_processor": {"single": []}})"},
        Patch{"TemplateTwice", kCorrupt, "twice", R"({"post_processor": {"single": [{"Sequence": {}}, {"Sequence": {}}]}})"},
        Patch{"TemplateNoArray", kCorrupt, "single is no array", R"({"post_processor": {"single": 1}})"},
        Patch{"TemplateOdd", kCorrupt, "neither", R"({"post_processor": {"single": [{}]}})"},
        Patch{"TemplateNoIds", kCorrupt, "special_tokens has no", R"({"post_processor": {"special_tokens": null}})"},
        Patch{"TemplateIdAbove", kCorrupt, "outside the vocabulary", R"({"post_processor": {"special_tokens": {"<s>": {"ids": [4]}}}})"},
        Patch{"RobertaNoPair", kCorrupt, "cls is no", R"({"post_processor": {"type": "RobertaProcessing", "cls": ["<s>", 9]}})"},
        Patch{"NoDecoder", kUnsupported, "no decoder", R"({"decoder": null})"},
        Patch{"OtherDecoder", kUnsupported, "ByteLevel, as the", R"({"decoder": {"type": "Fuse"}})"},
        Patch{"UnknownDecoder", kUnsupported, "'CTC'", R"({"pre_tokenizer": null, "decoder": {"type": "CTC"}})"},
        Patch{"DecoderReplace", kUnsupported, "Replace",
              R"({"pre_tokenizer": null, "decoder": {"type": "Replace", "pattern": {"String": "x"}, "content": " "}})"},
        Patch{"DecoderStrip", kUnsupported, "Strip",
              R"({"pre_tokenizer": null, "decoder": {"type": "Strip", "content": " ", "start": 0, "stop": 1}})"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(TokenizerJson, TextThatIsNoTokenizerIsRefused) {
  for (const std::string& text : {std::string("{"), std::string("[]"), std::string("{} x"), std::string("null"), std::string("\xFF"),
                                  std::string(100000, '['), R"({"model": {"vocab": {}, "merges": []}})" + std::string()})
    test::expect_error(kCorrupt, "", [&] { test::MetadataSource().json(text).load(); });
  std::string deep = small().dump();
  deep.insert(1, "\"x\": " + std::string(70, '[') + std::string(70, ']') + ",");
  test::expect_error(kCorrupt, "64", [&] { test::MetadataSource().json(deep).load(); });
  test::TempFolder folder;
  test::expect_error(ErrorCode::kNotFound, "none.json", [&] { Tokenizer::load(folder / "none.json"); });
  folder.write("huge.json", std::string((size_t{64} << 20) + 1, ' '));
  test::expect_error(kCorrupt, "huge.json", [&] { Tokenizer::load(folder / "huge.json"); });
}

/// Every node of a real file in turn becomes something else: the file is understood or refused, nothing else happens.
TEST(TokenizerJson, NoNodeOfAFileCanHurt) {
  for (const char* name : {"llama2", "deepseek3"}) {
    const json document = json::parse(test::read_file(kFolder + name + ".json"));
    std::vector<json::json_pointer> nodes, open = {json::json_pointer()};
    while (!open.empty()) {
      const json::json_pointer at = open.back();
      open.pop_back();
      nodes.push_back(at);
      const json& node = document[at];
      size_t n = 0;
      if (node.is_object())
        for (const auto& [key, value] : node.items())
          if (n++ % (node.size() > 50 ? 97 : 1) == 0) open.push_back(at / key);  // A few of a long list: the rest are like them.
      if (node.is_array())
        for (; n<node.size(); n += node.size()> 50 ? 97 : 1) open.push_back(at / n);
    }
    int loaded = 0, refused = 0;
    for (const auto& at : nodes) {
      for (const char* value : {"null", "[]", "{}", "-1", "\"\"", "true", "1e300"}) {
        json changed = document;
        changed[at] = json::parse(value);
        try {
          (void)from_json(changed).encode("Hello world 123 \u4E2D<|im_end|>");
          ++loaded;
        } catch (const Error& error) {
          EXPECT_TRUE(error.code() == kCorrupt || error.code() == kUnsupported) << at.to_string() << " = " << value << ": " << error.what();
          ++refused;
        }
      }
    }
    EXPECT_GT(loaded, 50);
    EXPECT_GT(refused, 200);
  }
}

}  // namespace
}  // namespace minillm
