// hf_config_fuzz.cpp - any text read as config.json (and as its siblings) gives metadata or an Error.
#include <cstddef>
#include <cstdint>
#include <string>

#include "io/hf_config.h"
#include "minillm/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::string valid =
      R"({"model_type":"gemma3_text","num_hidden_layers":1,"hidden_size":8,"num_attention_heads":2,"max_position_embeddings":8})";
  try {
    minillm::read_hf_config({.config = text}, "input");
  } catch (const minillm::Error& error) {
    if (error.code() == minillm::ErrorCode::kInternal) __builtin_trap();
  }
  try {
    minillm::read_hf_config({.config = valid, .generation_config = text, .tokenizer_config = text}, "input");
  } catch (const minillm::Error& error) {
    if (error.code() == minillm::ErrorCode::kInternal) __builtin_trap();
  }
  return 0;
}
