// jinja_filters.cpp - filters on texts and numbers, and the table of all filters. Source: jinja2 3.1, filters.py; tojson is
// transformers' own, which leaves HTML and non-ASCII characters alone.
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "text/jinja_natives.h"
#include "text/jinja_sequences.h"

namespace minillm::jinja {

Value replace_text(Runtime& runtime, const std::string& text, const std::string& old, const std::string& replacement, int64_t count) {
  TextBuilder out(runtime);
  size_t at = 0;
  for (int64_t n = 0; count < 0 || n < count; ++n) {
    // Nothing is found before every character, and at the end.
    const size_t found = old.empty() ? at : text.find(old, at);
    if (found == std::string::npos || (old.empty() && at >= text.size())) break;
    out += std::string_view(text).substr(at, found - at);
    out += replacement;
    at = found + old.size();
    if (!old.empty()) continue;
    const size_t bytes = code_point_at(text, at).bytes;
    out += std::string_view(text).substr(at, bytes);
    at += bytes;
    if (at == text.size() && (count < 0 || n + 1 < count)) out += replacement;
  }
  if (old.empty() && text.empty() && count != 0) out += replacement;
  out += std::string_view(text).substr(at);
  return out.value();
}

Value pad_text(Runtime& runtime, const std::string& text, int64_t width, Align align, char fill) {
  const int64_t n = count_characters(text), missing = width - n;
  if (missing <= 0) return runtime.text(text);
  runtime.expect(width);
  // str.center puts the odd one left only if the width is odd, too.
  const int64_t left = align == Align::kLeft ? 0 : align == Align::kRight ? missing : missing / 2 + (missing & width & 1);
  return runtime.text(std::string(static_cast<size_t>(left), fill) + text + std::string(static_cast<size_t>(missing - left), fill));
}

namespace {

using R = Runtime;
using V = const Value&;
using A = const Arguments&;

/// str(value), which is what most text filters work on.
std::string soft(R& r, V value) { return to_text(r, value); }

Value trim(R& r, V self, A args) {
  const std::string text = soft(r, self);
  r.budget.spend(static_cast<int64_t>(text.size()));
  if (args.at(0) && !args.at(0)->is_none()) return r.text(std::string(strip_set(text, text_argument(r, args, 0, "", "chars"), true, true)));
  return r.text(std::string(strip(text)));
}

/// Words start after blanks and opening brackets: filters' title differs from str.title().
Value title(R& r, V self, A) {
  const std::string text = soft(r, self);
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const auto separates = [&](size_t i) {
      const char c = text[i];
      return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || is_space(code_point_at(text, i).value);
    };
    size_t end = at;
    if (separates(at)) {
      end += code_point_at(text, at).bytes;
      out += text.substr(at, end - at);
    } else {
      while (end < text.size() && !separates(end)) end += code_point_at(text, end).bytes;
      const size_t first = code_point_at(text, at).bytes;
      out += to_upper(std::string_view(text).substr(at, first));
      out += to_lower(std::string_view(text).substr(at + first, end - at - first));
    }
    at = end;
  }
  return r.text(std::move(out));
}

Value indent(R& r, V self, A args) {
  const std::string text = soft(r, self);
  std::string pad;
  if (args.at(0) && args.at(0)->text()) {
    pad = *args.at(0)->text();
  } else {
    const int64_t width = integer_argument(r, args, 0, 4, "width");
    r.expect(width);
    pad.assign(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  }
  const bool first = flag_argument(args, 1, false), blank = flag_argument(args, 2, false);
  TextBuilder out(r);
  std::string_view rest = text;
  for (bool is_first = true;; is_first = false) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    if (is_first ? first : blank || end > 0) out += pad;
    out += rest.substr(0, end);
    if (end == rest.size()) break;
    out += "\n";
    rest.remove_prefix(end + 1);
  }
  return out.value();
}

Value truncate(R& r, V self, A args) {
  const std::string text = soft(r, self);
  const int64_t width = integer_argument(r, args, 0, 255, "length"), leeway = integer_argument(r, args, 3, 5, "leeway");
  const std::string end = text_argument(r, args, 2, "...", "end");
  const int64_t n = count_characters(text), keep = width - count_characters(end);
  if (keep < 0 || leeway < 0) r.fail("truncate(): expected a length of at least that of the end, met ", width);
  if (n <= width || n - width <= leeway) return r.text(text);
  const std::vector<size_t> offsets = character_offsets(text);
  std::string out = text.substr(0, offsets[static_cast<size_t>(keep)]);
  if (!flag_argument(args, 1, false)) out = out.substr(0, std::min(out.rfind(' '), out.size()));
  return r.text(out + end);
}

Value wordcount(R& r, V self, A) {
  const std::string text = soft(r, self);
  int64_t n = 0;
  bool in_word = false;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const bool is_word = c.value == '_' || all_of_class(std::string_view(text).substr(at, c.bytes), CharacterClass::kAlnum);
    n += is_word && !in_word ? 1 : 0;
    in_word = is_word;
    at += c.bytes;
  }
  return Value(n);
}

