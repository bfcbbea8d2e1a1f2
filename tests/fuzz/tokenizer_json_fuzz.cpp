// tokenizer_json_fuzz.cpp - any text read as tokenizer.json gives a tokenizer that takes any text, or an Error.
#include <cstddef>
#include <cstdint>
#include <string>

#include "minillm/error.h"
#include "minillm/tokenizer.h"
#include "text/tokenizer_support.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    minillm::test::MetadataSource source;
    source.json(std::string(reinterpret_cast<const char*>(data), size));
    if (size == 0) return 0;  // Without a tokenizer.json the metadata is read, and there is none.
    const minillm::Tokenizer tokenizer = source.load();
    for (const std::string& text : {std::string("Hello  w\xC3\xB6rld's 1234\n\n\n \xE4\xB8\xAD\xF0\x9F\x98\x80<|im_end|> <mask>"),
                                    std::string("e\xCC\x81 \xFF\xE2\x96"), std::string(300, ' ') + std::string(300, 'a')}) {
      const auto ids = tokenizer.encode(text, {.add_special_tokens = true, .parse_special_tokens = size % 2 == 0});
      (void)tokenizer.decode(ids);
    }
    for (minillm::TokenId id = 0; id < tokenizer.vocab_size(); ++id) (void)tokenizer.token_bytes(id);
  } catch (const minillm::Error& error) {
    if (error.code() == minillm::ErrorCode::kInternal) __builtin_trap();
  }
  return 0;
}
