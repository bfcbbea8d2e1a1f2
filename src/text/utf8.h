// utf8.h - reading UTF-8 that may be wrong.
//   A sequence that is not well formed (Unicode 15, table 3-7) becomes one U+FFFD for each maximal subpart: as many bytes as are the
//   start of some well-formed sequence, at least one. Python's errors="replace" and Rust's from_utf8_lossy do the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace minillm {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

struct Utf8Char {
  char32_t code = 0;  ///< U+FFFD where the bytes are wrong.
  uint32_t size = 0;  ///< Bytes used; of a wrong sequence its maximal subpart.
  bool valid = true;  ///< False where the bytes are no character.
  bool cut = false;   ///< Wrong only because the text ends: more bytes could make it a character.
};

/// The character at `at`, which must be below text.size().
inline Utf8Char decode_utf8(std::string_view text, size_t at) noexcept {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(at);
  if (lead < 0x80) return {lead, 1, true, false};
  const uint32_t size = lead >= 0xC2 && lead <= 0xDF ? 2 : lead >= 0xE0 && lead <= 0xEF ? 3 : lead >= 0xF0 && lead <= 0xF4 ? 4 : 0;
  if (size == 0) return {0xFFFD, 1, false, false};
  // The second byte's range rules out overlong forms, surrogates and what lies above U+10FFFF.
  uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  char32_t code = lead & (0x7Fu >> size);
  for (uint32_t i = 1; i < size; ++i) {
    if (at + i == text.size()) return {0xFFFD, i, false, true};
    const uint8_t next = byte(at + i);
    if (next < low || next > high) return {0xFFFD, i, false, false};
    code = (code << 6) | (next & 0x3Fu);
    low = 0x80, high = 0xBF;
  }
  return {code, size, true, false};
}

/// Appends `code`, a Unicode scalar value.
void append_utf8(std::string& out, char32_t code);

/// Where the first wrong byte stands, or text.size().
size_t find_invalid_utf8(std::string_view text) noexcept;

/// `text` with U+FFFD for each maximal wrong part.
std::string replace_invalid_utf8(std::string_view text);

}  // namespace minillm
