// jinja_operators.cpp - Python's operators on values. Integers have 64 bits; a result that needs more is an error, not a wrong number.
#include <algorithm>
#include <cmath>

#include "text/jinja_runtime.h"
#include "text/jinja_text.h"

namespace minillm::jinja {

bool equal(Runtime& runtime, const Value& a, const Value& b) {
  runtime.budget.spend(8);
  if (a.is_undefined() || b.is_undefined()) return a.is_undefined() && b.is_undefined();
  if (a.is_none() || b.is_none()) return a.is_none() && b.is_none();
  if (a.is_number() && b.is_number()) {
    int64_t x = 0, y = 0;
    if (a.as_integer(x) && b.as_integer(y)) return x == y;
    return a.as_double() == b.as_double();
  }
  if (a.text() && b.text()) {
    if (a.text()->size() != b.text()->size()) return false;
    runtime.budget.spend(static_cast<int64_t>(a.text()->size() / 16));
    return *a.text() == *b.text();
  }
  if (a.list() && b.list()) {
    const auto &x = *a.list(), &y = *b.list();
    if (x.is_tuple != y.is_tuple || x.items.size() != y.items.size()) return false;
    for (size_t i = 0; i < x.items.size(); ++i)
      if (!equal(runtime, x.items[i], y.items[i])) return false;
    return true;
  }
  if (a.dict() && b.dict()) {
    if (a.dict()->items.size() != b.dict()->items.size()) return false;
    for (const auto& [key, value] : a.dict()->items) {
      const Value* other = find(runtime, *b.dict(), key);
      if (!other || !equal(runtime, value, *other)) return false;
    }
    return true;
  }
  if (a.function() && b.function()) return a.function() == b.function();
  if (a.loop() && b.loop()) return a.loop() == b.loop();
  return a.name_space() && a.name_space() == b.name_space();
}

int compare(Runtime& runtime, const Value& a, const Value& b) {
  runtime.budget.spend(16);
  runtime.require_defined(a);
  runtime.require_defined(b);
  if (a.is_number() && b.is_number()) {
    int64_t x = 0, y = 0;
    if (a.as_integer(x) && b.as_integer(y)) return x < y ? -1 : x > y ? 1 : 0;
    return a.as_double() < b.as_double() ? -1 : a.as_double() > b.as_double() ? 1 : 0;
  }
  if (a.text() && b.text()) {  // The order of UTF-8 bytes is that of code points.
    runtime.budget.spend(static_cast<int64_t>(std::min(a.text()->size(), b.text()->size()) / 16));
    return a.text()->compare(*b.text());
  }
  if (a.list() && b.list() && a.list()->is_tuple == b.list()->is_tuple) {
    const auto &x = a.list()->items, &y = b.list()->items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (!equal(runtime, x[i], y[i])) return compare(runtime, x[i], y[i]);
    return x.size() < y.size() ? -1 : x.size() > y.size() ? 1 : 0;
  }
  runtime.fail("'", type_name(a), "' and '", type_name(b), "' have no order");
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  if (const std::string* s = container.text()) {
    runtime.require_defined(item);
    if (!item.text()) runtime.fail("'in <string>' requires a string, not ", type_name(item));
    runtime.budget.spend(static_cast<int64_t>(s->size() / 4));
    return s->find(*item.text()) != std::string::npos;
  }
  if (const Dict* d = container.dict()) return find(runtime, *d, item) != nullptr;
  if (container.is_undefined()) return false;
  if (!container.list() && !container.loop()) runtime.fail("argument of type '", type_name(container), "' is not iterable");
  const std::vector<Value>& items = container.list() ? container.list()->items : container.loop()->items;
  return std::any_of(items.begin(), items.end(), [&](const Value& v) { return equal(runtime, v, item); });
}

namespace {

/// `value`, which the operation that may overflow has written: by reference, as arguments are evaluated in any order.
int64_t checked(Runtime& runtime, bool overflows, const int64_t& value) {
  if (overflows) throw Error(ErrorCode::kUnsupported, "chat template, line ", runtime.line, ": an integer needs more than 64 bits");
  return value;
}

Value power(Runtime& runtime, const Value& a, const Value& b) {
  int64_t base = 0, exponent = 0;
  if (!a.as_integer(base) || !b.as_integer(exponent) || exponent < 0) return Value(std::pow(a.as_double(), b.as_double()));
  int64_t result = 1;
  if (base == 0 || base == 1 || base == -1) return Value(exponent == 0 ? int64_t{1} : base == -1 && exponent % 2 == 0 ? int64_t{1} : base);
  for (int64_t i = 0; i < exponent; ++i) result = checked(runtime, __builtin_mul_overflow(result, base, &result), result);
  return Value(result);
}

Value numbers(Runtime& runtime, char op, bool floor_division, const Value& a, const Value& b) {
  int64_t x = 0, y = 0, out = 0;
  const bool integers = a.as_integer(x) && b.as_integer(y);
  if ((op == '/' || op == '%') && b.as_double() == 0.0) runtime.fail("division by zero");
  if (integers && (op != '/' || floor_division)) {
    if (op == '+') return Value(checked(runtime, __builtin_add_overflow(x, y, &out), out));
    if (op == '-') return Value(checked(runtime, __builtin_sub_overflow(x, y, &out), out));
    if (op == '*') return Value(checked(runtime, __builtin_mul_overflow(x, y, &out), out));
    if (y == -1) return op == '%' ? Value(int64_t{0}) : Value(checked(runtime, __builtin_sub_overflow(int64_t{0}, x, &out), out));
    const bool toward_minus = x % y != 0 && (x % y < 0) != (y < 0);  // Python rounds down, C++ toward zero.
    if (op == '%') return Value(x % y + (toward_minus ? y : 0));
    return Value(x / y - (toward_minus ? 1 : 0));
  }
  const double p = a.as_double(), q = b.as_double();
  if (op == '+') return Value(p + q);
  if (op == '-') return Value(p - q);
  if (op == '*') return Value(p * q);
  if (op == '/') return Value(floor_division ? std::floor(p / q) : p / q);
  const double rest = std::fmod(p, q);
  return Value(rest != 0.0 && (rest < 0.0) != (q < 0.0) ? rest + q : rest);
}

/// text * n and list * n.
Value repeat(Runtime& runtime, const Value& a, int64_t n) {
  n = std::max<int64_t>(n, 0);
  const auto size = static_cast<int64_t>(a.text() ? a.text()->size() : a.list()->items.size());
  int64_t total = 0;
  if (__builtin_mul_overflow(n, size, &total)) total = INT64_MAX;
  if (a.text()) {
    runtime.expect(total);
    std::string out;
    out.reserve(static_cast<size_t>(total));
    for (int64_t i = 0; i < (size == 0 ? 0 : n); ++i) out += *a.text();
    return runtime.text(std::move(out));
  }
  if (total > kMaxLiveBytes / static_cast<int64_t>(sizeof(Value)))
    throw Error(ErrorCode::kCapacity, "chat template, line ", runtime.line, ": a list of ", total, " items");
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(total));
  for (int64_t i = 0; i < (size == 0 ? 0 : n); ++i) items.insert(items.end(), a.list()->items.begin(), a.list()->items.end());
  return runtime.list(std::move(items), a.list()->is_tuple);
}

Value concatenate(Runtime& runtime, const std::string& a, const std::string& b) {
  runtime.expect(static_cast<int64_t>(a.size() + b.size()));
  std::string out;
  out.reserve(a.size() + b.size());
  out += a;
  out += b;
  return runtime.text(std::move(out));
}

}  // namespace

