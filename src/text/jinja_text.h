// jinja_text.h - Python's view of a text: code points, Unicode whitespace, case, literals.
// Texts are UTF-8; a byte that is not part of a valid sequence counts as one character, so that nothing here can fail on bad text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace minillm::jinja {

/// The code point at `at` and its length in bytes; a wrong byte is 0xFFFD and one byte long.
struct CodePoint {
  int32_t value = 0;
  size_t bytes = 1;
};
CodePoint code_point_at(std::string_view text, size_t at) noexcept;
void append_code_point(std::string& out, int32_t value);

int64_t count_characters(std::string_view text) noexcept;
/// Byte offset of each character, and the text's size at the end.
std::vector<size_t> character_offsets(std::string_view text);

bool is_space(int32_t code_point) noexcept;  ///< str.isspace() of one character.
std::string_view strip_left(std::string_view text) noexcept;
std::string_view strip_right(std::string_view text) noexcept;
inline std::string_view strip(std::string_view text) noexcept { return strip_right(strip_left(text)); }
/// Without characters of `set` at the chosen ends.
std::string_view strip_set(std::string_view text, std::string_view set, bool left, bool right);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string capitalize(std::string_view text);  ///< First character upper, the rest lower.
std::string to_title(std::string_view text);    ///< str.title(): the first letter of each run of letters upper, the rest lower.
bool is_cased_as(std::string_view text, bool upper);

enum class CharacterClass : uint8_t { kAlpha, kDecimal, kDigit, kNumeric, kAlnum, kSpace };
/// str.isalpha() and its siblings: every character is of the class, and there is one.
bool all_of_class(std::string_view text, CharacterClass kind);

/// Body of a string literal with its escapes resolved; false for a wrong one.
bool unescape(std::string_view body, std::string& out);
/// A string literal, as Python's repr() writes it.
std::string quoted(std::string_view text);

}  // namespace minillm::jinja
