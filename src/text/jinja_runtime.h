// jinja_runtime.h - what every operation of a rendering needs: its allowance of work and memory, ways to make values, and failing.
// Limits:  50 million steps (one is up to 10 ns of work: a node or a comparison costs 8, a list item 4, 16 bytes copied 1), 32 MiB of
//          live values, 16 MiB for one text, a depth of 64 for values.
#pragma once

#include <deque>

#include "minillm/error.h"
#include "text/jinja_value.h"

namespace minillm::jinja {

inline constexpr int64_t kMaxSteps = 50'000'000;
inline constexpr int64_t kMaxLiveBytes = int64_t{32} << 20;
inline constexpr int64_t kMaxText = int64_t{16} << 20;
inline constexpr int64_t kMaxRange = 100'000;
inline constexpr int kMaxDepth = 64;

class Budget {
 public:
  void spend(int64_t steps) {
    if ((steps_left_ -= steps) < 0) [[unlikely]]
      out_of_steps();
  }
  void reserve(int64_t bytes) {
    if ((live_ += bytes) > kMaxLiveBytes) [[unlikely]]
      out_of_memory();
  }
  void release(int64_t bytes) noexcept { live_ -= bytes; }

 private:
  [[noreturn]] void out_of_steps();
  [[noreturn]] void out_of_memory();
  int64_t steps_left_ = kMaxSteps, live_ = 0;
};

class Runtime {
 public:
  Budget budget;
  int line = 0;  ///< Of the construct at work, for messages.

  Value text(std::string bytes);
  /// Throws Error{kCapacity} where items are nested more than 64 deep.
  Value list(std::vector<Value> items, bool is_tuple = false);
  /// Later items replace earlier ones with an equal key. Throws Error{kInvalidArgument} for a key that is a container.
  Value dict(std::vector<std::pair<Value, Value>> items);
  /// The rendering owns it: values only point to it.
  Value name_space(std::vector<std::pair<std::string, Value>> items);
  template <typename... Parts>
  Value undefined(const Parts&... parts) {
    return Value(Undefined{std::make_shared<const std::string>(Error(ErrorCode::kInvalidArgument, parts...).what())});
  }

  /// Throws Error{kCapacity} if `bytes` are too many for one text; call before making one that grows with its input.
  void expect(int64_t bytes);
  template <typename... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    throw Error(ErrorCode::kInvalidArgument, "chat template, line ", line, ": ", parts...);
  }
  /// Fails with the reason why `value` is undefined, if it is.
  void require_defined(const Value& value) const;

 private:
  std::deque<Namespace> namespaces_;
};

/// "str", "int", "NoneType", ...: Python's names.
std::string_view type_name(const Value& value) noexcept;

// Python's str(), repr() and json.dumps(). All throw Error{kCapacity} past 16 MiB.
std::string to_text(Runtime& runtime, const Value& value);
std::string to_repr(Runtime& runtime, const Value& value);
struct JsonStyle {
  bool ensure_ascii = false, sort_keys = false, pretty = false;
  std::string indent, item_separator = ", ", key_separator = ": ";
};
std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style);
std::string real_repr(double value);
/// Values from JSON text; `what` names it in errors. Numbers above 64 bits become floats. Throws Error{kInvalidArgument}.
Value from_json(Runtime& runtime, std::string_view json, std::string_view what);

// Operators.
bool equal(Runtime& runtime, const Value& a, const Value& b);
/// Negative, zero or positive; fails where Python has no order.
int compare(Runtime& runtime, const Value& a, const Value& b);
bool contains(Runtime& runtime, const Value& container, const Value& item);
/// `op` is one of + - * / // % ** ~.
Value arithmetic(Runtime& runtime, std::string_view op, const Value& a, const Value& b);
Value negate(Runtime& runtime, const Value& value);
/// Python's "format % arguments". `args` are the tuple's items.
std::string format_percent(Runtime& runtime, const std::string& format, const std::vector<Value>& args);

// Access.
const Value* find(Runtime& runtime, const Dict& dict, const Value& key);
const Value* find(Runtime& runtime, const Dict& dict, std::string_view key);
/// a.name and a[key] of jinja2: attribute or item, whichever comes first there; undefined if there is neither.
Value attribute(Runtime& runtime, const Value& value, const std::string& name);
Value item(Runtime& runtime, const Value& value, const Value& key);
Value slice(Runtime& runtime, const Value& value, const Value& start, const Value& stop, const Value& step);
/// What a loop over `value` visits: items, keys of a dict, characters. Fails for what cannot be iterated.
std::vector<Value> iterate(Runtime& runtime, const Value& value);
/// Length in items or characters, or -1 where there is none.
int64_t length(Runtime& runtime, const Value& value);

/// Named arguments move to the places that `native` names; fails for too many, unknown or missing ones.
void bind(Runtime& runtime, const Native& native, Arguments& args);
Value call_native(Runtime& runtime, const Native& native, const Value& self, Arguments args);

// Tables; null if there is none of that name.
const Native* find_filter(std::string_view name);
const Native* find_test(std::string_view name);
const Native* find_global(std::string_view name);
const Native* find_method(const Value& self, std::string_view name);

}  // namespace minillm::jinja
