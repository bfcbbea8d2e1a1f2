// weights_test.cpp - every tensor of every family missing, misshapen or mistyped; stacking, norms, and random weights.
#include "model/weights.h"

#include <gtest/gtest.h>

#include <cmath>

#include "minillm/error.h"
#include "model/config_reader.h"
#include "model/random_values.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

namespace minillm {
namespace {

using test::TinyModel;

class CheckTensors : public testing::TestWithParam<std::string> {
 protected:
  /// Expects the check to fail with `code` and a message that holds each of `words`.
  void expect_refused(const test::GgufWriter& writer, ErrorCode code, const std::vector<std::string>& words) {
    const test::TempFolder folder;
    const auto source = open_tensor_source(folder.write("model.gguf", writer.image().bytes));
    try {
      check_tensors(tiny_.config, *source);
      ADD_FAILURE() << "was accepted; expected an error about " << words[0];
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      for (const std::string& word : words)
        EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << word << ": " << error.what();
    }
  }

  TinyModel tiny_ = test::tiny_model(GetParam());
};

TEST_P(CheckTensors, AcceptsTheFamilysOwn) {
  const test::TempFolder folder;
  const auto source = open_tensor_source(folder.write("model.gguf", tiny_.writer().image().bytes));
  EXPECT_NO_THROW(check_tensors(read_config(*source), *source));
}

TEST_P(CheckTensors, RefusesAFileWithoutAnyOneOfThem) {
  for (const auto& [name, tensor] : tiny_.tensors) {
    if (name == "rope_freqs.weight") continue;  // Optional.
    TinyModel model = tiny_;
    model.tensors.erase(name);
    expect_refused(model.writer(), ErrorCode::kNotFound, {"model.gguf", "'" + name + "'"});
  }
}

TEST_P(CheckTensors, RefusesAnyOneOfAnotherShape) {
  for (const auto& [name, tensor] : tiny_.tensors) {
    if (name == "rope_freqs.weight") continue;  // Checked as it is read.
    TinyModel model = tiny_;
    test::TinyTensor& changed = model.tensors[name];
    changed.shape.back() += 8;
    changed.values.resize(changed.values.size() + static_cast<size_t>(8 * (changed.shape.size() == 2 ? changed.shape[0] : 1)));
    expect_refused(model.writer(), ErrorCode::kCorruptFile,
                   {"'" + name + "'", std::to_string(changed.shape.back()) + "]", "expected [", std::to_string(tensor.shape.back()) + "]"});
    if (tensor.shape.size() != 2) continue;
    model = tiny_;
    model.tensors[name].shape = {tensor.shape[0] * tensor.shape[1]};  // The same elements in one dimension.
    expect_refused(model.writer(), ErrorCode::kCorruptFile, {"'" + name + "'"});
  }
}

TEST_P(CheckTensors, RefusesAnExtraTensor) {
  test::GgufWriter writer = tiny_.writer();
  writer.random_tensor("blk.0.attn_output.bias", Dtype::kF32, {32}, 1);
  expect_refused(writer, ErrorCode::kUnsupported, {"'blk.0.attn_output.bias'", tiny_.config.architecture});
}

TEST_P(CheckTensors, RefusesANormInABlockFormat) {
  test::GgufWriter writer;
  tiny_.keys.write(writer);
  for (const auto& [name, tensor] : tiny_.tensors)
    writer.random_tensor(name, name == "output_norm.weight" ? Dtype::kQ4_0 : Dtype::kF32, tensor.shape, 1);
  expect_refused(writer, ErrorCode::kCorruptFile, {"'output_norm.weight'", "q4_0", "f32"});
}

TEST_P(CheckTensors, RefusesAnIntegerMatrix) {
  test::GgufWriter writer;
  tiny_.keys.write(writer);
  for (const auto& [name, tensor] : tiny_.tensors)
    writer.random_tensor(name, name == "blk.0.ffn_up.weight" ? Dtype::kI32 : Dtype::kF32, tensor.shape, 1);
  expect_refused(writer, ErrorCode::kCorruptFile, {"'blk.0.ffn_up.weight'", "i32"});
}

INSTANTIATE_TEST_SUITE_P(Families, CheckTensors, testing::ValuesIn(test::tiny_families()), [](const auto& test) { return test.param; });

TEST(LoadWeights, RefusesRopeFactorsOfAnotherShapeOrRange) {
  const auto message_for = [](test::TinyTensor factors) {
    TinyModel model = test::tiny_model("llama3");
    model.tensors["rope_freqs.weight"] = std::move(factors);
    const test::TempFolder folder;
    const auto source = open_tensor_source(folder.write("model.gguf", model.writer().image().bytes));
    const auto backend = make_reference_backend();
    try {
      load_weights(model.config, *source, *backend, {});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorruptFile);
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(message_for({{8}, std::vector<float>(8, 1.0f)}).find("has shape [8], expected [4]"), std::string::npos);
  EXPECT_NE(message_for({{4}, {1, 1, 0, 1}}).find("rope_freqs.weight' holds 0"), std::string::npos);
  EXPECT_NE(message_for({{4}, {1, 1, std::nanf(""), 1}}).find("holds nan"), std::string::npos);
}

TEST(LoadWeights, WidensNormsOf16Bits) {
  const TinyModel tiny = test::tiny_model("llama");
  for (const Dtype dtype : {Dtype::kF16, Dtype::kBF16}) {
    test::GgufWriter writer;
    tiny.keys.write(writer);
    for (const auto& [name, tensor] : tiny.tensors)
      if (name == "output_norm.weight") {
        std::string bytes;
        const uint16_t one_and_a_half = dtype == Dtype::kF16 ? 0x3E00 : 0x3FC0;
        for (int i = 0; i < 32; ++i) bytes.append(reinterpret_cast<const char*>(&one_and_a_half), 2);
        writer.tensor(name, dtype, tensor.shape, bytes);
      } else {
        writer.random_tensor(name, Dtype::kF32, tensor.shape, 1);
      }
    const test::TempFolder folder;
    const auto source = open_tensor_source(folder.write("model.gguf", writer.image().bytes));
    const auto backend = make_reference_backend();
    const Weights weights = load_weights(tiny.config, *source, *backend, {});
    ASSERT_EQ(weights.final_norm.dim(0), 32);
    for (int i = 0; i < 32; ++i) EXPECT_EQ(weights.final_norm.f32()[i], 1.5f);
  }
}

TEST(LoadWeights, StacksQKVAndGateUp) {
  const TinyModel tiny = test::tiny_model("qwen2");
  const test::TempFolder folder;
  const auto source = open_tensor_source(folder.write("model.gguf", tiny.writer().image().bytes));
  const auto backend = make_reference_backend();
  const Weights weights = load_weights(tiny.config, *source, *backend, {});
  const LayerWeights& layer = weights.layers[1];
  EXPECT_EQ(layer.qkv->rows(), 32 + 2 * 16);
  EXPECT_EQ(layer.gate_up->rows(), 96);
  ASSERT_EQ(layer.attention.bias.dim(0), 64);
  const auto& k_bias = tiny.tensors.at("blk.1.attn_k.bias").values;
  for (size_t i = 0; i < k_bias.size(); ++i) EXPECT_EQ(layer.attention.bias.f32()[32 + i], k_bias[i]);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(layer.attention.bias.data) % 64, 0u);
  EXPECT_FALSE(weights.output);
  EXPECT_EQ(&weights.head(), weights.embedding.get());
}

TEST(FillNormal, HasTheMomentsOfANormalDistribution) {
  std::vector<float> values(1'000'000);
  fill_normal(values, 7, 3, 2.0f);
  double mean = 0, variance = 0, kurtosis = 0, largest = 0;
  for (float v : values) mean += static_cast<double>(v);
  mean /= 1e6;
  for (float v : values) {
    const double d = (static_cast<double>(v) - mean) / 2.0;
    variance += d * d;
    kurtosis += d * d * d * d;
    largest = std::max(largest, std::abs(d));
  }
  EXPECT_NEAR(mean, 0.0, 0.008);            // Four standard errors of the mean.
  EXPECT_NEAR(variance / 1e6, 1.0, 0.006);  // Of the variance: sqrt(2 / n).
  EXPECT_NEAR(kurtosis / 1e6, 3.0, 0.04);   // Of the fourth moment: sqrt(96 / n).
  EXPECT_GT(largest, 4.0);
  EXPECT_LT(largest, 4.4);
}

TEST(FillNormal, DependsOnSeedStreamAndIndexAlone) {
  std::vector<float> a(1001), b(1001), shorter(10);
  fill_normal(a, 7, 3, 1.0f);
  fill_normal(shorter, 7, 3, 1.0f);
  EXPECT_TRUE(std::equal(shorter.begin(), shorter.end(), a.begin()));
  fill_normal(b, 7, 4, 1.0f);
  EXPECT_NE(a, b);
  fill_normal(b, 8, 3, 1.0f);
  EXPECT_NE(a, b);
}

}  // namespace
}  // namespace minillm
