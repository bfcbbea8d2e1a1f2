// jinja_value.h - what a template computes with: Python's None, bool, int, float, str, list, tuple and dict, jinja2's undefined,
// namespace and loop, and functions.
// Memory:  texts and containers never change once made, so they cannot form cycles; depth is bounded when they are made. A namespace
//          does change, so values only point to it and the rendering owns it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace minillm::jinja {

class Budget;
class Runtime;
class Value;
struct Arguments;
struct Stmt;

/// Bytes that a value holds of a rendering's memory allowance; they are given back with the value.
class Charge {
 public:
  Charge() = default;
  Charge(Budget& budget, int64_t bytes);  ///< Throws Error{kCapacity} past the allowance.
  ~Charge();
  Charge(Charge&& other) noexcept : budget_(std::exchange(other.budget_, nullptr)), bytes_(other.bytes_) {}
  Charge& operator=(Charge&&) = delete;

 private:
  Budget* budget_ = nullptr;
  int64_t bytes_ = 0;
};

struct Text {
  std::string bytes;  ///< UTF-8.
  Charge charge;
};
struct List {
  std::vector<Value> items;
  bool is_tuple = false;
  int depth = 1;  ///< 1 + the deepest item's.
  Charge charge;
};
struct Dict {
  std::vector<std::pair<Value, Value>> items;  ///< In order of insertion; keys are scalars, each once.
  int depth = 1;
  Charge charge;
};
/// jinja2's undefined: prints nothing and is false, but using it otherwise fails with `why`.
struct Undefined {
  std::shared_ptr<const std::string> why;
};
struct None {};

struct Namespace;
struct LoopState;
struct Function;

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>, std::shared_ptr<const List>,
                            std::shared_ptr<const Dict>, Namespace*, std::shared_ptr<LoopState>, std::shared_ptr<const Function>>;
  Value() = default;                            ///< Undefined.
  Value(Data data) : data_(std::move(data)) {}  // NOLINT(google-explicit-constructor): a value is whatever it holds.

  bool is_undefined() const noexcept { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const noexcept { return std::holds_alternative<None>(data_); }
  const bool* boolean() const noexcept { return std::get_if<bool>(&data_); }
  const int64_t* integer() const noexcept { return std::get_if<int64_t>(&data_); }
  const double* real() const noexcept { return std::get_if<double>(&data_); }
  const std::string* text() const noexcept {
    const auto* p = std::get_if<std::shared_ptr<const Text>>(&data_);
    return p ? &(*p)->bytes : nullptr;
  }
  const List* list() const noexcept { return pointee<const List>(); }
  const Dict* dict() const noexcept { return pointee<const Dict>(); }
  LoopState* loop() const noexcept { return pointee<LoopState>(); }
  const Function* function() const noexcept { return pointee<const Function>(); }
  Namespace* name_space() const noexcept {
    Namespace* const* p = std::get_if<Namespace*>(&data_);
    return p ? *p : nullptr;
  }
  bool is_number() const noexcept { return boolean() || integer() || real(); }
  /// bool and int as int, the way Python computes with them.
  bool as_integer(int64_t& out) const noexcept;
  double as_double() const noexcept;  ///< Of a number.
  int depth() const noexcept;
  bool truthy() const noexcept;
  const Data& data() const noexcept { return data_; }

 private:
  template <typename T>
  T* pointee() const noexcept {
    const auto* p = std::get_if<std::shared_ptr<T>>(&data_);
    return p ? p->get() : nullptr;
  }
  Data data_;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> items;
};

/// The variable `loop`.
struct LoopState {
  std::vector<Value> items;
  int64_t index = 0;  ///< From 0.
  int64_t depth = 1;
  const Stmt* statement = nullptr;  ///< Of a recursive loop; otherwise null.
  std::vector<Value> last_changed;
  bool has_changed = false;
  Charge charge;
};

/// What a call passes: `positional` may have holes where an argument was not given.
struct Arguments {
  struct Slot {
    Value value;
    bool given = false;
  };
  std::vector<Slot> positional;
  std::vector<std::pair<std::string, Value>> named;

  void push(Value value) { positional.push_back({std::move(value), true}); }
  /// Argument `i`, or null if it was not given.
  const Value* at(size_t i) const noexcept { return i < positional.size() && positional[i].given ? &positional[i].value : nullptr; }
};

/// A function written in C++: a filter, a method or a global. `self` is what stands before the dot or the bar.
struct Native {
  std::string_view name;
  std::string_view parameters;  ///< Names in order, one space between; "*" takes whatever comes. A '!' after a name: required.
  Value (*body)(Runtime& runtime, const Value& self, const Arguments& args) = nullptr;
};

/// Something that can be called: a native, bound to `self`, or a macro (or the body of a call block) with the scope it was made in.
struct Function {
  std::string name;
  const Native* native = nullptr;
  Value self;
  const Stmt* macro = nullptr;
  size_t frame = 0;       ///< Scope of definition: its index,
  uint64_t frame_id = 0;  ///< and its number, which tells whether it is still there.
};

}  // namespace minillm::jinja
