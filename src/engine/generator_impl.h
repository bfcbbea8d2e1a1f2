// generator_impl.h - what is behind TextGenerator.
#pragma once

#include <memory>

#include "minillm/generator.h"

namespace minillm {

struct TextGenerator::Impl {
  MiniLLM* model = nullptr;
  TextGeneratorOptions options;
  Timings timings;
  std::unique_ptr<MiniLLM> own_model;  ///< The default model, where none was given.
  std::unique_ptr<Tokenizer> own_tokenizer;
};

}  // namespace minillm
