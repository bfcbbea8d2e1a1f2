// quantised_forward_test.cpp - models in block formats, also mixed within one stacked weight: close to the oracle on the same file, and
// bitwise the same in steps, in a batch and alone.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "minillm/model.h"
#include "model/expected_tensors.h"
#include "support/random.h"
#include "support/same_bits.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

namespace minillm {
namespace {

struct Formats {
  std::string name;
  Dtype table, q, k, v, output, gate, up, down;
};

/// As large as the blocks of 256 need.
ModelConfig config_of_blocks() {
  ModelConfig c;
  c.name = "blocks";
  c.n_layers = 2;
  c.hidden_size = 256;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = 64;
  c.ffn_size = 512;
  c.vocab_size = 90;  // Not a multiple of 16.
  c.context_length = 512;
  return c;
}

std::string write_model(const test::TempFolder& folder, const Formats& formats) {
  const ModelConfig c = config_of_blocks();
  test::GgufWriter writer;
  writer.add("general.architecture", "llama");
  const std::pair<const char*, int64_t> sizes[] = {
      {"block_count", c.n_layers},         {"embedding_length", c.hidden_size},       {"feed_forward_length", c.ffn_size},
      {"attention.head_count", c.n_heads}, {"attention.head_count_kv", c.n_kv_heads}, {"context_length", c.context_length},
      {"vocab_size", c.vocab_size}};
  for (const auto& [key, value] : sizes) writer.add(std::string("llama.") + key, static_cast<uint32_t>(value));
  writer.add("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  const std::pair<const char*, Dtype> roles[] = {{"token_embd", formats.table}, {"attn_q", formats.q},           {"attn_k", formats.k},
                                                 {"attn_v", formats.v},         {"attn_output", formats.output}, {"ffn_gate", formats.gate},
                                                 {"ffn_up", formats.up},        {"ffn_down", formats.down}};
  uint64_t seed = 1;
  for (const ExpectedTensor& tensor : expected_tensors(c, TensorNames(true))) {
    Dtype dtype = Dtype::kF32;
    for (const auto& [role, format] : roles)
      if (tensor.name.find(std::string(role) + ".weight") != std::string::npos) dtype = format;
    writer.random_tensor(tensor.name, dtype, tensor.shape, seed++, tensor.is_vector() ? 0.5 : 0.06);
  }
  return folder.write("model.gguf", writer.image().bytes);
}

std::vector<TokenId> random_ids(uint64_t seed, int64_t n) { return test::random_ids(seed, n, 90); }

class Quantised : public testing::TestWithParam<Formats> {
 protected:
  MiniLLM load(const char* device) {
    LoadOptions options;
    options.device = parse_device(device);
    options.n_threads = 2;
    return MiniLLM::load(write_model(folder_, GetParam()), options);
  }
  test::TempFolder folder_;
};

void expect_rows_equal(const Tensor& got, int64_t got_row, int64_t got_first, const Tensor& want, int64_t want_row, int64_t want_first,
                       int64_t n) {
  const int64_t vocab = want.dim(2);
  const float* a = got.values<float>().data() + (got_row * got.dim(1) + got_first) * vocab;
  const float* b = want.values<float>().data() + (want_row * want.dim(1) + want_first) * vocab;
  EXPECT_EQ(std::memcmp(a, b, static_cast<size_t>(n * vocab) * sizeof(float)), 0) << "from " << want_first;
}

TEST_P(Quantised, IsCloseToTheOracleOnTheSameFile) {
  const Tensor ids = Tensor::from_ids({random_ids(1, 20)});
  const Tensor want = load("reference").forward(ids), got = load("cpu").forward(ids);
  double squares = 0, errors = 0;
  for (size_t i = 0; i < static_cast<size_t>(want.n_elements()); ++i) {
    const double w = static_cast<double>(want.values<float>()[i]), d = static_cast<double>(got.values<float>()[i]) - w;
    squares += w * w;
    errors += d * d;
  }
  // int8 activations: a step of 1/127 of the largest of 32 values, uniform error, that is about 0.7% of their deviation in each
  // product; a few layers deep. A wrong scale or row is an error near 100%.
  EXPECT_LT(std::sqrt(errors / squares), 0.04);
}

TEST_P(Quantised, InStepsAndInABatchIsBitwiseAlone) {
  const test::SameBitsInAnyStep same_bits;
  MiniLLM model = load("cpu");
  const std::vector<TokenId> a = random_ids(2, 45), b = random_ids(3, 45);
  const Tensor whole_a = model.forward(Tensor::from_ids({a})), whole_b = model.forward(Tensor::from_ids({b}));
  const Tensor together = model.forward(Tensor::from_ids({a, b}));
  expect_rows_equal(together, 0, 0, whole_a, 0, 0, 45);
  expect_rows_equal(together, 1, 0, whole_b, 0, 0, 45);
  KVCacheOptions cache_options;
  cache_options.batch_size = 2;
  KVCache cache(model.config(), cache_options);
  ForwardOptions options;
  options.kv_cache = &cache;
  for (int64_t done = 0, n = 0; done < 45; done += n) {
    n = done == 0 ? 17 : done < 30 ? 1 : 15;
    const auto part = [&](const std::vector<TokenId>& ids) { return std::vector<TokenId>(ids.begin() + done, ids.begin() + done + n); };
    const Tensor step = model.forward(Tensor::from_ids({part(a), part(b)}), options);
    expect_rows_equal(step, 0, 0, whole_a, 0, done, n);
    expect_rows_equal(step, 1, 0, whole_b, 0, done, n);
  }
}

constexpr Dtype kF16 = Dtype::kF16, kBF16 = Dtype::kBF16, kQ4_0 = Dtype::kQ4_0, kQ4_1 = Dtype::kQ4_1, kQ5_0 = Dtype::kQ5_0,
                kQ5_1 = Dtype::kQ5_1, kQ8_0 = Dtype::kQ8_0, kQ4_K = Dtype::kQ4_K, kQ5_K = Dtype::kQ5_K, kQ6_K = Dtype::kQ6_K;
INSTANTIATE_TEST_SUITE_P(Files, Quantised,
                         testing::Values(Formats{"AsSmolLM2", kQ8_0, kQ4_1, kQ4_1, kQ4_1, kQ4_1, kQ4_1, kQ4_1, kQ4_1},
                                         Formats{"AsGemma3", kQ8_0, kQ5_0, kQ5_0, kQ8_0, kQ4_K, kQ5_0, kQ5_0, kQ6_K},
                                         Formats{"Others", kQ6_K, kQ4_0, kQ5_K, kQ5_1, kQ5_1, kQ5_K, kQ4_0, kQ5_K},
                                         Formats{"Floats", kF16, kBF16, kF16, kQ8_0, kF16, kBF16, kBF16, kF16}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace minillm
