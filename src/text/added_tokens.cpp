#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"
#include "text/utf8.h"

namespace minillm {
namespace {

bool is_space(std::string_view text, size_t at) { return (char_classes()[decode_utf8(text, at).code] & kSpace) != 0; }

size_t after_spaces(std::string_view text, size_t at) {
  while (at < text.size() && is_space(text, at)) at += decode_utf8(text, at).size;
  return at;
}

/// Start of the white space that ends at `end`, not below `from`.
size_t before_spaces(std::string_view text, size_t from, size_t end) {
  while (end > from) {
    size_t at = end - 1;
    while (at > from && (static_cast<uint8_t>(text[at]) & 0xC0u) == 0x80u) --at;
    if (!is_space(text, at)) break;
    end = at;
  }
  return end;
}

}  // namespace

void AddedTokens::add(AddedToken token) {
  if (token.text.empty()) return;
  const int32_t index = static_cast<int32_t>(tokens_.size());
  matchers_[token.normalized ? 1 : 0][1].add(token.text, index);
  if (!token.special) matchers_[token.normalized ? 1 : 0][0].add(token.text, index);
  tokens_.push_back(std::move(token));
}

std::vector<AddedTokens::Part> AddedTokens::split(std::string_view text, bool normalized, bool with_special) const {
  const Matcher& matcher = matchers_[normalized ? 1 : 0][with_special ? 1 : 0];
  std::vector<Part> parts;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const Matcher::Match match = matcher.find(text, at);
    if (match.size == 0) break;
    const AddedToken& token = tokens_[static_cast<size_t>(match.value)];
    const size_t begin = token.lstrip ? before_spaces(text, done, match.begin) : match.begin;
    const size_t end = token.rstrip ? after_spaces(text, match.begin + match.size) : match.begin + match.size;
    if (begin > done) parts.push_back({text.substr(done, begin - done), Part::kNone});
    parts.push_back({text.substr(begin, end - begin), token.id});
    // As Hugging Face: a token of white space is found even where rstrip has just taken it along, and plain text goes on after it.
    at = match.begin + match.size;
    done = end;
  }
  if (done < text.size()) parts.push_back({text.substr(done), Part::kNone});
  return parts;
}

}  // namespace minillm
