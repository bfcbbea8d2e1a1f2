// tokenizer_support.h - small tokenizers for tests, and the stored answers of the references.
#pragma once

#include <time.h>

#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "io/tensor_source.h"
#include "minillm/tokenizer.h"
#include "support/random.h"
#include "text/bpe.h"

namespace minillm::test {

// A sanitizer slows code down; the limits are about the growth of work, which it leaves, so it gets shorter texts and more time.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MINILLM_TEST_SLOW 1
#endif
#endif
#if defined(MINILLM_TEST_SLOW) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(NDEBUG)
inline constexpr double kSlow = 15;
inline constexpr size_t kLong = size_t{1} << 17;
#else
inline constexpr double kSlow = 1;
inline constexpr size_t kLong = size_t{1} << 20;
#endif

/// Processor time of this thread: what other programs do does not count.
inline double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Metadata and tokenizer.json without a file.
class MetadataSource : public TensorSource {
 public:
  MetadataSource() { path_ = "test.gguf"; }
  MetadataSource& set(const std::string& key, MetadataValue value) {
    metadata_to_be_.insert_or_assign(key, std::move(value));
    return *this;
  }
  MetadataSource& erase(const std::string& key) {
    metadata_to_be_.erase(key);
    return *this;
  }
  MetadataSource& json(std::string text) {
    tokenizer_json_ = std::move(text);
    return *this;
  }
  Tokenizer load() {
    for (const auto& [key, value] : metadata_to_be_) add_metadata(key, value);
    return Tokenizer::from_source(*this);
  }

 private:
  std::unordered_map<std::string, MetadataValue> metadata_to_be_;
};

/// Byte-level: 0 "<|endoftext|>", 1 "<|im_end|>", 2 "<tool>" (user-defined), 3 to 258 the bytes, then "he", "ll", "hell", "Ġhell".
inline MetadataSource byte_level_source() {
  std::vector<std::string> tokens = {"<|endoftext|>", "<|im_end|>", "<tool>"};
  std::vector<int64_t> types = {3, 3, 4};
  for (int b = 0; b < 256; ++b) tokens.push_back(byte_level_piece(std::string(1, static_cast<char>(static_cast<uint8_t>(b)))));
  for (const char* piece : {"he", "ll", "hell", "\xC4\xA0hell"}) tokens.push_back(piece);
  types.resize(tokens.size(), 1);
  MetadataSource source;
  source.set("tokenizer.ggml.model", std::string("gpt2")).set("tokenizer.ggml.pre", std::string("gpt-2"));
  source.set("tokenizer.ggml.tokens", std::move(tokens)).set("tokenizer.ggml.token_type", std::move(types));
  source.set("tokenizer.ggml.merges", std::vector<std::string>{"h e", "l l", "he ll", "\xC4\xA0 hell"});
  source.set("tokenizer.ggml.eos_token_id", int64_t{1}).set("tokenizer.ggml.bos_token_id", int64_t{0});
  return source;
}

/// SentencePiece: 0 "<unk>", 1 "<s>", 2 "</s>", 3 to 258 the bytes, then "▁", "a", "b", "c", "ab", "▁a", "abc", "▁ab", "\n\n"
/// (user-defined).
inline MetadataSource spm_source() {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int64_t> types = {2, 3, 3};
  for (int b = 0; b < 256; ++b) {
    constexpr const char* kHex = "0123456789ABCDEF";
    tokens.push_back(std::string("<0x") + kHex[b >> 4] + kHex[b & 15] + ">");
    types.push_back(6);
  }
  for (const char* piece : {"\xE2\x96\x81", "a", "b", "c", "ab",
                            "\xE2\x96\x81"
                            "a",
                            "abc",
                            "\xE2\x96\x81"
                            "ab"}) {
    tokens.push_back(piece);
    types.push_back(1);
  }
  tokens.push_back("\n\n");
  types.push_back(4);
  std::vector<double> scores(tokens.size(), 0.0);
  for (size_t i = 259; i < tokens.size(); ++i) scores[i] = -static_cast<double>(i);
  MetadataSource source;
  source.set("tokenizer.ggml.model", std::string("llama")).set("tokenizer.ggml.tokens", std::move(tokens));
  source.set("tokenizer.ggml.token_type", std::move(types)).set("tokenizer.ggml.scores", std::move(scores));
  source.set("tokenizer.ggml.unknown_token_id", int64_t{0}).set("tokenizer.ggml.bos_token_id", int64_t{1});
  source.set("tokenizer.ggml.eos_token_id", int64_t{2});
  return source;
}

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot open " + path);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// One string of a .tokens file (tools/compare_tokenizers.py, store): `text` is empty where decoding the ids gives it.
struct GoldenTokens {
  std::vector<TokenId> ids;
  std::string text;
  bool decodes = false;
};
inline std::vector<GoldenTokens> read_golden_tokens(const std::string& path) {
  const std::string bytes = read_file(path);
  size_t at = 0;
  const auto number = [&] {
    uint32_t value = 0;
    for (int shift = 0;; shift += 7) {
      const uint8_t byte = static_cast<uint8_t>(bytes.at(at++));
      value |= static_cast<uint32_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
  };
  std::vector<GoldenTokens> all;
  while (at < bytes.size()) {
    GoldenTokens golden;
    golden.ids.resize(number());
    for (TokenId& id : golden.ids) id = static_cast<TokenId>(number());
    const uint32_t size = number();
    golden.decodes = size == 0;
    if (size > 0) golden.text = bytes.substr(at, size - 1), at += size - 1;
    all.push_back(std::move(golden));
  }
  return all;
}

/// `n` characters of every length, some bytes wrong.
inline std::string random_text(Random& random, int64_t n) {
  static constexpr std::string_view kParts[] = {" ",
                                                "  ",
                                                "\n",
                                                "\t",
                                                "a",
                                                "Z",
                                                "'s",
                                                "'LL",
                                                "0",
                                                "42",
                                                "\xC3\xA9",
                                                "\xE2\x96\x81",
                                                "\xE4\xB8\xAD",
                                                "\xF0\x9F\x98\x80",
                                                "\xCC\x81",
                                                "\xE2\x80\x8D",
                                                "\xC2\xA0",
                                                "\xE3\x80\x80",
                                                "\xFF",
                                                "\xE2\x96",
                                                "<|im_end|>",
                                                "<tool>",
                                                "</s>",
                                                ".",
                                                "(",
                                                "hell",
                                                "ab",
                                                "\xC5\xBF",
                                                "\xE1\xA0\x8E",
                                                "\xF0\x91\x84\x83",
                                                "\r\n",
                                                "/"};
  std::string text;
  for (int64_t i = 0; i < n; ++i) text += kParts[random.below(static_cast<int64_t>(std::size(kParts)))];
  return text;
}

}  // namespace minillm::test
