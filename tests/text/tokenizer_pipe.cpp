// tokenizer_pipe.cpp - a tokenizer behind a pipe, for tools/compare_tokenizers.py: tokenizer_pipe MODEL [special]
//   in   u32 length · bytes, little endian, as often as one likes
//   out  u32 n · n times i32 id · u32 length · the ids decoded; then, if "time" is given, one line on stderr
#include <chrono>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "minillm/tokenizer.h"

namespace {

bool read_exactly(void* data, size_t size) { return std::fread(data, 1, size, stdin) == size; }
void write_exactly(const void* data, size_t size) { std::fwrite(data, 1, size, stdout); }

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2) return 2;
  const auto tokenizer = minillm::Tokenizer::load(argv[1]);
  const std::string mode = argc > 2 ? argv[2] : "";
  const minillm::EncodeOptions options{.add_special_tokens = false, .parse_special_tokens = mode == "special"};
  std::string text;
  for (uint32_t size = 0; read_exactly(&size, sizeof(size));) {
    text.resize(size);
    if (!read_exactly(text.data(), size)) return 1;
    const auto start = std::chrono::steady_clock::now();
    const auto ids = tokenizer.encode(text, options);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    if (mode == "time") std::fprintf(stderr, "%.3f\n", took.count());
    const std::string back = tokenizer.decode(ids);
    const uint32_t n = static_cast<uint32_t>(ids.size()), length = static_cast<uint32_t>(back.size());
    write_exactly(&n, sizeof(n));
    write_exactly(ids.data(), ids.size() * sizeof(ids[0]));
    write_exactly(&length, sizeof(length));
    write_exactly(back.data(), back.size());
    std::fflush(stdout);
  }
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
