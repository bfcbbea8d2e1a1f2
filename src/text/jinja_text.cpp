// jinja_text.cpp - see jinja_text.h. Character data is utf8proc's (Unicode 14 or later).
#include "text/jinja_text.h"

#include <utf8proc.h>

#include <cstdio>

namespace minillm::jinja {

CodePoint code_point_at(std::string_view text, size_t at) noexcept {
  utf8proc_int32_t value = 0;
  const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at),
                                  static_cast<utf8proc_ssize_t>(text.size() - at), &value);
  if (n <= 0) return {0xFFFD, 1};
  return {value, static_cast<size_t>(n)};
}

void append_code_point(std::string& out, int32_t value) {
  utf8proc_uint8_t bytes[4];
  const auto n = utf8proc_encode_char(value, bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(n));
}

int64_t count_characters(std::string_view text) noexcept {
  int64_t n = 0;
  for (size_t at = 0; at < text.size(); ++n) at += static_cast<unsigned char>(text[at]) < 0x80 ? 1 : code_point_at(text, at).bytes;
  return n;
}

std::vector<size_t> character_offsets(std::string_view text) {
  std::vector<size_t> offsets;
  offsets.reserve(text.size() + 1);
  for (size_t at = 0; at < text.size(); at += code_point_at(text, at).bytes) offsets.push_back(at);
  offsets.push_back(text.size());
  return offsets;
}

bool is_space(int32_t c) noexcept {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

namespace {

/// Start of the last character of `text`, which is not empty.
size_t last_character(std::string_view text) noexcept {
  size_t at = text.size() - 1;
  while (at > 0 && text.size() - at < 4 && (text[at] & '\xC0') == '\x80') --at;
  return at + code_point_at(text, at).bytes == text.size() ? at : text.size() - 1;
}

template <typename Drop>
std::string_view strip_where(std::string_view text, bool left, bool right, Drop&& drop) {
  while (left && !text.empty()) {
    const CodePoint c = code_point_at(text, 0);
    if (!drop(c.value, text.substr(0, c.bytes))) break;
    text.remove_prefix(c.bytes);
  }
  while (right && !text.empty()) {
    const size_t at = last_character(text);
    if (!drop(code_point_at(text, at).value, text.substr(at))) break;
    text = text.substr(0, at);
  }
  return text;
}

}  // namespace

std::string_view strip_left(std::string_view text) noexcept {
  return strip_where(text, true, false, [](int32_t c, std::string_view) { return is_space(c); });
}
std::string_view strip_right(std::string_view text) noexcept {
  return strip_where(text, false, true, [](int32_t c, std::string_view) { return is_space(c); });
}
std::string_view strip_set(std::string_view text, std::string_view set, bool left, bool right) {
  return strip_where(text, left, right, [set](int32_t, std::string_view c) { return set.find(c) != std::string_view::npos; });
}

namespace {

bool is_letter(int32_t c) noexcept {
  const auto category = utf8proc_category(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}
bool is_cased(int32_t c) noexcept {
  const auto category = utf8proc_category(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LT;
}

enum class Case : uint8_t { kUpper, kLower, kTitle };
void append_cased(std::string& out, std::string_view bytes, int32_t c, Case to) {
  if (c == 0xDF && to != Case::kLower) {  // The one common letter whose upper case is two.
    out += to == Case::kUpper ? "SS" : "Ss";
  } else if (c == 0xFFFD) {
    out += bytes;
  } else {
    append_code_point(out, to == Case::kUpper ? utf8proc_toupper(c) : to == Case::kLower ? utf8proc_tolower(c) : utf8proc_totitle(c));
  }
}

/// Each character in the case that `choose(code point, index)` gives.
template <typename Choose>
std::string map_case(std::string_view text, Choose&& choose) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0, index = 0; at < text.size(); ++index) {
    const CodePoint c = code_point_at(text, at);
    append_cased(out, text.substr(at, c.bytes), c.value, choose(c.value, index));
    at += c.bytes;
  }
  return out;
}

}  // namespace

std::string to_upper(std::string_view text) {
  return map_case(text, [](int32_t, size_t) { return Case::kUpper; });
}
std::string to_lower(std::string_view text) {
  return map_case(text, [](int32_t, size_t) { return Case::kLower; });
}
std::string capitalize(std::string_view text) {
  return map_case(text, [](int32_t, size_t i) { return i == 0 ? Case::kTitle : Case::kLower; });
}
std::string to_title(std::string_view text) {
  bool in_word = false;
  return map_case(text, [&](int32_t c, size_t) {
    const Case to = in_word ? Case::kLower : Case::kTitle;
    in_word = is_cased(c);
    return to;
  });
}

bool is_cased_as(std::string_view text, bool upper) {
  bool any = false;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    at += c.bytes;
    const auto category = utf8proc_category(c.value);
    if (category == (upper ? UTF8PROC_CATEGORY_LL : UTF8PROC_CATEGORY_LU) || category == UTF8PROC_CATEGORY_LT) return false;
    any = any || category == (upper ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL);
  }
  return any;
}

