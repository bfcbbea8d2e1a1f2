// jinja_tests.cpp - what may follow `is`, and the functions every template knows. Source: jinja2 3.1, tests.py; transformers adds
// raise_exception and strftime_now.
#include <ctime>

#include "text/jinja_natives.h"

namespace minillm::jinja {
namespace {

using R = Runtime;
using V = const Value&;
using A = const Arguments&;

int64_t integer_of(R& r, V value) {
  r.require_defined(value);
  int64_t n = 0;
  if (!value.as_integer(n)) r.fail("expected an integer, met ", type_name(value));
  return n;
}

bool same_object(R& r, V a, V b) {
  if (a.boolean() || b.boolean()) return a.boolean() && b.boolean() && *a.boolean() == *b.boolean();
  if (a.data().index() != b.data().index()) return false;
  if (a.list()) return a.list() == b.list();
  if (a.dict()) return a.dict() == b.dict();
  return equal(r, a, b);
}

template <typename Holds>
Value compared(R& r, V self, A args, Holds&& holds) {
  return Value(bool{holds(compare(r, self, *args.at(0)))});
}

constexpr auto kEqual = [](R& r, V s, A a) { return Value(equal(r, s, *a.at(0))); };
constexpr auto kNotEqual = [](R& r, V s, A a) { return Value(!equal(r, s, *a.at(0))); };
constexpr auto kLess = [](R& r, V s, A a) { return compared(r, s, a, [](int c) { return c < 0; }); };
constexpr auto kLessEqual = [](R& r, V s, A a) { return compared(r, s, a, [](int c) { return c <= 0; }); };
constexpr auto kGreater = [](R& r, V s, A a) { return compared(r, s, a, [](int c) { return c > 0; }); };
constexpr auto kGreaterEqual = [](R& r, V s, A a) { return compared(r, s, a, [](int c) { return c >= 0; }); };

constexpr Native kTests[] = {
    {"!=", "other!", kNotEqual},
    {"<", "other!", kLess},
    {"<=", "other!", kLessEqual},
    {"==", "other!", kEqual},
    {">", "other!", kGreater},
    {">=", "other!", kGreaterEqual},
    {"boolean", "", [](R&, V s, A) { return Value(s.boolean() != nullptr); }},
    {"callable", "", [](R&, V s, A) { return Value(s.function() != nullptr); }},
    {"defined", "", [](R&, V s, A) { return Value(!s.is_undefined()); }},
    {"divisibleby", "num!",
     [](R& r, V s, A a) {
       const int64_t by = integer_of(r, *a.at(0));
       if (by == 0) r.fail("division by zero");
       return Value(by == -1 || integer_of(r, s) % by == 0);
     }},
    {"eq", "other!", kEqual},
    {"equalto", "other!", kEqual},
    {"escaped", "", [](R&, V, A) { return Value(false); }},
    {"even", "", [](R& r, V s, A) { return Value(integer_of(r, s) % 2 == 0); }},
    {"false", "", [](R&, V s, A) { return Value(s.boolean() && !*s.boolean()); }},
    {"filter", "", [](R&, V s, A) { return Value(s.text() && find_filter(*s.text())); }},
    {"float", "", [](R&, V s, A) { return Value(s.real() != nullptr); }},
    {"ge", "other!", kGreaterEqual},
    {"greaterthan", "other!", kGreater},
    {"gt", "other!", kGreater},
    {"in", "seq!", [](R& r, V s, A a) { return Value(contains(r, *a.at(0), s)); }},
    {"integer", "", [](R&, V s, A) { return Value(s.integer() != nullptr); }},
    {"iterable", "", [](R&, V s, A) { return Value(s.is_undefined() || s.text() || s.list() || s.dict() || s.loop()); }},
    {"le", "other!", kLessEqual},
    {"lessthan", "other!", kLess},
    {"lower", "", [](R& r, V s, A) { return Value(is_cased_as(to_text(r, s), false)); }},
    {"lt", "other!", kLess},
    {"mapping", "", [](R&, V s, A) { return Value(s.dict() != nullptr); }},
    {"ne", "other!", kNotEqual},
    {"none", "", [](R&, V s, A) { return Value(s.is_none()); }},
    {"number", "", [](R&, V s, A) { return Value(s.is_number()); }},
    {"odd", "", [](R& r, V s, A) { return Value(integer_of(r, s) % 2 != 0); }},
    {"sameas", "other!", [](R& r, V s, A a) { return Value(same_object(r, s, *a.at(0))); }},
    {"sequence", "", [](R&, V s, A) { return Value(s.is_undefined() || s.text() || s.list() || s.dict()); }},
    {"string", "", [](R&, V s, A) { return Value(s.text() != nullptr); }},
    {"test", "", [](R&, V s, A) { return Value(s.text() && find_test(*s.text())); }},
    {"true", "", [](R&, V s, A) { return Value(s.boolean() && *s.boolean()); }},
    {"undefined", "", [](R&, V s, A) { return Value(s.is_undefined()); }},
    {"upper", "", [](R& r, V s, A) { return Value(is_cased_as(to_text(r, s), true)); }},
};

Value range(R& r, V, A args) {
  if (args.positional.empty() || args.positional.size() > 3 || !args.named.empty()) r.fail("range() takes one to three integers");
  const bool one = args.positional.size() == 1;
  const int64_t start = one ? 0 : integer_of(r, *args.at(0)), stop = integer_of(r, *args.at(one ? 0 : 1));
  const int64_t step = args.at(2) ? integer_of(r, *args.at(2)) : 1;
  if (step == 0) r.fail("range() arg 3 must not be zero");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(items.size()) >= kMaxRange)
      throw Error(ErrorCode::kCapacity, "chat template, line ", r.line, ": range of more than ", kMaxRange, " numbers");
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return r.list(std::move(items));
}

/// dict(mapping or pairs, name=value, ...).
Value dict(R& r, V, A args) {
  std::vector<std::pair<Value, Value>> items;
  if (args.positional.size() > 1) r.fail("dict() takes at most one positional argument");
  if (const Value* from = args.at(0); from && from->dict()) {
    items = from->dict()->items;
  } else if (from) {
    for (const Value& v : iterate(r, *from)) {
      if (!v.list() || v.list()->items.size() != 2) r.fail("dict() expects pairs");
      items.emplace_back(v.list()->items[0], v.list()->items[1]);
    }
  }
  for (const auto& [name, value] : args.named) items.emplace_back(r.text(name), value);
  return r.dict(std::move(items));
}

Value name_space(R& r, V, A args) {
  std::vector<std::pair<std::string, Value>> items;
  if (args.positional.size() > 1 || (args.at(0) && !args.at(0)->dict())) r.fail("namespace() takes a dict and named values");
  if (const Value* from = args.at(0)) {
    for (const auto& [key, value] : from->dict()->items) items.emplace_back(to_text(r, key), value);
  }
  for (const auto& [name, value] : args.named) items.emplace_back(name, value);
  return r.name_space(std::move(items));
}

Value strftime_now(R& r, V, A args) {
  const std::string format = text_argument(r, args, 0, "", "format") + " ";  // Never empty, so that 0 means "did not fit".
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::string out(4096, '\0');
  const size_t n = std::strftime(out.data(), out.size(), format.c_str(), &local);
  if (n == 0) r.fail("strftime_now(): more than 4096 characters");
  return r.text(out.substr(0, n - 1));
}

constexpr Native kGlobals[] = {
    {"dict", "*", dict},
    {"namespace", "*", name_space},
    {"raise_exception", "message!", [](R& r, V, A a) -> Value { throw Error(ErrorCode::kInvalidArgument, to_text(r, *a.at(0))); }},
    {"range", "*", range},
    {"strftime_now", "format!", strftime_now},
};

}  // namespace

const Native* find_test(std::string_view name) { return find_native(kTests, name); }
const Native* find_global(std::string_view name) { return find_native(kGlobals, name); }

}  // namespace minillm::jinja
