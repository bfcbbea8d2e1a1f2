// generator.cpp - TextGenerator: an Engine for the length of one call.
#include "minillm/generator.h"

#include <algorithm>
#include <unordered_map>

#include "engine/generator_impl.h"
#include "minillm/pull.h"

namespace minillm {

TextGenerator::TextGenerator(MiniLLM& model, const TextGeneratorOptions& options) : impl_(std::make_unique<Impl>()) {
  impl_->model = &model;
  impl_->options = options;
}

TextGenerator::TextGenerator(const TextGeneratorOptions& options) : impl_(std::make_unique<Impl>()) {
  const std::string path = resolve_model("");
  impl_->own_model = std::make_unique<MiniLLM>(MiniLLM::load(path));
  impl_->model = impl_->own_model.get();
  impl_->options = options;
  if (options.tokenizer != nullptr) return;
  impl_->own_tokenizer = std::make_unique<Tokenizer>(Tokenizer::load(path));
  impl_->options.tokenizer = impl_->own_tokenizer.get();
}

TextGenerator::~TextGenerator() = default;

std::vector<TokenId> TextGenerator::generate(const std::vector<TokenId>& prompt_ids, const GenerationOptions& options) {
  const Generation generation = generate_batch({prompt_ids}, options)[0];
  if (generation.finish_reason == FinishReason::kError) throw Error(ErrorCode::kInternal, "generate: ", generation.error);
  std::vector<TokenId> ids = prompt_ids;
  for (TokenId id : generation.ids) ids.push_back(id);
  return ids;
}

std::vector<Generation> TextGenerator::generate_batch(const std::vector<std::vector<TokenId>>& prompts, const GenerationOptions& options,
                                                      const Callback& callback) {
  impl_->timings = {};
  std::vector<Generation> generations(prompts.size());
  if (prompts.empty()) return generations;
  const TextGeneratorOptions& own = impl_->options;
  EngineOptions engine_options;
  engine_options.max_batch = std::min(own.max_batch, static_cast<int64_t>(prompts.size()));
  engine_options.prefill_chunk = own.prefill_chunk;
  engine_options.use_flash_attention = own.use_flash_attention;
  engine_options.flash_block_size = own.flash_block_size;
  engine_options.kv_dtype = own.kv_dtype;
  Engine engine(*impl_->model, own.tokenizer, engine_options);

  std::unordered_map<RequestId, size_t> row_of;
  for (size_t row = 0; row < prompts.size(); ++row) {
    GenerationOptions row_options = options;
    row_options.seed += row;
    row_of.emplace(engine.submit(prompts[row], row_options), row);
  }
  while (!engine.idle()) {
    for (const StepEvent& event : engine.step()) {
      const size_t row = row_of.at(event.request);
      Generation& generation = generations[row];
      if (event.token) generation.ids.push_back(*event.token);
      generation.text += event.text;
      generation.finish_reason = event.finish;
      generation.error = event.error;
      if (callback && !callback(static_cast<int64_t>(row), event)) engine.cancel(event.request);
    }
  }
  impl_->timings = engine.timings();
  return generations;
}

Timings TextGenerator::timings() const { return impl_->timings; }

}  // namespace minillm
