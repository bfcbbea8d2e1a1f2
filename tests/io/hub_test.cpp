// hub_test.cpp - choosing and fetching models of the hub, from a hub on this machine.
#include "io/hub.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "io/mapped_file.h"
#include "io/sha256.h"
#include "support/expect_error.h"
#include "support/loopback_server.h"
#include "support/temp_folder.h"

namespace minillm {
namespace {

using test::expect_error;
using test::HttpRequest;
using test::LoopbackServer;

HubRepository repository(const std::vector<std::string>& names) {
  HubRepository result{.commit = "main", .files = {}};
  for (const std::string& name : names) result.files.push_back({.name = name, .size = 1, .sha256 = ""});
  return result;
}

std::vector<std::string> chosen(const std::vector<std::string>& names, const std::string& wanted = "") {
  std::vector<std::string> result;
  for (const HubFile& file : choose_hub_files(repository(names), wanted, "o/r")) result.push_back(file.name);
  return result;
}

using Names = std::vector<std::string>;

TEST(ChooseHubFiles, TakesTheOneGgufOrTheBestKnownQuantisation) {
  EXPECT_EQ(chosen({"README.md", "m.gguf"}), Names{"m.gguf"});
  EXPECT_EQ(chosen({"m-Q8_0.gguf", "m-Q4_0.gguf", "m-Q4_K_M.gguf"}), Names{"m-Q4_K_M.gguf"});
  EXPECT_EQ(chosen({"m-f16.gguf", "m.q8_0.gguf"}), Names{"m.q8_0.gguf"});
  EXPECT_EQ(chosen({"m.gguf", "mmproj-m-f16.gguf"}), Names{"m.gguf"});
  expect_error(ErrorCode::kNotFound, "OWNER/REPO:FILE takes one of 'a.gguf', 'b.gguf'", [] { chosen({"b.gguf", "a.gguf"}); });
}

TEST(ChooseHubFiles, TakesAllShardsInOrder) {
  const Names names{"m-Q8_0-00002-of-00002.gguf", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00001-of-00003.gguf", "x-Q4_0.gguf"};
  EXPECT_EQ(chosen(names, names[1]), (Names{names[1], names[0]}));
  EXPECT_EQ(chosen(names), Names{"x-Q4_0.gguf"});
}

TEST(ChooseHubFiles, TakesSafetensorsWithWhatTheyNeed) {
  EXPECT_EQ(chosen({"model.safetensors", "config.json", "tokenizer.json", "pytorch_model.bin"}),
            (Names{"config.json", "tokenizer.json", "model.safetensors"}));
  const Names sharded{"config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors",
                      "model-00002-of-00002.safetensors"};
  EXPECT_EQ(chosen(sharded), sharded);
  expect_error(ErrorCode::kNotFound, "no GGUF or safetensors", [] { chosen({"pytorch_model.bin"}); });
}

TEST(ChooseHubFiles, NamesTheChoicesForAFileThatIsNotThere) {
  expect_error(ErrorCode::kNotFound, "no file 'y.gguf' there; there are 'x.gguf'", [] { chosen({"x.gguf"}, "y.gguf"); });
}

TEST(ParseHubListing, RefusesWhatCannotBeAListing) {
  const auto parse = [](const std::string& json) { return parse_hub_listing(json, "o/r"); };
  for (const char* json :
       {"", "[]", "{}", "{\"siblings\": 3}", "{\"siblings\": [3]}", "{\"siblings\": [{}]}", "{\"siblings\": [{\"rfilename\": 3}]}",
        "{\"siblings\": [{\"rfilename\": \"x\", \"size\": -1}]}", "{\"siblings\": [{\"rfilename\": \"x\", \"size\": 1e30}]}",
        "{\"siblings\": [{\"rfilename\": \"x\", \"lfs\": {\"size\": \"1\"}}]}"})
    expect_error(ErrorCode::kCorruptFile, "o/r", [&] { parse(json); });
  for (const char* name : {"../x", "/x", "a//b", "a\\\\b", "a\\u0000b", "NUL"})
    expect_error(ErrorCode::kInvalidArgument, "cannot be part of a path",
                 [&] { parse(std::string("{\"siblings\": [{\"rfilename\": \"") + name + "\"}]}"); });
  expect_error(ErrorCode::kInvalidArgument, "commit", [&] { parse("{\"sha\": \"../x\", \"siblings\": []}"); });
  const HubRepository good =
      parse(R"({"sha": "abc", "siblings": [{"rfilename": ".gitattributes"}, {"rfilename": "x", "lfs": {"size": 7, "sha256": "AB"}}]})");
  ASSERT_EQ(good.files.size(), 1u);
  EXPECT_EQ(good.files[0].size, 7u);
  EXPECT_EQ(good.files[0].sha256, "ab");
}

TEST(HubName, TakesOwnerAndRepositoryOnly) {
  EXPECT_EQ(HubName::parse("o/r:f/g.gguf").file, "f/g.gguf");
  EXPECT_EQ(HubName::parse("o/r").repository, "o/r");
  for (const char* text : {"o", "o/r/s", "/r", "o/", "../r", "o/r:", "o/r:../x", "o/..", ""})
    EXPECT_THROW(HubName::parse(text), Error) << text;
}

/// A hub with one repository, o/r, that holds one model file; a pull of it goes through pull().
class PullFromHub : public ::testing::Test {
 protected:
  PullFromHub() {
    for (const char* name : {"http_proxy", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY"}) ::unsetenv(name);
    ::setenv("HF_ENDPOINT", server_.url("/").c_str(), 1);
    ::setenv("MINILLM_HOME", folder_.path().c_str(), 1);
    ::unsetenv("HF_TOKEN");
  }
  void serve(const HttpRequest& request, int fd) {
    if (request.path == "/api/models/o/r?blobs=true") {
      Sha256 hash;
      hash.update(std::as_bytes(std::span(std::as_const(content_))));
      LoopbackServer::answer(fd, 200, "",
                             R"({"sha": "c0ffee", "siblings": [{"rfilename": "a dir/m.gguf", "size": )" + std::to_string(content_.size()) +
                                 R"(, "lfs": {"sha256": ")" + hash.hex() + "\"}}]}");
    } else if (request.path == "/o/r/resolve/c0ffee/a%20dir/m.gguf") {
      LoopbackServer::answer(fd, 200, "ETag: \"e\"\r\n", content_);
    } else {
      LoopbackServer::answer(fd, 404, "", "");
    }
  }
  test::TempFolder folder_;
  std::string content_ = "not really a model";
  LoopbackServer server_{[this](const HttpRequest& request, int fd) { serve(request, fd); }};
};

TEST_F(PullFromHub, FetchesOnceAndIsFoundByName) {
  const std::string want = folder_ / "hub/o/r/a dir/m.gguf";
  expect_error(ErrorCode::kNotFound, "no model 'o/r'", [] { resolve_model("o/r"); });
  EXPECT_EQ(pull("o/r"), want);
  EXPECT_EQ(read_text_file(want, 1000), content_);
  const size_t n = server_.requests().size();
  EXPECT_EQ(pull("o/r"), want);
  EXPECT_EQ(server_.requests().size(), n);  // At once.
  EXPECT_EQ(resolve_model("o/r"), want);
  EXPECT_EQ(pull("o/r:a dir/m.gguf"), want);
  EXPECT_EQ(resolve_model("o/r:a dir/m.gguf"), want);
}

TEST_F(PullFromHub, NamesWhatIsNotThere) {
  expect_error(ErrorCode::kNotFound, "o/none", [] { pull("o/none"); });
  expect_error(ErrorCode::kNotFound, "no file 'x.gguf'", [] { pull("o/r:x.gguf"); });
  expect_error(ErrorCode::kInvalidArgument, "cannot be part of a path", [] { pull("../r"); });
}

TEST_F(PullFromHub, SendsTheTokenButNeverABrokenOne) {
  ::setenv("HF_TOKEN", "hf_x", 1);
  pull("o/r");
  EXPECT_EQ(server_.requests().at(0).header("Authorization"), "Bearer hf_x");
  ::setenv("HF_TOKEN", "hf\r\nX-Evil: 1", 1);
  expect_error(ErrorCode::kInvalidArgument, "HF_TOKEN", [] { pull("o/r:other.gguf"); });
}

TEST_F(PullFromHub, StopsWhenToldTo) {
  expect_error(ErrorCode::kCancelled, "cancelled", [] { pull("o/r", [](const std::string&, uint64_t, uint64_t) { return false; }); });
  EXPECT_THROW(resolve_model("o/r"), Error);
}

}  // namespace
}  // namespace minillm
