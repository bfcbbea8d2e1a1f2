// tokenizer.h - text to token ids and back.
// Families: byte-level BPE (GPT-2, Llama 3, Qwen 2, SmolLM) and SentencePiece (Llama, Gemma), from GGUF or tokenizer.json.
// Threads: every member is const and safe to call at once.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "minillm/types.h"

namespace minillm {

class TensorSource;

struct EncodeOptions {
  bool add_special_tokens = true;     ///< Put the model's BOS (and EOS, where it wants one) around the text.
  bool parse_special_tokens = false;  ///< Read "<|im_end|>" and the like as the token. Never for text from a stranger.
};

struct DecodeOptions {
  bool skip_special_tokens = false;
};

class Tokenizer {
 public:
  /// From a GGUF file, or a folder or safetensors file with tokenizer.json beside it.
  /// Throws Error{kNotFound, kCorruptFile}, and Error{kUnsupported} naming a pre-tokenizer or component it does not know.
  static Tokenizer load(const std::string& path);
  static Tokenizer from_source(const TensorSource& source);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  /// Bytes that are not UTF-8 are replaced as Hugging Face does: each maximal wrong part becomes U+FFFD.
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options = {}) const;
  /// Bytes of the ids, joined; incomplete UTF-8 becomes U+FFFD. Throws Error{kInvalidArgument} for an id outside the vocabulary.
  std::string decode(std::span<const TokenId> ids, const DecodeOptions& options = {}) const;

  /// The piece as the vocabulary writes it ("Ġthe", "▁the", "<0x0A>"). Throws Error{kInvalidArgument}.
  const std::string& piece(TokenId id) const;
  /// The bytes that `id` adds to a text. Throws Error{kInvalidArgument}.
  std::string token_bytes(TokenId id) const;
  std::optional<TokenId> find(std::string_view piece) const;
  bool is_special(TokenId id) const;

  int64_t vocab_size() const noexcept;
  std::optional<TokenId> bos() const noexcept;
  std::optional<TokenId> eos() const noexcept;
  /// Every token that ends a turn or a text: EOS, "<|im_end|>", "<end_of_turn>", "<|eot_id|>" and such, where the vocabulary has them.
  const std::vector<TokenId>& end_tokens() const noexcept;
  /// Byte values that encode() drops because the vocabulary has no token for them (SmolLM2: 21). Sorted.
  const std::vector<uint8_t>& missing_bytes() const noexcept;
  /// The model's chat template (Jinja), or empty.
  const std::string& chat_template() const noexcept;

  struct Impl;  ///< For the library's own loaders.

 private:
  friend class StreamingDecoder;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Turns ids into text as they come, never cutting a UTF-8 sequence: bytes that may still become a character wait.
class StreamingDecoder {
 public:
  /// `tokenizer` must outlive it.
  explicit StreamingDecoder(const Tokenizer& tokenizer, const DecodeOptions& options = {}) : tokenizer_(&tokenizer), options_(options) {}
  /// Text that is certain after `id`; may be empty.
  std::string push(TokenId id);
  /// What was held back, with U+FFFD for an incomplete sequence.
  std::string flush();

 private:
  const Tokenizer* tokenizer_;
  DecodeOptions options_;
  std::string pending_;
  bool at_start_ = true;
};

}  // namespace minillm
