// engine_support.h - tiny models, prompts and runs that the tests of Engine share.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "engine/choosing_backend.h"
#include "minillm/engine.h"
#include "support/random.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

namespace minillm::test {

using Prompt = std::vector<TokenId>;

inline Prompt random_prompt(uint64_t seed, int64_t n) { return random_ids(seed, n, 90); }

/// `device`: as --device takes it, or "choosing" for the reference as a device that chooses tokens.
inline MiniLLM load(const TinyModel& tiny, const char* device = "reference", LoadOptions options = {}) {
  const TempFolder folder;
  if (std::string_view(device) == "choosing")
    return load_choosing(folder.write("model.gguf", tiny.writer().image().bytes), std::make_shared<ChoosingBackend>());
  options.device = parse_device(device);
  options.n_threads = 2;
  return MiniLLM::load(folder.write("model.gguf", tiny.writer().image().bytes), options);
}

struct Result {
  std::vector<TokenId> ids;
  FinishReason finish = FinishReason::kNone;
  std::string error;
};

inline std::map<RequestId, Result> run(Engine& engine) {
  std::map<RequestId, Result> results;
  for (int steps = 0; !engine.idle(); ++steps) {
    if (steps > 5000) ADD_FAILURE() << "no end in sight";
    for (const StepEvent& event : engine.step()) {
      Result& result = results[event.request];
      EXPECT_EQ(result.finish, FinishReason::kNone) << "an event after the end";
      if (event.token) result.ids.push_back(*event.token);
      result.finish = event.finish;
      result.error = event.error;
    }
  }
  return results;
}

inline Result alone(MiniLLM& model, const Prompt& prompt, const GenerationOptions& options) {
  Engine engine(model);
  const RequestId id = engine.submit(prompt, options);
  return run(engine).at(id);
}

inline GenerationOptions greedy(int64_t n) {
  GenerationOptions options;
  options.max_new_tokens = n;
  return options;
}
inline GenerationOptions sampled(int64_t n, uint64_t seed) {
  GenerationOptions options = greedy(n);
  options.temperature = 1.0f;
  options.top_p = 0.95f;
  options.repetition_penalty = 1.1f;
  options.seed = seed;
  return options;
}

}  // namespace minillm::test
