// utf8_fuzz.cpp - any bytes can be encoded; decoding gives them back, with U+FFFD for what is wrong, at once or token by token; and
// every pre-tokenizer keeps every byte. The first byte chooses.
#include <cstddef>
#include <cstdint>
#include <string>

#include "minillm/tokenizer.h"
#include "text/pretokenize.h"
#include "text/tokenizer_support.h"
#include "text/utf8.h"

namespace {

using minillm::Tokenizer;

void check(bool holds) {
  if (!holds) __builtin_trap();
}

std::string spaces_for_marks(std::string text) {
  for (size_t at = text.find(minillm::kSpaceMark); at != std::string::npos; at = text.find(minillm::kSpaceMark, at))
    text.replace(at, 3, " ");
  return text;
}

void round_trip(const Tokenizer& tokenizer, bool special, bool marks, std::string_view text) {
  const auto ids = tokenizer.encode(text, {.add_special_tokens = false, .parse_special_tokens = special});
  const std::string decoded = tokenizer.decode(ids);
  const std::string want = minillm::replace_invalid_utf8(text);
  // A special token takes the place of a space prefix's run, so only plain text is compared where one is asked for.
  if (!special) check(decoded == (marks ? spaces_for_marks(want) : want));
  minillm::StreamingDecoder stream(tokenizer);
  std::string joined;
  for (const minillm::TokenId id : ids) joined += stream.push(id);
  check(joined + stream.flush() == decoded);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Tokenizer byte_level = minillm::test::byte_level_source().load();
  static const Tokenizer spm = minillm::test::spm_source().load();
  static const minillm::PreTokenizer families[] = {
      minillm::PreTokenizer::named("gpt-2"),  minillm::PreTokenizer::named("smollm"),      minillm::PreTokenizer::named("llama-bpe"),
      minillm::PreTokenizer::named("qwen2"),  minillm::PreTokenizer::named("qwen35"),      minillm::PreTokenizer::named("tekken"),
      minillm::PreTokenizer::named("gpt-4o"), minillm::PreTokenizer::named("deepseek-v3"), minillm::PreTokenizer::named("deepseek-coder"),
      minillm::PreTokenizer::named("default")};
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  round_trip(byte_level, data[0] % 2 == 1, false, text);
  round_trip(spm, data[0] % 2 == 1, true, text);
  const std::string valid = minillm::replace_invalid_utf8(text);
  size_t at = 0;
  const auto follow = [&](std::string_view word) {
    check(!word.empty() && word.data() == valid.data() + at);
    at += word.size();
  };
  families[data[0] / 2 % std::size(families)].split(valid, follow);
  check(at == valid.size());
  return 0;
}
