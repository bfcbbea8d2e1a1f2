// unicode.h - the character classes that tokenizer patterns are made of, at the Unicode version of Hugging Face's tokenizers
// (16.0; its digit test 17.0), whatever the system's libraries know: a newer letter must not split words differently.
// Memory: one byte a code point (1.1 MiB), made on first use.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace minillm {

inline constexpr uint8_t kLetter = 1;  ///< \p{L}
inline constexpr uint8_t kNumber = 2;  ///< \p{N}
inline constexpr uint8_t kSpace = 4;   ///< White_Space, \s
inline constexpr uint8_t kDigit = 8;   ///< \p{N} of Unicode 17, as in the Digits pre-tokenizer.

/// 0x110000 bit sets.
const uint8_t* char_classes();

/// `text` (valid UTF-8) with each character that PCRE2 (Unicode 14) classes otherwise replaced by one of the same size and of
/// the right general category, so that a pattern matches where it should. U+180E, a space to PCRE2 only, becomes U+200B.
/// Nothing if `text` has none.
std::optional<std::string> align_unicode(std::string_view text);

}  // namespace minillm