Value arithmetic(Runtime& runtime, std::string_view op, const Value& a, const Value& b) {
  if (op == "~") return concatenate(runtime, to_text(runtime, a), to_text(runtime, b));
  runtime.require_defined(a);
  if (op == "%" && a.text()) {
    const bool tuple = b.list() && b.list()->is_tuple;
    return runtime.text(format_percent(runtime, *a.text(), tuple ? b.list()->items : std::vector<Value>{b}));
  }
  runtime.require_defined(b);
  if (a.is_number() && b.is_number()) return op == "**" ? power(runtime, a, b) : numbers(runtime, op[0], op == "//", a, b);
  if (op == "+" && a.text() && b.text()) return concatenate(runtime, *a.text(), *b.text());
  if (op == "+" && a.list() && b.list() && a.list()->is_tuple == b.list()->is_tuple) {
    std::vector<Value> items = a.list()->items;
    items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
    return runtime.list(std::move(items), a.list()->is_tuple);
  }
  int64_t n = 0;
  if (op == "*" && (a.text() || a.list()) && b.as_integer(n)) return repeat(runtime, a, n);
  if (op == "*" && (b.text() || b.list()) && a.as_integer(n)) return repeat(runtime, b, n);
  runtime.fail("'", op, "' does not go with '", type_name(a), "' and '", type_name(b), "'");
}

Value negate(Runtime& runtime, const Value& value) {
  runtime.require_defined(value);
  int64_t n = 0, out = 0;
  if (value.as_integer(n)) return Value(checked(runtime, __builtin_sub_overflow(int64_t{0}, n, &out), out));
  if (!value.real()) runtime.fail("'-' does not go with '", type_name(value), "'");
  return Value(-*value.real());
}

}  // namespace minillm::jinja