bool all_of_class(std::string_view text, CharacterClass kind) {
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    at += c.bytes;
    const auto category = utf8proc_category(c.value);
    const bool decimal = category == UTF8PROC_CATEGORY_ND;
    const bool superscript = c.value == 0xB2 || c.value == 0xB3 || c.value == 0xB9 || (c.value >= 0x2070 && c.value <= 0x2089);
    const bool digit = decimal || (category == UTF8PROC_CATEGORY_NO && superscript);
    const bool numeric = decimal || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO;
    const bool fits = kind == CharacterClass::kAlpha     ? is_letter(c.value)
                      : kind == CharacterClass::kDecimal ? decimal
                      : kind == CharacterClass::kDigit   ? digit
                      : kind == CharacterClass::kNumeric ? numeric
                      : kind == CharacterClass::kAlnum   ? is_letter(c.value) || numeric
                                                         : is_space(c.value);
    if (!fits) return false;
  }
  return !text.empty();
}

namespace {

/// Reads up to `most` digits of `base` at `at`; -1 if there are fewer than `least`.
int64_t read_digits(std::string_view body, size_t& at, size_t least, size_t most, int base) {
  int64_t value = 0;
  size_t n = 0;
  for (; n < most && at < body.size(); ++n, ++at) {
    const char c = body[at];
    const int digit = c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : 99;
    if (digit >= base) break;
    value = value * base + digit;
  }
  return n < least ? -1 : value;
}

}  // namespace

bool unescape(std::string_view body, std::string& out) {
  static constexpr std::string_view kNames = "abfnrtv\\'\"", kValues = "\a\b\f\n\r\t\v\\'\"";
  for (size_t at = 0; at < body.size();) {
    const char c = body[at++];
    if (c != '\\' || at >= body.size()) {
      out += c;
      continue;
    }
    const char e = body[at++];
    const size_t simple = kNames.find(e);
    if (simple != std::string_view::npos) {
      out += kValues[simple];
    } else if (e == '\n') {
      continue;
    } else if (e >= '0' && e <= '7') {
      --at;
      append_code_point(out, static_cast<int32_t>(read_digits(body, at, 1, 3, 8)));
    } else if (e == 'x' || e == 'u' || e == 'U') {
      const size_t n = e == 'x' ? 2 : e == 'u' ? 4 : 8;
      const int64_t value = read_digits(body, at, n, n, 16);
      if (value < 0 || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return false;
      append_code_point(out, static_cast<int32_t>(value));
    } else if (e == 'N') {
      return false;
    } else {
      out += '\\';
      out += e;
    }
  }
  return true;
}

std::string quoted(std::string_view text) {
  const char quote = text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const std::string_view bytes = text.substr(at, c.bytes);
    at += c.bytes;
    const auto category = utf8proc_category(c.value);
    const bool printable = c.value == ' ' || !(category == UTF8PROC_CATEGORY_CN || category >= UTF8PROC_CATEGORY_ZS);
    char code[16];
    if (c.value == quote || c.value == '\\') {
      out += '\\';
      out += bytes;
    } else if (c.value == '\n' || c.value == '\r' || c.value == '\t') {
      out += c.value == '\n' ? "\\n" : c.value == '\r' ? "\\r" : "\\t";
    } else if (printable) {
      out += bytes;
    } else {
      const auto value = static_cast<unsigned>(c.value);
      std::snprintf(code, sizeof code, value < 0x100 ? "\\x%02x" : value < 0x10000 ? "\\u%04x" : "\\U%08x", value);
      out += code;
    }
  }
  return out + quote;
}

}  // namespace minillm::jinja
