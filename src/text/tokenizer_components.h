// tokenizer_components.h - the parts of a tokenizer.json around its model; each reader fills its part of the Impl. What it does
// not know it refuses: Error{kUnsupported} naming the component, Error{kCorruptFile} for a wrong type.
#pragma once

#include <optional>

#include "io/json.h"
#include "text/tokenizer_impl.h"

namespace minillm {

inline constexpr size_t kMaxTokenizerJsonBytes = size_t{64} << 20;

void read_normalizer(const std::optional<JsonObject>& component, Tokenizer::Impl& impl);
/// True if the vocabulary is byte-level.
bool read_pre_tokenizer(const std::optional<JsonObject>& component, Tokenizer::Impl& impl);
/// Needs the vocabulary.
void read_post_processor(const std::optional<JsonObject>& component, Tokenizer::Impl& impl);
void read_decoder(const std::optional<JsonObject>& component, bool byte_level, Tokenizer::Impl& impl);

}  // namespace minillm
