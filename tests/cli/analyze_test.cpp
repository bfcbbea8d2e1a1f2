// analyze_test.cpp - `minillm analyze --json`: the shape that reports are built from, and the figures that do not depend on speed.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "run_minillm.h"

namespace minillm {
namespace {

using Json = nlohmann::json;

class Analyze : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const test::TempFolder folder;
    const test::ProgramResult result =
        test::run_minillm({"analyze", "-m", test::write_babbler(folder), "--max-tokens", "512", "--repeats", "1", "--json"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    report_ = Json::parse(result.out);
  }
  static const Json& rows(const char* section) { return report_.at(section).at("rows"); }
  static Json report_;
};
Json Analyze::report_;

TEST_F(Analyze, SaysWhereItComesFromAndWhatTheMachineReaches) {
  for (const char* key : {"minillm", "commit", "compiler", "date"}) EXPECT_FALSE(report_.at(key).get<std::string>().empty()) << key;
  EXPECT_EQ(report_["date"].get<std::string>().size(), std::string("2026-01-01T00:00:00Z").size());
  EXPECT_GT(report_["machine"]["limits"]["read_gb_s"].get<double>(), 0);
  EXPECT_GT(report_["machine"]["memory_bytes"].get<double>(), 1e8);
  for (const char* section : {"attention_speed", "block_sizes", "generation", "batches"})
    EXPECT_GT(report_.at(section).at("limits").at("float_gflop_s").get<double>(), 0) << section;
}

TEST_F(Analyze, MemoryTableIsFourTimesLargerForTwiceTheTokensOnlyWithoutFlash) {
  ASSERT_EQ(rows("attention_memory").size(), 2u);
  for (const Json& row : rows("attention_memory")) {
    const int64_t tokens = row["tokens"], scores = 2 * 8 * tokens * tokens * 4, flash = row["flash_bytes"];
    EXPECT_LE(flash, 1 << 20);
    EXPECT_GE(row["standard_bytes"].get<int64_t>(), scores);
    EXPECT_LE(row["standard_bytes"].get<int64_t>(), scores + flash);
  }
}

TEST_F(Analyze, EverySpeedIsPositiveAndNamesItsShare) {
  const std::pair<const char*, const char*> rates[] = {
      {"attention_speed", "flash_gflop_s"}, {"block_sizes", "gflop_s"}, {"generation", "incremental_tok_s"}, {"batches", "tok_s"}};
  for (const auto& [section, key] : rates) {
    EXPECT_FALSE(rows(section).empty()) << section;
    for (const Json& row : rows(section)) {
      EXPECT_GT(row.at(key).get<double>(), 0) << section;
      EXPECT_GT(row.at("of_peak").get<double>(), 0) << section;
    }
  }
  std::set<int64_t> blocks;
  for (const Json& row : rows("block_sizes")) blocks.insert(row["block"].get<int64_t>());
  EXPECT_EQ(blocks, (std::set<int64_t>{16, 32, 64, 128, 256, 512, 1024}));
  EXPECT_EQ(report_["block_sizes"]["resolved"]["block"], report_["model"]["flash_block_size"]);
}

TEST_F(Analyze, CacheGrowsByPagesAndGivesMemoryBack) {
  int64_t before_crop = 0;
  for (const Json& row : rows("cache_growth")) {
    const int64_t held = row["bytes"], needed = row["needed_bytes"];
    EXPECT_GE(held, needed);
    if (row["after"] == "growth") before_crop = held;
    if (row["after"] == "crop") {
      EXPECT_LT(held, before_crop);
    }
    if (row["after"] == "reset") {
      EXPECT_EQ(held, 0);
    }
  }
  ASSERT_EQ(rows("cache_memory").size(), 6u);
  for (const Json& row : rows("cache_memory")) EXPECT_EQ(row["computed_bytes"], row["measured_bytes"]);
}

TEST(AnalyzeTables, ArePrintedForPeople) {
  const test::TempFolder folder;
  const test::ProgramResult result =
      test::run_minillm({"analyze", "-m", test::write_babbler(folder), "--max-tokens", "64", "--repeats", "1"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* words : {"limits: reads", "Block size of flash attention", "rule of thumb", "of batch 1"})
    EXPECT_NE(result.out.find(words), std::string::npos) << words;
}

}  // namespace
}  // namespace minillm
