#include "text/normalize.h"

#include <utf8proc.h>

#include <algorithm>

#include "base/check.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace minillm {
namespace {

/// Marks in canonical order. utf8proc would sort them by neighbour swaps: quadratic on a text of nothing but marks.
void order_marks(std::vector<utf8proc_int32_t>& codes) {
  const auto mark_class = [](utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; };
  for (size_t at = 0; at < codes.size();) {
    if (mark_class(codes[at]) == 0) {
      ++at;
      continue;
    }
    size_t end = at;
    while (end < codes.size() && mark_class(codes[end]) != 0) ++end;
    std::stable_sort(codes.begin() + static_cast<std::ptrdiff_t>(at), codes.begin() + static_cast<std::ptrdiff_t>(end),
                     [&](utf8proc_int32_t a, utf8proc_int32_t b) { return mark_class(a) < mark_class(b); });
    at = end;
  }
}

void check_growth(const std::string& out, size_t from, size_t most) {
  if (out.size() > most) throw Error(ErrorCode::kCapacity, "a normalizer makes a text of ", from, " bytes longer than ", most);
}

std::string replace_literal(std::string_view text, std::string_view literal, std::string_view by, size_t most) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t found = std::min(text.find(literal, at), text.size());
    out.append(text.substr(at, found - at));
    if (found == text.size()) break;
    out.append(by);
    check_growth(out, text.size(), most);
    at = found + literal.size();
  }
  return out;
}

std::string replace_pattern(std::string_view text, const Regex& pattern, std::string_view by, size_t most) {
  RegexMatcher matcher(pattern);
  const std::optional<std::string> aligned = align_unicode(text);
  const std::string_view subject = aligned ? std::string_view(*aligned) : text;
  std::string out;
  size_t copied = 0;
  for (size_t from = 0; from <= text.size();) {
    const RegexMatcher::Match match = matcher.find(subject, from);
    if (!match.found) break;
    out.append(text.substr(copied, match.begin - copied)).append(by);
    check_growth(out, text.size(), most);
    copied = from = match.end;
    if (match.begin < match.end) continue;
    if (from == text.size()) break;
    from += decode_utf8(text, from).size;
  }
  return out.append(text.substr(copied));
}

}  // namespace

std::optional<std::string> to_unicode_form(std::string_view text, UnicodeForm form) {
  const bool composed = form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc;
  const bool compatible = form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd;
  // ASCII is in every form; below U+0300 (lead byte 0xCC) everything is in NFC.
  const uint8_t plain = form == UnicodeForm::kNfc ? 0xCC : 0x80;
  if (std::all_of(text.begin(), text.end(), [&](char c) { return static_cast<uint8_t>(c) < plain; })) return {};
  const int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0);
  std::vector<utf8proc_int32_t> codes;
  codes.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text, at);
    at += c.size;
    utf8proc_int32_t buffer[32];  // The longest compatibility decomposition has 18.
    int boundary = 0;
    const auto n =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.code), buffer, 32, static_cast<utf8proc_option_t>(options), &boundary);
    MINILLM_CHECK(n >= 0 && n <= 32, "decomposition of ", static_cast<uint32_t>(c.code));
    codes.insert(codes.end(), buffer, buffer + n);
  }
  order_marks(codes);
  utf8proc_ssize_t n = static_cast<utf8proc_ssize_t>(codes.size());
  if (composed) n = utf8proc_normalize_utf32(codes.data(), n, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  MINILLM_CHECK(n >= 0, "composition");
  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < n; ++i) append_utf8(out, static_cast<char32_t>(codes[static_cast<size_t>(i)]));
  return out;
}

std::string Normalizer::apply(std::string_view text) const {
  const size_t most = 16 * text.size() + (size_t{1} << 20);
  std::string out(text);
  for (const auto& step : steps_) {
    if (out.empty()) break;
    if (const auto* form = std::get_if<UnicodeForm>(&step)) {
      if (auto changed = to_unicode_form(out, *form)) out = std::move(*changed);
    } else if (const auto* prefix = std::get_if<Prefix>(&step)) {
      out.insert(0, prefix->text);
    } else if (const auto* literal = std::get_if<ReplaceLiteral>(&step)) {
      out = replace_literal(out, literal->literal, literal->by, most);
    } else {
      const auto& pattern = std::get<ReplacePattern>(step);
      out = replace_pattern(out, pattern.pattern, pattern.by, most);
    }
  }
  return out;
}

}  // namespace minillm
