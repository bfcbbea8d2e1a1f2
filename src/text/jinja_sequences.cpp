// jinja_sequences.cpp - filters on lists and dicts. Those that are generators in jinja2 (map, select, ...) give lists here.
#include "text/jinja_sequences.h"

#include <numeric>

#include "text/jinja_natives.h"

namespace minillm::jinja {

Value attribute_path(Runtime& runtime, Value value, const Value& path) {
  if (!path.text()) return item(runtime, value, path);
  for (std::string_view rest = *path.text();;) {
    const size_t end = std::min(rest.find('.'), rest.size());
    const std::string part(rest.substr(0, end));
    const bool is_index = !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == std::string::npos;
    value = is_index ? item(runtime, value, Value(static_cast<int64_t>(std::stol(part)))) : item(runtime, value, runtime.text(part));
    if (end == rest.size()) return value;
    rest.remove_prefix(end + 1);
  }
}

namespace {

using R = Runtime;
using V = const Value&;
using A = const Arguments&;

/// What sort, unique, min, max and groupby compare: texts without regard to case unless asked.
Value comparable(R& r, V value, bool case_sensitive) { return value.text() && !case_sensitive ? r.text(to_lower(*value.text())) : value; }
Value key_of(R& r, V value, const Value* attribute, bool case_sensitive) {
  const bool has = attribute && !attribute->is_none();
  return comparable(r, has ? attribute_path(r, value, *attribute) : value, case_sensitive);
}

/// `items` in the order of `keys`, equal ones in the order they had.
std::vector<Value> sorted(R& r, std::vector<Value> items, const std::vector<Value>& keys, bool reverse) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return reverse ? compare(r, keys[b], keys[a]) < 0 : compare(r, keys[a], keys[b]) < 0; });
  std::vector<Value> out;
  for (const size_t i : order) out.push_back(items[i]);
  return out;
}