Value escape(R& r, V self, A) {
  TextBuilder out(r);
  for (const char c : soft(r, self))
    out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '"' ? "&#34;" : c == '\'' ? "&#39;" : std::string_view(&c, 1);
  return out.value();
}

Value urlencode(R& r, V self, A) {
  TextBuilder out(r);
  for (const char c : soft(r, self)) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       std::string_view("_.-~/").find(c) != std::string_view::npos;
    char code[8];
    std::snprintf(code, sizeof code, "%%%02X", static_cast<unsigned>(static_cast<unsigned char>(c)));
    out += plain ? std::string_view(&c, 1) : std::string_view(code);
  }
  return out.value();
}

Value tojson(R& r, V self, A args) {
  r.require_defined(self);
  JsonStyle style;
  style.ensure_ascii = flag_argument(args, 0, false);
  style.sort_keys = flag_argument(args, 3, false);
  if (const Value* indent = args.at(1); indent && !indent->is_none()) {
    style.pretty = true;
    style.item_separator = ",";
    if (indent->text()) {
      style.indent = *indent->text();
    } else {
      const int64_t width = std::max<int64_t>(integer_argument(r, args, 1, 0, "indent"), 0);
      r.expect(width);
      style.indent.assign(static_cast<size_t>(width), ' ');
    }
  }
  if (const Value* separators = args.at(2); separators && !separators->is_none()) {
    const List* list = separators->list();
    if (!list || list->items.size() != 2 || !list->items[0].text() || !list->items[1].text()) r.fail("separators must be two texts");
    style.item_separator = *list->items[0].text();
    style.key_separator = *list->items[1].text();
  }
  return r.text(to_json(r, self, style));
}

Value round_filter(R& r, V self, A args) {
  r.require_defined(self);
  if (!self.is_number()) r.fail("round: expected a number, met ", type_name(self));
  const int64_t digits = std::clamp<int64_t>(integer_argument(r, args, 0, 0, "precision"), -400, 400);
  const std::string method = text_argument(r, args, 1, "common", "method");
  if (method != "common" && method != "ceil" && method != "floor") r.fail("method must be common, ceil or floor");
  const double x = self.as_double();
  if (method != "common") {
    const double scale = std::pow(10.0, static_cast<double>(digits));
    return Value((method == "ceil" ? std::ceil(x * scale) : std::floor(x * scale)) / scale);
  }
  if (!self.real() && digits >= 0) return self;
  if (digits < 0) {
    const double scale = std::pow(10.0, static_cast<double>(-digits));
    const double rounded = std::nearbyint(x / scale) * scale;
    return self.real() ? Value(rounded) : Value(static_cast<int64_t>(rounded));
  }
  char buffer[800];  // Decimal rounding of the exact binary value, half to even, as Python rounds.
  std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(digits), x);
  return Value(std::strtod(buffer, nullptr));
}

