// jinja_access.cpp - attributes, items, slices, iteration, and passing arguments to natives.
#include <algorithm>

#include "text/jinja_runtime.h"
#include "text/jinja_text.h"

namespace minillm::jinja {

const Value* find(Runtime& runtime, const Dict& dict, const Value& key) {
  runtime.budget.spend(static_cast<int64_t>(dict.items.size() / 4));
  for (const auto& [k, v] : dict.items)
    if (equal(runtime, k, key)) return &v;
  return nullptr;
}

const Value* find(Runtime& runtime, const Dict& dict, std::string_view key) {
  runtime.budget.spend(static_cast<int64_t>(dict.items.size() / 2));
  for (const auto& [k, v] : dict.items)
    if (k.text() && *k.text() == key) return &v;
  return nullptr;
}

namespace {

Value loop_attribute(Runtime& runtime, const Value& value, const std::string& name) {
  const LoopState& loop = *value.loop();
  const auto n = static_cast<int64_t>(loop.items.size());
  if (name == "index") return Value(loop.index + 1);
  if (name == "index0") return Value(loop.index);
  if (name == "revindex") return Value(n - loop.index);
  if (name == "revindex0") return Value(n - loop.index - 1);
  if (name == "first") return Value(loop.index == 0);
  if (name == "last") return Value(loop.index + 1 == n);
  if (name == "length") return Value(n);
  if (name == "depth") return Value(loop.depth);
  if (name == "depth0") return Value(loop.depth - 1);
  if (name == "previtem")
    return loop.index > 0 ? loop.items[static_cast<size_t>(loop.index - 1)] : runtime.undefined("there is no previous item");
  if (name == "nextitem")
    return loop.index + 1 < n ? loop.items[static_cast<size_t>(loop.index + 1)] : runtime.undefined("there is no next item");
  return Value();
}

/// A method or another attribute that Python's getattr would find.
bool python_attribute(Runtime& runtime, const Value& value, const std::string& name, Value& out) {
  if (Namespace* space = value.name_space()) {
    for (const auto& [key, v] : space->items) {
      if (key != name) continue;
      out = v;
      return true;
    }
    return false;
  }
  if (value.loop()) {
    out = loop_attribute(runtime, value, name);
    if (!out.is_undefined() || name == "previtem" || name == "nextitem") return true;
  }
  const Native* method = find_method(value, name);
  if (!method) return false;
  runtime.budget.spend(8);
  out = Value(std::make_shared<const Function>(Function{name, method, value, nullptr, 0, 0}));
  return true;
}

bool python_item(Runtime& runtime, const Value& value, const Value& key, Value& out) {
  if (const Dict* d = value.dict()) {
    const Value* found = key.text() ? find(runtime, *d, std::string_view(*key.text())) : find(runtime, *d, key);
    if (found) out = *found;
    return found != nullptr;
  }
  int64_t i = 0;
  if (!key.as_integer(i) || !(value.list() || value.text())) return false;
  if (const List* l = value.list()) {
    const auto n = static_cast<int64_t>(l->items.size());
    if (i < -n || i >= n) return false;
    out = l->items[static_cast<size_t>(i < 0 ? i + n : i)];
    return true;
  }
  const std::string& s = *value.text();
  runtime.budget.spend(static_cast<int64_t>(s.size()));
  const auto n = count_characters(s);
  if (i < -n || i >= n) return false;
  size_t at = 0;
  for (int64_t skip = i < 0 ? i + n : i; skip > 0; --skip) at += code_point_at(s, at).bytes;
  out = runtime.text(s.substr(at, code_point_at(s, at).bytes));
  return true;
}

}  // namespace

Value attribute(Runtime& runtime, const Value& value, const std::string& name) {
  runtime.require_defined(value);
  Value out;
  if (python_attribute(runtime, value, name, out)) return out;
  if (const Dict* d = value.dict()) {
    if (const Value* found = find(runtime, *d, std::string_view(name))) return *found;
  }
  return runtime.undefined("'", type_name(value), "' has no attribute '", name, "'");
}

Value item(Runtime& runtime, const Value& value, const Value& key) {
  runtime.require_defined(value);
  Value out;
  if (python_item(runtime, value, key, out)) return out;
  if (key.text() && python_attribute(runtime, value, *key.text(), out)) return out;
  return runtime.undefined("'", type_name(value), "' has no element ", to_repr(runtime, key).substr(0, 80));
}

namespace {

/// What Python's slice selects from `n` items: from `first` in steps of `by` until `last`, which is not part of it.
struct Range {
  int64_t first = 0, last = 0, by = 1;
  template <typename Visit>
  void each(Visit&& visit) const {
    for (int64_t i = first; by > 0 ? i < last : i > last;) {
      visit(static_cast<size_t>(i));
      if (__builtin_add_overflow(i, by, &i)) break;
    }
  }
};
Range slice_range(Runtime& runtime, int64_t n, const Value& start, const Value& stop, const Value& step) {
  const auto part = [&](const Value& value, int64_t fallback) {
    if (value.is_none()) return fallback;
    int64_t i = 0;
    if (!value.as_integer(i)) runtime.fail("slice indices must be integers or None, not ", type_name(value));
    return i;
  };
  const int64_t by = part(step, 1);
  if (by == 0) runtime.fail("slice step cannot be zero");
  const auto clamp = [&](int64_t i) {
    if (i < 0) i = i < -n ? -1 : i + n;
    return by > 0 ? std::clamp<int64_t>(i, 0, n) : std::clamp<int64_t>(i, -1, n - 1);
  };
  const int64_t first = start.is_none() ? (by > 0 ? 0 : n - 1) : clamp(part(start, 0));
  const int64_t last = stop.is_none() ? (by > 0 ? n : -1) : clamp(part(stop, 0));
  return {first, last, by};
}

}  // namespace

Value slice(Runtime& runtime, const Value& value, const Value& start, const Value& stop, const Value& step) {
  runtime.require_defined(value);
  if (const List* l = value.list()) {
    std::vector<Value> items;
    slice_range(runtime, static_cast<int64_t>(l->items.size()), start, stop, step).each([&](size_t i) { items.push_back(l->items[i]); });
    return runtime.list(std::move(items), l->is_tuple);
  }
  const std::string* s = value.text();
  if (!s) return runtime.undefined("'", type_name(value), "' cannot be sliced");
  runtime.budget.spend(static_cast<int64_t>(4 * s->size()));
  const int64_t n = count_characters(*s);
  const Range range = slice_range(runtime, n, start, stop, step);
  std::string out;
  if (range.by == 1) {  // The usual one needs no table of offsets.
    size_t at = 0;
    int64_t i = 0;
    for (; i < range.first; ++i) at += code_point_at(*s, at).bytes;
    const size_t begin = at;
    for (; i < range.last; ++i) at += code_point_at(*s, at).bytes;
    return runtime.text(s->substr(begin, at - begin));
  }
  const Charge table(runtime.budget, (n + 1) * static_cast<int64_t>(sizeof(size_t)));
  const std::vector<size_t> offsets = character_offsets(*s);
  range.each([&](size_t i) { out.append(*s, offsets[i], offsets[i + 1] - offsets[i]); });
  return runtime.text(std::move(out));
}

std::vector<Value> iterate(Runtime& runtime, const Value& value) {
  if (value.is_undefined()) return {};
  if (const List* l = value.list()) {
    runtime.budget.spend(static_cast<int64_t>(4 * l->items.size()));
    return l->items;
  }
  if (value.loop()) return value.loop()->items;
  std::vector<Value> items;
  if (const Dict* d = value.dict()) {
    runtime.budget.spend(static_cast<int64_t>(d->items.size()));
    for (const auto& item : d->items) items.push_back(item.first);
    return items;
  }
  const std::string* s = value.text();
  if (!s) runtime.fail("'", type_name(value), "' is not iterable");
  for (size_t at = 0; at < s->size();) {
    const size_t n = code_point_at(*s, at).bytes;
    runtime.budget.spend(4);
    items.push_back(runtime.text(s->substr(at, n)));
    at += n;
  }
  return items;
}

int64_t length(Runtime& runtime, const Value& value) {
  if (value.is_undefined()) return 0;
  if (const List* l = value.list()) return static_cast<int64_t>(l->items.size());
  if (const Dict* d = value.dict()) return static_cast<int64_t>(d->items.size());
  if (value.loop()) return static_cast<int64_t>(value.loop()->items.size());
  if (!value.text()) return -1;
  runtime.budget.spend(static_cast<int64_t>(value.text()->size()));
  return count_characters(*value.text());
}

void bind(Runtime& runtime, const Native& native, Arguments& args) {
  if (native.parameters == "*") return;
  size_t n = 0;
  std::vector<Arguments::Slot>& slots = args.positional;
  const size_t given = slots.size();
  size_t used = 0;
  for (std::string_view rest = native.parameters; !rest.empty(); ++n) {
    const size_t end = std::min(rest.find(' '), rest.size());
    std::string_view name = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const bool required = name.ends_with('!');
    if (required) name.remove_suffix(1);
    const auto found = std::find_if(args.named.begin(), args.named.end(), [&](const auto& item) { return item.first == name; });
    if (found != args.named.end()) {
      if (n < given) runtime.fail(native.name, "() got two values for '", name, "'");
      slots.resize(std::max(slots.size(), n + 1));
      slots[n] = {found->second, true};
      ++used;
    } else if (required && n >= given) {
      runtime.fail(native.name, "() needs the argument '", name, "'");
    }
  }
  if (given > n) runtime.fail(native.name, "() takes ", n, " arguments, met ", given);
  if (used < args.named.size()) runtime.fail(native.name, "() does not know the argument '", args.named.back().first, "'");
}

Value call_native(Runtime& runtime, const Native& native, const Value& self, Arguments args) {
  bind(runtime, native, args);
  return native.body(runtime, self, args);
}

}  // namespace minillm::jinja
