// jinja_print.cpp - Python's str(), repr() and json.dumps().
// Depth is that of the values, at most 64. A value that shares its parts (a = [b, b], b = [c, c], ...) may print as far more than it
// holds, so every part visited is paid for and the length is watched.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "text/jinja_runtime.h"
#include "text/jinja_text.h"

namespace minillm::jinja {

std::string real_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));  // [-]d[.ddd]e[+-]dd, shortest that reads back.
  const size_t e = text.find('e');
  const int exponent = std::atoi(std::string(text.substr(e + 1)).c_str());
  if (exponent < -4 || exponent >= 16) return std::string(text);
  std::string digits;
  for (const char c : text.substr(0, e))
    if (c >= '0' && c <= '9') digits += c;
  const auto n = static_cast<int>(digits.size());
  std::string out = text[0] == '-' ? "-" : "";
  if (exponent < 0) return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (n <= exponent + 1) return out + digits + std::string(static_cast<size_t>(exponent + 1 - n), '0') + ".0";
  const size_t point = static_cast<size_t>(exponent) + 1;
  return out + digits.substr(0, point) + "." + digits.substr(point);
}

namespace {

class Printer {
 public:
  explicit Printer(Runtime& runtime) : runtime_(runtime) {}
  std::string out;

  void repr(const Value& value) {
    runtime_.budget.spend(8);
    runtime_.expect(static_cast<int64_t>(out.size()));
    if (const std::string* s = value.text()) {
      runtime_.budget.spend(static_cast<int64_t>(s->size() / 4));
      out += quoted(*s);
    } else if (const List* l = value.list()) {
      list(*l);
    } else if (const Dict* d = value.dict()) {
      dict(d->items, [this](const Value& key) { repr(key); });
    } else {
      scalar(value);
    }
  }

  void scalar(const Value& value) {
    if (value.is_undefined())
      out += "Undefined";
    else if (value.is_none())
      out += "None";
    else if (const bool* b = value.boolean())
      out += *b ? "True" : "False";
    else if (const int64_t* i = value.integer())
      out += std::to_string(*i);
    else if (const double* r = value.real())
      out += real_repr(*r);
    else if (value.name_space())
      out += "<Namespace>";
    else if (const LoopState* loop = value.loop())
      out += "<LoopContext " + std::to_string(loop->index + 1) + "/" + std::to_string(loop->items.size()) + ">";
    else if (const Function* f = value.function())
      out += "<function " + f->name + ">";
  }

 private:
  void list(const List& list) {
    out += list.is_tuple ? '(' : '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out += ", ";
      repr(list.items[i]);
    }
    if (list.is_tuple && list.items.size() == 1) out += ',';
    out += list.is_tuple ? ')' : ']';
  }
  template <typename Key>
  void dict(const std::vector<std::pair<Value, Value>>& items, Key&& key) {
    out += '{';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out += ", ";
      key(items[i].first);
      out += ": ";
      repr(items[i].second);
    }
    out += '}';
  }

  Runtime& runtime_;
};

class JsonPrinter {
 public:
  JsonPrinter(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style) {}
  std::string out;

  void print(const Value& value, int level) {
    runtime_.budget.spend(8);
    runtime_.expect(static_cast<int64_t>(out.size()));
    if (const std::string* s = value.text()) {
      text(*s);
    } else if (value.is_none()) {
      out += "null";
    } else if (const bool* b = value.boolean()) {
      out += *b ? "true" : "false";
    } else if (const int64_t* i = value.integer()) {
      out += std::to_string(*i);
    } else if (const double* r = value.real()) {
      out += std::isnan(*r) ? "NaN" : std::isinf(*r) ? (*r > 0 ? "Infinity" : "-Infinity") : real_repr(*r);
    } else if (const List* l = value.list()) {
      container('[', ']', l->items.size(), level, [&](size_t n) { print(l->items[n], level + 1); });
    } else if (const Dict* d = value.dict()) {
      dict(*d, level);
    } else {
      runtime_.fail("a value of type ", type_name(value), " cannot be written as JSON");
    }
  }

 private:
  template <typename Item>
  void container(char open, char close, size_t n, int level, Item&& item) {
    out += open;
    for (size_t i = 0; i < n; ++i) {
      if (i > 0) out += style_.item_separator;
      new_line(level + 1);
      item(i);
    }
    if (n > 0) new_line(level);
    out += close;
  }
  void new_line(int level) {
    if (!style_.pretty) return;
    out += '\n';
    for (int i = 0; i < level; ++i) {
      out += style_.indent;
      runtime_.expect(static_cast<int64_t>(out.size()));
    }
  }

  void dict(const Dict& dict, int level) {
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    runtime_.budget.spend(static_cast<int64_t>(items.size()));
    if (style_.sort_keys)
      std::stable_sort(items.begin(), items.end(), [&](auto* a, auto* b) { return compare(runtime_, a->first, b->first) < 0; });
    container('{', '}', items.size(), level, [&](size_t n) {
      key(items[n]->first);
      out += style_.key_separator;
      print(items[n]->second, level + 1);
    });
  }
  /// Keys become texts: true, 1, 2.5 and null are written in quotes.
  void key(const Value& key) {
    if (key.text()) return text(*key.text());
    out += '"';
    print(key, 0);
    out += '"';
  }

  void text(const std::string& s) {
    runtime_.budget.spend(static_cast<int64_t>(s.size() / 4));
    out += '"';
    for (size_t at = 0; at < s.size();) {
      const CodePoint c = code_point_at(s, at);
      static constexpr std::string_view kPlain = "\"\\\n\r\t\b\f", kEscaped = "\"\\nrtbf";
      const size_t escape = c.value < 0x80 ? kPlain.find(static_cast<char>(c.value)) : std::string_view::npos;
      if (escape != std::string_view::npos) {
        out += '\\';
        out += kEscaped[escape];
      } else if (c.value < 0x20 || (style_.ensure_ascii && c.value > 0x7E)) {
        unicode_escape(static_cast<unsigned>(c.value));
      } else {
        out.append(s, at, c.bytes);
      }
      at += c.bytes;
    }
    out += '"';
  }
  void unicode_escape(unsigned value) {
    char code[16];
    if (value < 0x10000)
      std::snprintf(code, sizeof code, "\\u%04x", value);
    else
      std::snprintf(code, sizeof code, "\\u%04x\\u%04x", 0xD800 + ((value - 0x10000) >> 10), 0xDC00 + ((value - 0x10000) & 0x3FF));
    out += code;
  }

  Runtime& runtime_;
  const JsonStyle& style_;
};

}  // namespace

std::string to_text(Runtime& runtime, const Value& value) {
  if (value.is_undefined()) return "";
  if (const std::string* s = value.text()) return *s;
  return to_repr(runtime, value);
}

std::string to_repr(Runtime& runtime, const Value& value) {
  Printer printer(runtime);
  printer.repr(value);
  return std::move(printer.out);
}

std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style) {
  JsonPrinter printer(runtime, style);
  printer.print(value, 0);
  return std::move(printer.out);
}

}  // namespace minillm::jinja