Value to_int(R& r, V self, A args) {
  const Value fallback = args.at(0) ? *args.at(0) : Value(int64_t{0});
  int64_t n = 0;
  if (self.as_integer(n)) return Value(n);
  double x = self.as_double();
  if (self.text()) {
    std::string text(strip(*self.text()));
    std::erase(text, '_');
    const int64_t base = integer_argument(r, args, 1, 10, "base");
    if (text.empty() || base < 2 || base > 36) return fallback;
    char* end = nullptr;
    errno = 0;
    n = std::strtoll(text.c_str(), &end, static_cast<int>(base));
    if (*end == '\0' && errno == 0) return Value(n);
    x = std::strtod(text.c_str(), &end);
    if (*end != '\0' || text.find_first_of("xXpPiInN") != std::string::npos) return fallback;
  } else if (!self.real()) {
    return fallback;
  }
  if (!(std::fabs(x) < 9.2e18)) return fallback;
  return Value(static_cast<int64_t>(x));
}

Value to_float(R& r, V self, A args) {
  const Value fallback = args.at(0) ? *args.at(0) : Value(0.0);
  if (self.is_number()) return Value(self.as_double());
  if (!self.text()) return fallback;
  std::string text(strip(*self.text()));
  r.budget.spend(static_cast<int64_t>(text.size() / 4));
  std::erase(text, '_');
  char* end = nullptr;
  const double x = std::strtod(text.c_str(), &end);
  return text.empty() || *end != '\0' || text.find_first_of("xXpP") != std::string::npos ? fallback : Value(x);
}

Value default_filter(R&, V self, A args) {
  const bool use = self.is_undefined() || (flag_argument(args, 1, false) && !self.truthy());
  return !use ? self : args.at(0) ? *args.at(0) : Value();
}

Value default_or_empty(R& r, V self, A args) {
  const Value value = default_filter(r, self, args);
  return value.is_undefined() ? r.text("") : value;
}

Value absolute(R& r, V self, A) {
  r.require_defined(self);
  if (!self.is_number()) r.fail("abs: expected a number, met ", type_name(self));
  int64_t n = 0;
  if (self.as_integer(n)) return n < 0 ? negate(r, Value(n)) : Value(n);
  return Value(std::fabs(*self.real()));
}

Value format_filter(R& r, V self, A args) {
  std::vector<Value> values;
  for (const auto& slot : args.positional) values.push_back(slot.value);
  if (!args.named.empty()) {
    std::vector<std::pair<Value, Value>> items;
    for (const auto& [name, value] : args.named) items.emplace_back(r.text(name), value);
    values = {r.dict(std::move(items))};
  }
  return r.text(format_percent(r, soft(r, self), values));
}

constexpr Native kFilters[] = {
    {"abs", "", absolute},
    {"capitalize", "", [](R& r, V s, A) { return r.text(capitalize(soft(r, s))); }},
    {"center", "width",
     [](R& r, V s, A a) { return pad_text(r, soft(r, s), integer_argument(r, a, 0, 80, "width"), Align::kCenter, ' '); }},
    {"d", "default_value boolean", default_or_empty},
    {"default", "default_value boolean", default_or_empty},
    {"e", "", escape},
    {"escape", "", escape},
    {"float", "default", to_float},
    {"forceescape", "", escape},
    {"format", "*", format_filter},
    {"indent", "width first blank", indent},
    {"int", "default base", to_int},
    {"lower", "", [](R& r, V s, A) { return r.text(to_lower(soft(r, s))); }},
    {"replace", "old! new! count",
     [](R& r, V s, A a) {
       return replace_text(r, soft(r, s), soft(r, *a.at(0)), soft(r, *a.at(1)), integer_argument(r, a, 2, -1, "count"));
     }},
    {"round", "precision method", round_filter},
    {"safe", "", [](R& r, V s, A) { return r.text(soft(r, s)); }},
    {"string", "", [](R& r, V s, A) { return s.text() ? s : r.text(soft(r, s)); }},
    {"title", "", title},
    {"tojson", "ensure_ascii indent separators sort_keys", tojson},
    {"trim", "chars", trim},
    {"truncate", "length killwords end leeway", truncate},
    {"upper", "", [](R& r, V s, A) { return r.text(to_upper(soft(r, s))); }},
    {"urlencode", "", urlencode},
    {"wordcount", "", wordcount},
};

}  // namespace

const Native* find_filter(std::string_view name) {
  const Native* found = find_native(kFilters, name);
  return found ? found : find_sequence_filter(name);
}

}  // namespace minillm::jinja
