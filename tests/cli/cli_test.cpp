// cli_test.cpp - the program as its users see it: exit codes, what goes to which stream, JSON, Ctrl-C.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "run_minillm.h"

namespace minillm {
namespace {

using test::ProgramResult;
using test::Reader;
using test::run_minillm;
using Json = nlohmann::json;

class Cli : public ::testing::Test {
 protected:
  Cli() { ::setenv("MINILLM_HOME", folder_.path().c_str(), 1); }  // Nothing is pulled there.
  Json json(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"-m", model_, "--json"});
    const ProgramResult result = run_minillm(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.out.find('\n'), result.out.size() - 1) << "one line";
    return Json::parse(result.out, nullptr, false);
  }
  void fails_with(int exit_code, const std::string& part, const std::vector<std::string>& arguments) {
    const ProgramResult result = run_minillm(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_NE(result.err.find(part), std::string::npos) << "'" << result.err << "' should hold '" << part << "'";
  }

  test::TempFolder folder_;
  std::string model_ = test::write_babbler(folder_);
};

TEST_F(Cli, HelpAndVersionGoToStandardOutput) {
  EXPECT_EQ(run_minillm({"--version"}).out.rfind("minillm ", 0), 0u);
  for (const char* command : {"generate", "score", "tokenize", "inspect", "bench", "pull"}) {
    const ProgramResult result = run_minillm({command, "--help"});
    EXPECT_EQ(result.exit_code, 0) << command;
    EXPECT_NE(result.out.find("--json"), std::string::npos) << command;
    EXPECT_EQ(result.err, "") << command;
  }
}

TEST_F(Cli, WrongUsageIsExitCode2AndNamesTheFlag) {
  fails_with(2, "subcommand", {});
  fails_with(2, "nonsense", {"nonsense"});
  fails_with(2, "--nonsense", {"generate", "--nonsense"});
  fails_with(2, "--prompt, --file and --batch", {"generate", "-m", model_});
  fails_with(2, "--prompt, --file and --batch", {"generate", "-m", model_, "-p", "x", "-f", "y"});
  fails_with(2, "--temperature", {"generate", "-p", "x", "--temperature", "-1"});
  fails_with(2, "--top-p", {"generate", "-p", "x", "--top-p", "2"});
  fails_with(2, "--device", {"generate", "-p", "x", "--device", "abacus"});
  fails_with(2, "expected f32, f16, bf16 or f8", {"generate", "-p", "x", "--kv-dtype", "q4_0"});
  fails_with(2, "power of two from 16 to 1024", {"generate", "-p", "x", "--flash-block-size", "48"});
  fails_with(2, "--file and --ids", {"score", "-m", model_});
  fails_with(2, "'x' is no token id", {"score", "-m", model_, "--ids", "1,x"});
  fails_with(2, "TEXT, --file and --decode", {"tokenize", "-m", model_});
  fails_with(2, "nothing to measure", {"bench", "-m", model_, "--prompt-tokens", "0", "--decode-tokens", "0"});
  fails_with(2, "not both", {"bench", "-m", model_, "--random", "small"});
  fails_with(2, "--batch", {"inspect", model_, "--batch", "0"});
}

TEST_F(Cli, FailuresAreExitCode1AndNameTheProblem) {
  fails_with(1, "/none.gguf", {"generate", "-p", "x", "-m", "/none.gguf"});
  fails_with(1, "fetch it with: minillm pull gemma3-270m", {"generate", "-p", "x", "-m", "gemma3-270m"});
  fails_with(1, "/none.txt: cannot read", {"score", "-f", "/none.txt", "-m", model_});
  fails_with(1, "cannot read", {"score", "-f", folder_.path(), "-m", model_});
  fails_with(1, "no prompts", {"generate", "--batch", folder_.write("empty", "\n\n"), "-m", model_});
  fails_with(1, "no tokens", {"score", "-f", folder_.write("nothing", ""), "-m", model_});
  fails_with(1, "text.gguf", {"inspect", folder_.write("text.gguf", "this is no model")});
  fails_with(1, "96", {"tokenize", "-m", model_, "--decode", "96"});
  fails_with(1, "known are smollm2", {"pull", "nothing"});
  fails_with(1, "llama-3.2-1b", {"bench", "--random", "nothing"});
  fails_with(1, "cuda", {"generate", "-p", "x", "-m", model_, "--device", "cuda"});
  const std::string unwritable = folder_ / "none/x.npy";
  fails_with(1, unwritable + ": cannot write", {"score", "-m", model_, "--json", "--ids", "1,2", "--logits", unwritable});
}

TEST_F(Cli, GenerateStreamsTextAndKeepsItApartFromItsWords) {
  const ProgramResult result = run_minillm({"generate", "-m", model_, "-p", "hello", "-n", "8", "--ignore-eos"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out.back(), '\n');
  EXPECT_NE(result.err.find("tokens/s"), std::string::npos);
  const Json json = this->json({"generate", "-p", "hello", "-n", "8", "--ignore-eos"});
  EXPECT_EQ(json["text"].get<std::string>() + "\n", result.out);
  EXPECT_EQ(json["ids"].size(), 8u);
  EXPECT_EQ(json["prompt_tokens"], 5);
  EXPECT_EQ(json["finish_reason"], "length");
  EXPECT_GT(json["prefill_tok_s"].get<double>(), 0);
  EXPECT_GT(json["decode_tok_s"].get<double>(), 0);
}

TEST_F(Cli, GenerateIsTheSameForTheSameSeedAndInABatch) {
  const std::vector<std::string> flags{"--temperature", "1", "--seed", "7", "-n", "16", "--ignore-eos"};
  const auto with = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return json(arguments);
  };
  const Json one = with({"generate", "-p", "abc"});
  EXPECT_EQ(one["ids"], with({"generate", "-p", "abc"})["ids"]);
  const Json batch = with({"generate", "--batch", folder_.write("prompts", "abc\nsomething longer\n")});
  ASSERT_EQ(batch.size(), 2u);
  EXPECT_EQ(batch[0]["ids"], one["ids"]);
  EXPECT_EQ(batch[1]["prompt_tokens"], 16);
}

TEST_F(Cli, GenerateAppliesTheChatTemplate) {
  EXPECT_EQ(json({"generate", "--chat", "-p", "hi", "-n", "1"})["prompt_tokens"], std::string("<user>hi:").size());
}

TEST_F(Cli, CtrlCKeepsThePartialTextAndExits130) {
  const ProgramResult result =
      run_minillm({"generate", "-m", model_, "-p", "x", "-n", "100000", "--ctx", "100002", "--ignore-eos"}, Reader::kInterrupts);
  EXPECT_EQ(result.exit_code, 130) << result.err;
  EXPECT_GT(result.out.size(), 1u);
  EXPECT_LT(result.out.size(), 100'000u);
  EXPECT_EQ(result.err.find("error"), std::string::npos) << result.err;
}

TEST_F(Cli, ALostReaderIsNoErrorAndAFullDiskIs) {
  const ProgramResult gone = run_minillm({"generate", "-m", model_, "-p", "x", "-n", "8", "--ignore-eos"}, Reader::kIsGone);
  EXPECT_EQ(gone.exit_code, 141);
  EXPECT_EQ(gone.err, "");
  const ProgramResult full = run_minillm({"inspect", model_}, Reader::kReadsAll, "/dev/full");
  EXPECT_EQ(full.exit_code, 1);
  EXPECT_NE(full.err.find("No space left"), std::string::npos) << full.err;
}

TEST_F(Cli, ScoreAgreesWithItsOwnLogits) {
  const std::string npy = folder_ / "x.npy";
  const Json json = this->json({"score", "--ids", "1,2,3,50,7", "--logits", npy, "--top-logprobs", "3"});
  EXPECT_EQ(json["n_tokens"], 5);
  EXPECT_EQ(json["n_scored"], 4);
  EXPECT_NEAR(json["perplexity"].get<double>(), std::exp(json["mean_nll"].get<double>()), 1e-9);
  const std::string bytes = read_text_file(npy, 1 << 20);
  EXPECT_EQ(bytes.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
  const size_t header = 10 + static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]);
  EXPECT_EQ(header % 64, 0u);
  EXPECT_NE(bytes.find("'descr': '<f4', 'fortran_order': False, 'shape': (5, 96)"), std::string::npos);
  ASSERT_EQ(bytes.size(), header + 5 * 96 * sizeof(float));
  std::vector<float> rows(5 * 96);
  std::memcpy(rows.data(), bytes.data() + header, rows.size() * sizeof(float));
  double nll = 0;
  for (size_t t = 0; t < 4; ++t) {
    double sum = 0;
    for (size_t v = 0; v < 96; ++v) sum += std::exp(static_cast<double>(rows[t * 96 + v]));
    const double logprob = static_cast<double>(rows[t * 96 + json["tokens"][t + 1]["id"].get<size_t>()]) - std::log(sum);
    EXPECT_NEAR(json["tokens"][t + 1]["logprob"].get<double>(), logprob, 1e-6) << t;  // Both in double, from the same floats.
    EXPECT_EQ(json["tokens"][t + 1]["top"].size(), 3u);
    nll -= logprob;
  }
  EXPECT_NEAR(json["mean_nll"].get<double>(), nll / 4, 1e-6);
}

TEST_F(Cli, ScoreTakesTextsLongerThanTheContext) {
  std::string text;
  for (int i = 0; i < 90; ++i) text += static_cast<char>(' ' + i);
  const std::string file = folder_.write("long.txt", text);
  const Json whole = json({"score", "-f", file}), windows = json({"score", "-f", file, "--ctx", "40"});
  EXPECT_EQ(windows["n_scored"], 89);
  for (size_t t = 0; t < 40; ++t) EXPECT_EQ(windows["tokens"][t]["logprob"], whole["tokens"][t]["logprob"]) << t;
}

TEST_F(Cli, TokenizeGoesThereAndBack) {
  const Json json = this->json({"tokenize", "a b"});
  EXPECT_EQ(json["ids"], Json({65, 0, 66}));
  EXPECT_EQ(json["pieces"], Json({"a", "\xC4\xA0", "b"}));
  EXPECT_EQ(this->json({"tokenize", "--decode", "65,0,66"})["text"], "a b");
}

TEST_F(Cli, InspectTellsShapesAndMemory) {
  const Json json = this->json({"inspect", "--ctx", "128"});
  EXPECT_EQ(json["architecture"], "llama");
  EXPECT_EQ(json["config"]["vocab_size"], 96);
  EXPECT_EQ(json["memory"]["context"], 128);
  EXPECT_GT(json["memory"]["total"].get<int64_t>(), json["memory"]["kv_cache"].get<int64_t>());
  EXPECT_EQ(json["tensors"].size() > 5, true);
  EXPECT_NE(run_minillm({"inspect", model_}).out.find("token_embd.weight"), std::string::npos);
}

TEST_F(Cli, BenchReportsWhatOthersReadFromIt) {
  const Json json =
      this->json({"bench", "--prompt-tokens", "16", "--decode-tokens", "4", "--depth", "8", "--batch", "2", "--repeats", "2"});
  ASSERT_EQ(json.size(), 4u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(json[i]["test"], i == 0 ? "prefill" : "decode");
    EXPECT_EQ(json[i]["tokens"], i == 0 ? 16 : 4);
    EXPECT_EQ(json[i]["depth"], 8);
    EXPECT_EQ(json[i]["batch"], 2);
    EXPECT_GE(json[i]["threads"].get<int>(), 1);
    for (const char* rate : {"tok_s", "gb_s", "gflop_s", "of_peak"}) EXPECT_GT(json[i][rate].get<double>(), 0) << rate;
    ASSERT_EQ(json[i]["samples"].size(), 2u);  // Their median is tok_s; a mean of two, counted in seconds.
    EXPECT_NEAR(2 / json[i]["tok_s"].get<double>(), 1 / json[i]["samples"][0].get<double>() + 1 / json[i]["samples"][1].get<double>(),
                1e-9);
  }
  EXPECT_EQ(json[2]["test"], "load");
  EXPECT_GT(json[2]["seconds"].get<double>(), 0);
  EXPECT_EQ(json[3]["test"], "machine");
  for (const char* key : {"commit", "compiler", "date", "processor", "device"})
    EXPECT_FALSE(json[3][key].get<std::string>().empty()) << key;
  EXPECT_GT(json[3]["limits"]["read_gb_s"].get<double>(), 0);
  EXPECT_EQ(this->json({"bench", "--prompt-tokens", "4", "--decode-tokens", "0", "--repeats", "1"}).size(), 3u);
}

}  // namespace
}  // namespace minillm
