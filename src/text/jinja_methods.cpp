// jinja_methods.cpp - methods of str, dict, list and numbers. Those that change their object do not exist here: the sandbox of
// transformers refuses them too.
#include <cmath>

#include "text/jinja_natives.h"

namespace minillm::jinja {
namespace {

using R = Runtime;
using V = const Value&;
using A = const Arguments&;
const std::string& str(V self) { return *self.text(); }

/// True for any of the texts in `value`, a str or a tuple of them.
template <typename Test>
Value any_text(R& r, V value, std::string_view what, Test&& test) {
  if (value.text()) return Value(bool{test(*value.text())});
  if (!value.list() || !value.list()->is_tuple) r.fail(what, "() needs a str or a tuple of str, not ", type_name(value));
  for (const Value& v : value.list()->items)
    if (v.text() && test(*v.text())) return Value(true);
  return Value(false);
}

Value strip_method(R& r, V self, A args, bool left, bool right) {
  r.budget.spend(static_cast<int64_t>(str(self).size() / 16));
  if (args.at(0) && !args.at(0)->is_none())
    return r.text(std::string(strip_set(str(self), text_argument(r, args, 0, "", "strip()"), left, right)));
  std::string_view text = str(self);
  if (left) text = strip_left(text);
  if (right) text = strip_right(text);
  r.budget.spend(static_cast<int64_t>(8 * (str(self).size() - text.size())));
  return text.size() == str(self).size() ? self : r.text(std::string(text));
}

Value split_whitespace(R& r, std::string_view text, int64_t most, bool from_right) {
  std::vector<Value> items;
  r.budget.spend(static_cast<int64_t>(8 * text.size()));
  for (text = from_right ? strip_right(text) : strip_left(text); !text.empty();) {
    if (most >= 0 && static_cast<int64_t>(items.size()) >= most) {
      items.push_back(r.text(std::string(text)));
      break;
    }
    size_t at = 0, begin = 0, end = text.size();
    if (!from_right) {
      while (at < text.size() && !is_space(code_point_at(text, at).value)) at += code_point_at(text, at).bytes;
      end = at;
    } else {
      // From the right: the last piece starts where stripping piece by piece meets a space.
      at = text.size();
      while (at > 0 && strip_right(text.substr(0, at)).size() == at) --at;
      begin = at;
    }
    items.push_back(r.text(std::string(text.substr(begin, end - begin))));
    text = from_right ? strip_right(text.substr(0, begin)) : strip_left(text.substr(end));
  }
  if (from_right) std::reverse(items.begin(), items.end());
  return r.list(std::move(items));
}

Value split_method(R& r, V self, A args, bool from_right) {
  const int64_t most = integer_argument(r, args, 1, -1, "maxsplit");
  std::string_view text = str(self);
  if (!args.at(0) || args.at(0)->is_none()) return split_whitespace(r, text, most, from_right);
  const std::string separator = text_argument(r, args, 0, "", "separator");
  if (separator.empty()) r.fail("empty separator");
  r.budget.spend(static_cast<int64_t>(text.size() / 4));
  std::vector<Value> items;
  while (most < 0 || static_cast<int64_t>(items.size()) < most) {
    const size_t at = from_right ? text.rfind(separator) : text.find(separator);
    if (at == std::string_view::npos) break;
    items.push_back(r.text(std::string(from_right ? text.substr(at + separator.size()) : text.substr(0, at))));
    r.budget.spend(32);
    text = from_right ? text.substr(0, at) : text.substr(at + separator.size());
  }
  items.push_back(r.text(std::string(text)));
  if (from_right) std::reverse(items.begin(), items.end());
  return r.list(std::move(items));
}

Value partition(R& r, V self, A args, bool from_right) {
  const std::string separator = text_argument(r, args, 0, "", "separator");
  if (separator.empty()) r.fail("empty separator");
  const std::string& s = str(self);
  r.budget.spend(static_cast<int64_t>(s.size() / 8));
  const size_t at = from_right ? s.rfind(separator) : s.find(separator);
  if (at == std::string::npos) {
    return r.list(from_right ? std::vector<Value>{r.text(""), r.text(""), self} : std::vector<Value>{self, r.text(""), r.text("")}, true);
  }
  return r.list({r.text(s.substr(0, at)), r.text(separator), r.text(s.substr(at + separator.size()))}, true);
}

Value splitlines(R& r, V self, A args) {
  const bool keep = flag_argument(args, 0, false);
  const std::string& s = str(self);
  std::vector<Value> items;
  for (size_t at = 0; at < s.size();) {
    size_t end = at, after = at;
    while (end < s.size()) {
      const CodePoint c = code_point_at(s, end);
      after = end + c.bytes;
      if ((c.value >= 0x0A && c.value <= 0x0D) || (c.value >= 0x1C && c.value <= 0x1E) || c.value == 0x85 || c.value == 0x2028 ||
          c.value == 0x2029) {
        if (c.value == '\r' && after < s.size() && s[after] == '\n') ++after;
        break;
      }
      end = after;
    }
    r.budget.spend(static_cast<int64_t>(after - at) / 4 + 1);
    items.push_back(r.text(s.substr(at, (keep ? after : end) - at)));
    at = after;
  }
  return r.list(std::move(items));
}

Value join(R& r, V self, A args) {
  TextBuilder out(r);
  bool first = true;
  for (const Value& v : iterate(r, *args.at(0))) {
    if (!v.text()) r.fail("join(): expected str, met ", type_name(v));
    if (!std::exchange(first, false)) out += str(self);
    out += *v.text();
  }
  return out.value();
}

/// find, rfind, index, rindex: in characters; -1 where it is not there.
int64_t find_text(R& r, V self, A args, bool from_right) {
  const std::string needle = text_argument(r, args, 0, "", "find()");
  const std::string& s = str(self);
  r.budget.spend(static_cast<int64_t>(s.size() / 4));
  size_t begin = 0, limit = s.size();
  if (args.at(1) || args.at(2)) {
    const Charge table(r.budget, static_cast<int64_t>((s.size() + 1) * sizeof(size_t)));
    const std::vector<size_t> offsets = character_offsets(s);
    const auto n = static_cast<int64_t>(offsets.size()) - 1;
    const auto place = [&](int64_t i) {
      return offsets[static_cast<size_t>(std::clamp<int64_t>(i < 0 ? std::max<int64_t>(i, -n) + n : i, 0, n))];
    };
    begin = place(integer_argument(r, args, 1, 0, "start"));
    limit = place(integer_argument(r, args, 2, n, "end"));
  }
  if (begin > limit) return -1;
  const std::string_view part = std::string_view(s).substr(begin, limit - begin);
  const size_t at = from_right ? part.rfind(needle) : part.find(needle);
  return at == std::string_view::npos ? -1 : count_characters(std::string_view(s).substr(0, begin + at));
}

Value count_text(R& r, V self, A args) {
  const std::string needle = text_argument(r, args, 0, "", "count()");
  const std::string& s = str(self);
  r.budget.spend(static_cast<int64_t>(s.size() / 4));
  if (needle.empty()) return Value(count_characters(s) + 1);
  int64_t n = 0;
  for (size_t at = s.find(needle); at != std::string::npos; at = s.find(needle, at + needle.size())) ++n;
  return Value(n);
}

Value pad_method(R& r, V self, A args, Align align) {
  const std::string fill = text_argument(r, args, 1, " ", "fillchar");
  if (fill.size() != 1) r.fail("the fill character must be one ASCII character");
  return pad_text(r, str(self), integer_argument(r, args, 0, 0, "width"), align, fill[0]);
}

Value zfill(R& r, V self, A args) {
  const std::string& s = str(self);
  const bool sign = s.starts_with('-') || s.starts_with('+');
  const int64_t missing = integer_argument(r, args, 0, 0, "width") - count_characters(s);
  if (missing <= 0) return self;
  TextBuilder out(r);
  out += s.substr(0, sign ? 1 : 0);
  out.fill(missing, '0');
  out += std::string_view(s).substr(sign ? 1 : 0);
  return out.value();
}

/// "{} {1} {name}".format(...): fields without conversions or format specifications.
Value format_method(R& r, V self, A args) {
  const std::string& s = str(self);
  TextBuilder out(r);
  size_t next = 0;
  for (size_t at = 0; at < s.size(); ++at) {
    if ((s[at] == '{' || s[at] == '}') && at + 1 < s.size() && s[at + 1] == s[at]) {
      out += s.substr(at++, 1);
    } else if (s[at] == '{') {
      const size_t end = s.find('}', at);
      if (end == std::string::npos) r.fail("format(): '{' without '}'");
      const std::string field = s.substr(at + 1, end - at - 1);
      if (field.find_first_of("!:.[{") != std::string::npos)
        throw Error(ErrorCode::kUnsupported, "chat template, line ", r.line, ": format() field '", field.substr(0, 60), "'");
      const bool is_index = field.empty() || field.find_first_not_of("0123456789") == std::string::npos;
      const size_t index = field.empty() ? next++ : is_index && field.size() < 10 ? std::stoul(field) : args.positional.size();
      const Value* value = is_index ? args.at(index) : nullptr;
      for (const auto& [name, v] : args.named)
        if (name == field) value = &v;
      if (!value) r.fail("format(): no argument for '{", field, "}'");
      out += to_text(r, *value);
      at = end;
    } else {
      out += s.substr(at, 1);
    }
  }
  return out.value();
}

constexpr Native kText[] = {
    {"strip", "chars", [](R& r, V s, A a) { return strip_method(r, s, a, true, true); }},
    {"lstrip", "chars", [](R& r, V s, A a) { return strip_method(r, s, a, true, false); }},
    {"rstrip", "chars", [](R& r, V s, A a) { return strip_method(r, s, a, false, true); }},
    {"startswith", "prefix!",
     [](R& r, V s, A a) { return any_text(r, *a.at(0), "startswith", [&](const std::string& t) { return str(s).starts_with(t); }); }},
    {"endswith", "suffix!",
     [](R& r, V s, A a) { return any_text(r, *a.at(0), "endswith", [&](const std::string& t) { return str(s).ends_with(t); }); }},
    {"split", "sep maxsplit", [](R& r, V s, A a) { return split_method(r, s, a, false); }},
    {"rsplit", "sep maxsplit", [](R& r, V s, A a) { return split_method(r, s, a, true); }},
    {"splitlines", "keepends", splitlines},
    {"partition", "sep!", [](R& r, V s, A a) { return partition(r, s, a, false); }},
    {"rpartition", "sep!", [](R& r, V s, A a) { return partition(r, s, a, true); }},
    {"join", "iterable!", join},
    {"replace", "old! new! count",
     [](R& r, V s, A a) {
       return replace_text(r, str(s), text_argument(r, a, 0, "", "old"), text_argument(r, a, 1, "", "new"),
                           integer_argument(r, a, 2, -1, "count"));
     }},
    {"upper", "", [](R& r, V s, A) { return r.text(to_upper(str(s))); }},
    {"lower", "", [](R& r, V s, A) { return r.text(to_lower(str(s))); }},
    {"casefold", "", [](R& r, V s, A) { return r.text(to_lower(str(s))); }},
    {"title", "", [](R& r, V s, A) { return r.text(to_title(str(s))); }},
    {"capitalize", "", [](R& r, V s, A) { return r.text(capitalize(str(s))); }},
    {"find", "sub! start end", [](R& r, V s, A a) { return Value(find_text(r, s, a, false)); }},
    {"rfind", "sub! start end", [](R& r, V s, A a) { return Value(find_text(r, s, a, true)); }},
    {"index", "sub! start end",
     [](R& r, V s, A a) {
       const int64_t at = find_text(r, s, a, false);
       if (at < 0) r.fail("substring not found");
       return Value(at);
     }},
    {"count", "sub!", count_text},
    {"removeprefix", "prefix!",
     [](R& r, V s, A a) {
       const std::string p = text_argument(r, a, 0, "", "prefix");
       return str(s).starts_with(p) ? r.text(str(s).substr(p.size())) : s;
     }},
    {"removesuffix", "suffix!",
     [](R& r, V s, A a) {
       const std::string p = text_argument(r, a, 0, "", "suffix");
       return !p.empty() && str(s).ends_with(p) ? r.text(str(s).substr(0, str(s).size() - p.size())) : s;
     }},
    {"center", "width! fillchar", [](R& r, V s, A a) { return pad_method(r, s, a, Align::kCenter); }},
    {"ljust", "width! fillchar", [](R& r, V s, A a) { return pad_method(r, s, a, Align::kLeft); }},
    {"rjust", "width! fillchar", [](R& r, V s, A a) { return pad_method(r, s, a, Align::kRight); }},
    {"zfill", "width!", zfill},
    {"format", "*", format_method},
    {"isdigit", "", [](R&, V s, A) { return Value(all_of_class(str(s), CharacterClass::kDigit)); }},
    {"isdecimal", "", [](R&, V s, A) { return Value(all_of_class(str(s), CharacterClass::kDecimal)); }},
    {"isnumeric", "", [](R&, V s, A) { return Value(all_of_class(str(s), CharacterClass::kNumeric)); }},
    {"isalpha", "", [](R&, V s, A) { return Value(all_of_class(str(s), CharacterClass::kAlpha)); }},
    {"isalnum", "", [](R&, V s, A) { return Value(all_of_class(str(s), CharacterClass::kAlnum)); }},
    {"isspace", "", [](R&, V s, A) { return Value(all_of_class(str(s), CharacterClass::kSpace)); }},
    {"isupper", "", [](R&, V s, A) { return Value(is_cased_as(str(s), true)); }},
    {"islower", "", [](R&, V s, A) { return Value(is_cased_as(str(s), false)); }},
};

template <typename Pick>
Value dict_list(R& r, V self, Pick&& pick) {
  std::vector<Value> out;
  for (const auto& item : self.dict()->items) out.push_back(pick(item));
  return r.list(std::move(out));
}

constexpr Native kDict[] = {
    {"items", "", [](R& r, V s, A) { return dict_list(r, s, [&](const auto& i) {
                                       return r.list({i.first, i.second}, true);
                                     }); }},
    {"keys", "", [](R& r, V s, A) { return dict_list(r, s, [](const auto& i) { return i.first; }); }},
    {"values", "", [](R& r, V s, A) { return dict_list(r, s, [](const auto& i) { return i.second; }); }},
    {"copy", "", [](R&, V s, A) { return s; }},
    {"get", "key! default",
     [](R& r, V s, A a) {
       const Value* found = find(r, *s.dict(), *a.at(0));
       return found ? *found : a.at(1) ? *a.at(1) : Value(None{});
     }},
};

constexpr Native kList[] = {
    {"copy", "", [](R&, V s, A) { return s; }},
    {"count", "value!",
     [](R& r, V s, A a) {
       const auto& items = s.list()->items;
       return Value(int64_t{std::count_if(items.begin(), items.end(), [&](const Value& v) { return equal(r, v, *a.at(0)); })});
     }},
    {"index", "value!",
     [](R& r, V s, A a) {
       const auto& items = s.list()->items;
       const auto found = std::find_if(items.begin(), items.end(), [&](const Value& v) { return equal(r, v, *a.at(0)); });
       if (found == items.end()) r.fail("index(): the value is not in the list");
       return Value(int64_t{found - items.begin()});
     }},
};

constexpr Native kLoop[] = {
    {"cycle", "*",
     [](R& r, V s, A a) {
       if (a.positional.empty()) r.fail("no items for cycling given");
       return a.positional[static_cast<size_t>(s.loop()->index) % a.positional.size()].value;
     }},
    {"changed", "*",
     [](R& r, V s, A a) {
       std::vector<Value> now;
       for (const auto& slot : a.positional) now.push_back(slot.value);
       LoopState& loop = *s.loop();
       const bool same = loop.has_changed && std::equal(now.begin(), now.end(), loop.last_changed.begin(), loop.last_changed.end(),
                                                        [&](V x, V y) { return equal(r, x, y); });
       loop.has_changed = true;
       loop.last_changed = std::move(now);
       return Value(!same);
     }},
};

constexpr Native kReal[] = {
    {"is_integer", "", [](R&, V s, A) { return Value(std::isfinite(s.as_double()) && std::trunc(s.as_double()) == s.as_double()); }},
};

}  // namespace

const Native* find_method(const Value& self, std::string_view name) {
  if (self.text()) return find_native(kText, name);
  if (self.dict()) return find_native(kDict, name);
  if (self.list()) return find_native(kList, name);
  if (self.loop()) return find_native(kLoop, name);
  if (self.real()) return find_native(kReal, name);
  return nullptr;
}

}  // namespace minillm::jinja
