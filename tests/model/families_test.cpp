// families_test.cpp - a tiny model of each family, as transformers would store it, gives the logits that transformers computed.
// The golden file holds configurations, ids and logits (tools/make_family_golden.py); the weights are made here from their names.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "minillm/model.h"
#include "support/random.h"
#include "support/safetensors_writer.h"
#include "support/temp_folder.h"

namespace minillm {
namespace {

using nlohmann::json;
using test::SafetensorsEntry;

/// The weights of make_family_golden.py: SplitMix64 seeded with FNV-1a of the name.
std::string weight_bytes(const std::string& name, const std::vector<int64_t>& shape) {
  uint64_t seed = 0xCBF29CE484222325u;
  for (const char c : name) seed = (seed ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  test::Random random(seed);
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = static_cast<float>((shape.size() > 1 ? -0.3 : 0.7) + 0.6 * random.uniform());
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

json read_case(const std::string& name) {
  std::ifstream file(std::string(MINILLM_TEST_DATA) + "/golden/families.json");
  for (const json& golden : json::parse(file))
    if (golden["name"] == name) return golden;
  throw std::out_of_range("no golden case " + name);
}

class HuggingFaceFamily : public ::testing::TestWithParam<std::string> {};

TEST_P(HuggingFaceFamily, GivesTheLogitsOfTransformers) {
  const json golden = read_case(GetParam());
  std::vector<SafetensorsEntry> tensors;
  for (const json& tensor : golden["tensors"]) {
    const auto name = tensor[0].get<std::string>();
    const auto shape = tensor[1].get<std::vector<int64_t>>();
    tensors.push_back({name, "F32", shape, weight_bytes(name, shape)});
  }
  const test::TempFolder folder;
  folder.write("config.json", golden["config"].dump());
  folder.write("model.safetensors", test::safetensors_file(tensors));
  const Tensor ids = Tensor::from_ids({golden["ids"].get<std::vector<TokenId>>()});
  const auto want = golden["logits"].get<std::vector<std::vector<double>>>();

  for (const Device::Kind device : {Device::Kind::kReference, Device::Kind::kCpu}) {
    MiniLLM model = MiniLLM::load(folder.path(), {.device = {device, 0}, .n_threads = 2, .kv_dtype = Dtype::kF32});
    const Tensor logits = model.forward(ids);
    const int64_t n_columns = logits.dim(2), first = logits.dim(1) - static_cast<int64_t>(want.size());
    for (size_t row = 0; row < want.size(); ++row)
      for (size_t column = 0; column < want[row].size(); ++column) {
        const float got = logits.values<float>()[static_cast<size_t>((first + static_cast<int64_t>(row)) * n_columns) + column];
        // Both sides sum in float32 through up to 7 layers; 2e-5 was met with logits of up to 10.
        ASSERT_NEAR(got, want[row][column], 2e-4) << "row " << row << ", column " << column << ", " << name_of(Device{device, 0});
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, HuggingFaceFamily,
                         ::testing::Values("llama", "llama3_rope", "llama_linear_rope_tied", "mistral_window", "qwen2", "qwen3", "gemma3",
                                           "gemma3_softcap"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace minillm
