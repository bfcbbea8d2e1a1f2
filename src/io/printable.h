// printable.h - text from a file, made safe to print in a message.
#pragma once

#include <string>
#include <string_view>

namespace minillm {

/// 'text' with control bytes, quotes, backslashes and bytes above 0x7E as \xNN, cut after 80 bytes: a message built from a
/// hostile file can neither drive a terminal nor start a new line in a log.
inline std::string printable(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  constexpr size_t kLongest = 80;
  std::string out = "'";
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte > 0x7E || c == '\'' || c == '\\')
      (out += "\\x") += {kHex[byte >> 4], kHex[byte & 15]};
    else
      out += c;
  }
  return out += text.size() > kLongest ? "...'" : "'";
}

}  // namespace minillm
