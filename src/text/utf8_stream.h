// utf8_stream.h - bytes that arrive in pieces, given out as whole characters.
// Cutting never changes the result: what all calls return, joined, is replace_invalid_utf8() of all bytes, joined.
#pragma once

#include <string>

#include "text/utf8.h"

namespace minillm {

/// Removes from `pending` everything but a last sequence that may still become a character (at most 3 bytes), and returns
/// it, with U+FFFD for what is wrong.
inline std::string take_complete_utf8(std::string& pending) {
  size_t keep = 0;  // Bytes at the end that wait: only a sequence that begins in the last three can be cut.
  for (size_t back = 1; back <= 3 && back <= pending.size(); ++back) {
    const size_t at = pending.size() - back;
    if ((static_cast<uint8_t>(pending[at]) & 0xC0u) == 0x80u) continue;  // Look for its lead byte.
    const Utf8Char c = decode_utf8(pending, at);
    if (c.cut) keep = back;
    break;
  }
  std::string out = replace_invalid_utf8(std::string_view(pending).substr(0, pending.size() - keep));
  pending.erase(0, pending.size() - keep);
  return out;
}

}  // namespace minillm
