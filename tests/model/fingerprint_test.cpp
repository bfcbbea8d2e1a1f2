// fingerprint_test.cpp - the same for the same weights and graph, another for any other; and a saved cache goes on with the same bits.
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "minillm/model.h"
#include "support/expect_error.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

namespace minillm {
namespace {

using namespace test;

std::string fingerprint_of_file(const TempFolder& folder, const TinyModel& tiny, const LoadOptions& options = {}) {
  return MiniLLM::load(folder.write("model.gguf", tiny.writer().image().bytes), options).fingerprint();
}

TEST(Fingerprint, NamesWeightsAndGraphAndNothingElse) {
  const TempFolder folder;
  const std::string plain = fingerprint_of_file(folder, tiny_model("llama"));
  EXPECT_EQ(plain.size(), 64u);
  EXPECT_EQ(fingerprint_of_file(folder, tiny_model("llama")), plain);
  EXPECT_EQ(fingerprint_of_file(folder, tiny_model("llama"), {.n_threads = 1, .kv_dtype = Dtype::kF32, .context_length = 64}), plain);
  std::set<std::string> others{plain};
  others.insert(fingerprint_of_file(folder, tiny_model("llama", 2)));
  others.insert(fingerprint_of_file(folder, tiny_model("llama"), {.dtype = Dtype::kBF16}));
  others.insert(fingerprint_of_file(folder, tiny_model("mistral")));
  TinyModel one_value = tiny_model("llama");
  one_value.tensors.begin()->second.values[0] += 1;
  others.insert(fingerprint_of_file(folder, one_value));
  TinyModel rope = tiny_model("llama");
  rope.keys.set("llama.rope.freq_base", 12345.0f);
  others.insert(fingerprint_of_file(folder, rope));
  const ModelConfig config = tiny_model("llama").config;
  others.insert(MiniLLM(config).fingerprint());
  others.insert(MiniLLM(config, {.seed = 1}).fingerprint());
  EXPECT_EQ(others.size(), 8u);
}

TEST(SavedCache, GoesOnInAnotherModelObjectWithTheSameBits) {
  const TempFolder folder;
  const std::string path = folder.write("model.gguf", tiny_model("qwen3").writer().image().bytes), saved = folder / "cache";
  const auto logits_of = [](MiniLLM& model, KVCache& cache, TokenId token) {
    const Tensor logits = model.forward(Tensor::from_ids({{token}}), {.kv_cache = &cache});
    return std::vector<float>(logits.values<float>().begin(), logits.values<float>().end());
  };
  std::vector<float> want;
  {
    MiniLLM model = MiniLLM::load(path);
    KVCache cache(model.config());
    model.forward(Tensor::from_ids({{1, 2, 3, 4, 5}}), {.kv_cache = &cache});
    cache.save(saved, model.fingerprint(), "talk");
    want = logits_of(model, cache, 6);
  }
  MiniLLM model = MiniLLM::load(path);
  SavedCache loaded = KVCache::load(saved, model.config(), model.fingerprint());
  EXPECT_EQ(loaded.attachment, "talk");
  EXPECT_EQ(logits_of(model, loaded.cache, 6), want);
  MiniLLM other(model.config());
  expect_error(ErrorCode::kInvalidArgument, "another model", [&] { KVCache::load(saved, other.config(), other.fingerprint()); });
}

}  // namespace
}  // namespace minillm
