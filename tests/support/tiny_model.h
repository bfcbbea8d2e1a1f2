// tiny_model.h - small random models of each family, as GGUF files, and what they must compute: a forward pass in double, written
// from the papers with nothing of the library in it.
//
//   TinyModel model = tiny_model("gemma3");
//   model.keys.set("gemma3.block_count", uint32_t{0});           // Now it is hostile.
//   const std::string path = folder.write("model.gguf", model.writer().image().bytes);
//   const std::vector<double> want = plain_forward(model, ids);  // [S, V]
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "minillm/config.h"
#include "support/gguf_writer.h"

namespace minillm::test {

/// Metadata that can still be changed.
class Keys {
 public:
  template <typename T>
  void set(const std::string& key, const T& value) {
    values_[key] = [value](GgufWriter& writer, const std::string& name) { writer.add(name, value); };
  }
  void erase(const std::string& key) { values_.erase(key); }
  bool has(const std::string& key) const { return values_.contains(key); }
  void write(GgufWriter& writer) const {
    for (const auto& [key, add] : values_) add(writer, key);
  }

 private:
  std::map<std::string, std::function<void(GgufWriter&, const std::string&)>> values_;
};

struct TinyTensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

struct TinyModel {
  ModelConfig config;  ///< What reading the file must give.
  Keys keys;
  std::map<std::string, TinyTensor> tensors;  ///< By GGUF's names.

  GgufWriter writer() const;
};

/// "llama", "mistral" (llama with a sliding window), "llama3" (llama with scaled rope through rope_freqs.weight), "qwen2", "qwen3"
/// (untied), "gemma3". Vocabulary 96, context 512.
TinyModel tiny_model(std::string_view family, uint64_t seed = 1);
/// The names that tiny_model knows.
std::vector<std::string> tiny_families();

/// Logits [S, V] of one sequence.
std::vector<double> plain_forward(const TinyModel& model, const std::vector<TokenId>& ids);

}  // namespace minillm::test