Value sort(R& r, V self, A args) {
  std::vector<Value> items = iterate(r, self), keys;
  const std::string path = text_argument(r, args, 2, "", "attribute");
  for (const Value& v : items) {
    std::vector<Value> parts;  // Several attributes, separated by commas, compare one after the other.
    for (std::string_view rest = path; !rest.empty();) {
      const size_t end = std::min(rest.find(','), rest.size());
      parts.push_back(comparable(r, attribute_path(r, v, r.text(std::string(rest.substr(0, end)))), flag_argument(args, 1, false)));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    keys.push_back(parts.empty() ? comparable(r, v, flag_argument(args, 1, false)) : r.list(std::move(parts)));
  }
  return r.list(sorted(r, std::move(items), keys, flag_argument(args, 0, false)));
}

Value dictsort(R& r, V self, A args) {
  if (!self.dict()) r.fail("dictsort: expected a dict, met ", type_name(self));
  const std::string by = text_argument(r, args, 1, "key", "by");
  if (by != "key" && by != "value") r.fail("you can only sort by either \"key\" or \"value\"");
  std::vector<Value> items, keys;
  for (const auto& [key, value] : self.dict()->items) {
    items.push_back(r.list({key, value}, true));
    keys.push_back(comparable(r, by == "key" ? key : value, flag_argument(args, 0, false)));
  }
  return r.list(sorted(r, std::move(items), keys, flag_argument(args, 2, false)));
}

Value unique(R& r, V self, A args) {
  std::vector<Value> out, seen;
  for (const Value& v : iterate(r, self)) {
    const Value key = key_of(r, v, args.at(1), flag_argument(args, 0, false));
    if (std::any_of(seen.begin(), seen.end(), [&](V other) { return equal(r, other, key); })) continue;
    seen.push_back(key);
    out.push_back(v);
  }
  return r.list(std::move(out));
}

Value extreme(R& r, V self, A args, int sign) {
  const std::vector<Value> items = iterate(r, self);
  if (items.empty()) return r.undefined("no aggregated item, sequence was empty");
  size_t best = 0;
  std::vector<Value> keys;
  for (const Value& v : items) keys.push_back(key_of(r, v, args.at(1), flag_argument(args, 0, false)));
  for (size_t i = 1; i < items.size(); ++i)
    if (compare(r, keys[i], keys[best]) * sign > 0) best = i;
  return items[best];
}

Value sum(R& r, V self, A args) {
  Value total = args.at(1) ? *args.at(1) : Value(int64_t{0});
  for (const Value& v : iterate(r, self))
    total = arithmetic(r, "+", total, args.at(0) && !args.at(0)->is_none() ? attribute_path(r, v, *args.at(0)) : v);
  return total;
}

Value groupby(R& r, V self, A args) {
  std::vector<Value> items = iterate(r, self), keys;
  for (const Value& v : items) {
    Value key = attribute_path(r, v, *args.at(0));
    if (key.is_undefined() && args.at(1)) key = *args.at(1);
    keys.push_back(comparable(r, key, flag_argument(args, 2, false)));
  }
  const std::vector<Value> order = sorted(r, items, keys, false);
  std::vector<Value> out, group;
  Value current;
  const auto close = [&] {
    if (!group.empty()) out.push_back(r.list({attribute_path(r, group[0], *args.at(0)), r.list(std::exchange(group, {}))}, true));
  };
  for (const Value& v : order) {
    Value key = comparable(r, attribute_path(r, v, *args.at(0)), flag_argument(args, 2, false));
    if (group.empty() || !equal(r, key, current)) close();
    current = std::move(key);
    group.push_back(v);
  }
  close();
  return r.list(std::move(out));
}

Value join(R& r, V self, A args) {
  const std::string separator = args.at(0) ? to_text(r, *args.at(0)) : "";
  TextBuilder out(r);
  bool first = true;
  for (const Value& v : iterate(r, self)) {
    if (!std::exchange(first, false)) out += separator;
    out += to_text(r, args.at(1) && !args.at(1)->is_none() ? attribute_path(r, v, *args.at(1)) : v);
  }
  return out.value();
}

Value reverse(R& r, V self, A) {
  if (self.text()) return slice(r, self, Value(None{}), Value(None{}), Value(int64_t{-1}));
  std::vector<Value> items = iterate(r, self);
  std::reverse(items.begin(), items.end());
  return r.list(std::move(items));
}

/// Lists of `n` items, the last filled up.
Value batch(R& r, V self, A args) {
  const int64_t n = integer_argument(r, args, 0, 0, "linecount");
  if (n < 1) r.fail("batch: expected at least 1, met ", n);
  std::vector<Value> out, row;
  for (const Value& v : iterate(r, self)) {
    if (static_cast<int64_t>(row.size()) == n) out.push_back(r.list(std::exchange(row, {})));
    row.push_back(v);
  }
  if (args.at(1) && !args.at(1)->is_none() && !row.empty()) {
    if (n > kMaxRange) throw Error(ErrorCode::kCapacity, "chat template, line ", r.line, ": batch of ", n, " items");
    row.resize(static_cast<size_t>(n), *args.at(1));
  }
  if (!row.empty()) out.push_back(r.list(std::move(row)));
  return r.list(std::move(out));
}

/// `n` lists of nearly equal length.
Value slice_filter(R& r, V self, A args) {
  const std::vector<Value> items = iterate(r, self);
  const int64_t n = integer_argument(r, args, 0, 0, "slices"), size = static_cast<int64_t>(items.size());
  if (n < 1 || n > kMaxRange) r.fail("slice: expected 1 to ", kMaxRange, ", met ", n);
  std::vector<Value> out;
  for (int64_t i = 0, at = 0; i < n; ++i) {
    const int64_t take = size / n + (i < size % n ? 1 : 0);
    std::vector<Value> row(items.begin() + at, items.begin() + at + take);
    if (args.at(1) && !args.at(1)->is_none() && i >= size % n) row.push_back(*args.at(1));
    out.push_back(r.list(std::move(row)));
    at += take;
  }
  return r.list(std::move(out));
}

/// The native named by argument `i`, and what comes after it.
const Native& named_native(R& r, A args, size_t i, const Native* (*find)(std::string_view), Arguments& rest) {
  const std::string name = text_argument(r, args, i, "", "name");
  const Native* native = find(name);
  if (!native) throw Error(ErrorCode::kUnsupported, "chat template, line ", r.line, ": unknown filter or test '", name.substr(0, 60), "'");
  for (size_t k = i + 1; k < args.positional.size(); ++k) rest.positional.push_back(args.positional[k]);
  rest.named = args.named;
  return *native;
}

Value map(R& r, V self, A args) {
  if (!self.truthy()) return r.list({});  // none|map(...) is empty in jinja2, not an error; so is select's.
  std::vector<Value> out;
  const auto option = [&](std::string_view name) -> const Value* {
    for (const auto& [key, value] : args.named)
      if (key == name) return &value;
    return nullptr;
  };
  if (args.positional.empty()) {
    const Value* path = option("attribute");
    if (!path) r.fail("map requires a filter or attribute=");
    for (const Value& v : iterate(r, self)) {
      Value got = attribute_path(r, v, *path);
      if (got.is_undefined() && option("default")) got = *option("default");
      out.push_back(std::move(got));
    }
    return r.list(std::move(out));
  }
  Arguments rest;
  const Native& filter = named_native(r, args, 0, find_filter, rest);
  for (const Value& v : iterate(r, self)) {
    r.budget.spend(4);
    out.push_back(call_native(r, filter, v, rest));
  }
  return r.list(std::move(out));
}

/// select, reject (`by_attribute` off) and selectattr, rejectattr: items whose test gives `wanted`; without a test, truth.
Value select(R& r, V self, A args, bool by_attribute, bool wanted) {
  const size_t at = by_attribute ? 1 : 0;
  if (by_attribute && args.positional.empty()) r.fail("missing the name of the attribute");
  Arguments rest;
  const Native* test = args.positional.size() > at ? &named_native(r, args, at, find_test, rest) : nullptr;
  if (!self.truthy()) return r.list({});
  std::vector<Value> out;
  for (const Value& v : iterate(r, self)) {
    r.budget.spend(4);
    const Value subject = by_attribute ? attribute_path(r, v, args.positional[0].value) : v;
    if ((test ? call_native(r, *test, subject, rest).truthy() : subject.truthy()) == wanted) out.push_back(v);
  }
  return r.list(std::move(out));
}

Value ends(R& r, V self, bool first) {
  const std::vector<Value> items = iterate(r, self);
  if (items.empty()) return r.undefined("no ", first ? "first" : "last", " item, sequence was empty");
  return first ? items.front() : items.back();
}

Value length_filter(R& r, V self, A) {
  const int64_t n = length(r, self);
  if (n < 0) r.fail("object of type '", type_name(self), "' has no length");
  return Value(n);
}

Value items(R& r, V self, A) {
  if (self.is_undefined()) return r.list({});
  if (!self.dict()) r.fail("can only get item pairs from a mapping, not ", type_name(self));
  return call_native(r, *find_method(self, "items"), self, {});
}

constexpr Native kSequences[] = {
    {"attr", "name!", [](R& r, V s, A a) { return s.dict() ? Value() : attribute(r, s, text_argument(r, a, 0, "", "name")); }},
    {"batch", "linecount! fill_with", batch},
    {"count", "", length_filter},
    {"dictsort", "case_sensitive by reverse", dictsort},
    {"first", "", [](R& r, V s, A) { return ends(r, s, true); }},
    {"groupby", "attribute! default case_sensitive", groupby},
    {"items", "", items},
    {"join", "d attribute", join},
    {"last", "", [](R& r, V s, A) { return ends(r, s, false); }},
    {"length", "", length_filter},
    {"list", "", [](R& r, V s, A) { return r.list(iterate(r, s)); }},
    {"map", "*", map},
    {"max", "case_sensitive attribute", [](R& r, V s, A a) { return extreme(r, s, a, 1); }},
    {"min", "case_sensitive attribute", [](R& r, V s, A a) { return extreme(r, s, a, -1); }},
    {"reject", "*", [](R& r, V s, A a) { return select(r, s, a, false, false); }},
    {"rejectattr", "*", [](R& r, V s, A a) { return select(r, s, a, true, false); }},
    {"reverse", "", reverse},
    {"select", "*", [](R& r, V s, A a) { return select(r, s, a, false, true); }},
    {"selectattr", "*", [](R& r, V s, A a) { return select(r, s, a, true, true); }},
    {"slice", "slices! fill_with", slice_filter},
    {"sort", "reverse case_sensitive attribute", sort},
    {"sum", "attribute start", sum},
    {"unique", "case_sensitive attribute", unique},
};

}  // namespace

const Native* find_sequence_filter(std::string_view name) { return find_native(kSequences, name); }

}  // namespace minillm::jinja
