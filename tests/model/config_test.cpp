// config_test.cpp - the named shapes, parameter counts, and every refusal of ModelConfig::validate.
#include "minillm/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "minillm/error.h"
#include "model/hyperparameters.h"

namespace minillm {
namespace {

/// The message of the Error that `f` throws, after checking its code; empty if it throws none.
template <typename F>
std::string error_of(ErrorCode code, F&& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "";
}

TEST(Configs, HaveTheSizesOfTheDocumentation) {
  const ModelConfig small = Configs::small(), medium = Configs::medium(), large = Configs::large();
  EXPECT_EQ(small.n_layers, 8);
  EXPECT_EQ(small.hidden_size, 512);
  EXPECT_EQ(small.n_heads, 8);
  EXPECT_EQ(small.head_dim, 64);
  EXPECT_EQ(small.ffn_size, 1536);
  EXPECT_EQ(small.context_length, 2048);
  EXPECT_EQ(medium.n_kv_heads, 4);
  EXPECT_EQ(medium.context_length, 4096);
  EXPECT_EQ(large.n_layers, 24);
  EXPECT_EQ(large.context_length, 8192);
  for (const ModelConfig& config : {small, medium, large}) {
    EXPECT_EQ(config.vocab_size, 32000);
    EXPECT_TRUE(config.tied_embeddings);
    EXPECT_EQ(config.rope_base, 10000.0f);
    EXPECT_EQ(config.kv_dtype, Dtype::kF16);
  }
}

TEST(Configs, SmallNeeds64MegabytesOfCacheForTwoRowsOf2048) {
  const ModelConfig c = Configs::small();
  EXPECT_EQ(2 * c.n_layers * c.kv_size() * 2 * 2048 * 2, 64 << 20);  // K and V, layers, row width, batch 2, tokens, bytes.
}

TEST(Configs, AreValidByEachName) {
  for (const char* name : {"small", "medium", "large", "smollm2-135m", "llama-3.2-1b", "llama-3.1-8b"})
    EXPECT_NO_THROW(Configs::by_name(name).validate()) << name;
}

TEST(Configs, CountParametersAsPublished) {
  EXPECT_EQ(Configs::by_name("smollm2-135m").n_parameters(), 134515008);
  EXPECT_EQ(Configs::by_name("llama-3.2-1b").n_parameters(), 1235814400);
  EXPECT_EQ(Configs::by_name("llama-3.1-8b").n_parameters(), 8030261248);
}

TEST(Configs, RefuseAnUnknownNameAndListTheKnown) {
  const std::string message = error_of(ErrorCode::kNotFound, [] { Configs::by_name("tiny"); });
  EXPECT_NE(message.find("'tiny'"), std::string::npos) << message;
  EXPECT_NE(message.find("llama-3.1-8b"), std::string::npos) << message;
}

TEST(Validate, RefusesEveryNumberOfTheTableOutsideItsRange) {
  for (const Hyperparameter& row : kHyperparameters) {
    const auto refused = [&](double value) {
      ModelConfig config = Configs::small();
      std::visit([&](auto member) { config.*member = static_cast<std::remove_reference_t<decltype(config.*member)>>(value); }, row.member);
      const std::string message = error_of(ErrorCode::kInvalidArgument, [&] { config.validate(); });
      EXPECT_NE(message.find(row.field), std::string::npos) << row.field << " = " << value << ": " << message;
    };
    refused(std::max(row.max * 1.5, row.max + 1));
    refused(-1);
    if (!row.zero_is_unset) refused(0);
    if (std::holds_alternative<float ModelConfig::*>(row.member)) {
      refused(std::numeric_limits<double>::quiet_NaN());
      refused(std::numeric_limits<double>::infinity());
    }
  }
}

TEST(Validate, RefusesEveryNumberOfRopeScalingOutsideItsRange) {
  for (const RopeHyperparameter& row : kRopeHyperparameters) {
    ModelConfig config = Configs::by_name("llama-3.2-1b");
    std::visit([&](auto member) { config.rope_scaling.*member = 0; }, row.member);
    const std::string message = error_of(ErrorCode::kInvalidArgument, [&] { config.validate(); });
    EXPECT_NE(message.find(row.field), std::string::npos) << message;
  }
}

TEST(Validate, RefusesNumbersThatDoNotFitTogether) {
  const auto refused = [](const char* word, auto change) {
    ModelConfig config = Configs::small();
    change(config);
    const std::string message = error_of(ErrorCode::kInvalidArgument, [&] { config.validate(); });
    EXPECT_NE(message.find(word), std::string::npos) << word << ": " << message;
  };
  refused("n_kv_heads", [](ModelConfig& c) { c.n_kv_heads = 3; });
  refused("head_dim", [](ModelConfig& c) { c.head_dim = 63; });
  refused("rope_dim", [](ModelConfig& c) { c.rope_dim = 66; });
  refused("rope_dim", [](ModelConfig& c) { c.rope_dim = 31; });
  refused("kv_dtype", [](ModelConfig& c) { c.kv_dtype = Dtype::kQ8_0; });
  refused("matrix", [](ModelConfig& c) { c.hidden_size = 1 << 17, c.vocab_size = 1 << 24; });
  refused("high_freq_factor", [](ModelConfig& c) { c.rope_scaling = {RopeScaling::Kind::kLlama3, 8.0f, 4.0f, 4.0f, 8192}; });
}

TEST(Validate, RefusesAnUnknownArchitecture) {
  ModelConfig config = Configs::small();
  config.architecture = "mamba";
  const std::string message = error_of(ErrorCode::kUnsupported, [&] { config.validate(); });
  EXPECT_NE(message.find("'mamba'"), std::string::npos) << message;
  EXPECT_NE(message.find("gemma3"), std::string::npos) << message;
}

TEST(LayerSlides, FollowsThePattern) {
  ModelConfig config = Configs::small();
  EXPECT_FALSE(config.layer_slides(0));
  config.sliding_window = 512;
  EXPECT_TRUE(config.layer_slides(0));
  config.sliding_pattern = 6;
  for (int64_t i = 0; i < 18; ++i) EXPECT_EQ(config.layer_slides(i), i % 6 != 5) << i;
}

}  // namespace
}  // namespace minillm
