// jinja_value.cpp - making values within the allowance, and the questions every value answers; see jinja_value.h, jinja_runtime.h.
#include "text/jinja_value.h"

#include <algorithm>

#include "text/jinja_runtime.h"

namespace minillm::jinja {

Charge::Charge(Budget& budget, int64_t bytes) : bytes_(bytes) {
  budget.reserve(bytes);
  budget_ = &budget;
}
Charge::~Charge() {
  if (budget_) budget_->release(bytes_);
}

void Budget::out_of_steps() { throw Error(ErrorCode::kCapacity, "chat template: more than ", kMaxSteps, " steps of work"); }
void Budget::out_of_memory() { throw Error(ErrorCode::kCapacity, "chat template: values of more than ", kMaxLiveBytes, " bytes"); }

bool Value::as_integer(int64_t& out) const noexcept {
  if (const bool* b = boolean())
    out = *b ? 1 : 0;
  else if (const int64_t* i = integer())
    out = *i;
  else
    return false;
  return true;
}

double Value::as_double() const noexcept {
  int64_t i = 0;
  if (as_integer(i)) return static_cast<double>(i);
  return real() ? *real() : 0.0;
}

int Value::depth() const noexcept {
  if (const List* l = list()) return l->depth;
  if (const Dict* d = dict()) return d->depth;
  return 0;
}

bool Value::truthy() const noexcept {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return as_double() != 0.0;
  if (const std::string* s = text()) return !s->empty();
  if (const List* l = list()) return !l->items.empty();
  if (const Dict* d = dict()) return !d->items.empty();
  return true;
}

Value Runtime::text(std::string bytes) {
  const auto n = static_cast<int64_t>(bytes.size());
  expect(n);
  budget.spend(n / 16 + 8);
  auto text = std::make_shared<Text>(Text{std::move(bytes), Charge(budget, n + 64)});
  return Value(std::shared_ptr<const Text>(std::move(text)));
}

void Runtime::expect(int64_t bytes) {
  if (bytes > kMaxText)
    throw Error(ErrorCode::kCapacity, "chat template, line ", line, ": a text of ", bytes, " bytes, at most ", kMaxText);
}

namespace {
void check_depth(const Runtime& runtime, int depth) {
  if (depth > kMaxDepth)
    throw Error(ErrorCode::kCapacity, "chat template, line ", runtime.line, ": values nested more than ", kMaxDepth, " deep");
}
}  // namespace

Value Runtime::list(std::vector<Value> items, bool is_tuple) {
  const auto n = static_cast<int64_t>(items.size());
  budget.spend(4 * n + 8);
  int depth = 1;
  for (const Value& v : items) depth = std::max(depth, 1 + v.depth());
  check_depth(*this, depth);
  auto list = std::make_shared<List>(List{std::move(items), is_tuple, depth, Charge(budget, n * static_cast<int64_t>(sizeof(Value)) + 64)});
  return Value(std::shared_ptr<const List>(std::move(list)));
}

Value Runtime::dict(std::vector<std::pair<Value, Value>> items) {
  std::vector<std::pair<Value, Value>> unique;
  unique.reserve(items.size());
  int depth = 1;
  for (auto& [key, value] : items) {
    if (key.list() || key.dict() || key.name_space()) fail("a ", type_name(key), " cannot be the key of a dict");
    depth = std::max(depth, 1 + value.depth());
    const auto same =
        std::find_if(unique.begin(), unique.end(), [&, &wanted = key](const auto& other) { return equal(*this, other.first, wanted); });
    if (same != unique.end())
      same->second = std::move(value);
    else
      unique.emplace_back(std::move(key), std::move(value));
  }
  check_depth(*this, depth);
  const auto n = static_cast<int64_t>(unique.size());
  budget.spend(4 * n + 8);
  auto dict = std::make_shared<Dict>(Dict{std::move(unique), depth, Charge(budget, n * static_cast<int64_t>(2 * sizeof(Value)) + 64)});
  return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

Value Runtime::name_space(std::vector<std::pair<std::string, Value>> items) {
  budget.reserve(128);  // Kept to the end of the rendering.
  for (const auto& [name, value] : items)
    if (name.starts_with('_')) fail("a namespace cannot hold '", name, "': names that start with an underscore are refused");
  namespaces_.push_back({std::move(items)});
  return Value(&namespaces_.back());
}

void Runtime::require_defined(const Value& value) const {
  if (const auto* undefined = std::get_if<Undefined>(&value.data()))
    fail(undefined->why ? *undefined->why : std::string("an undefined value is used"));
}

std::string_view type_name(const Value& value) noexcept {
  if (value.is_undefined()) return "Undefined";
  if (value.is_none()) return "NoneType";
  if (value.boolean()) return "bool";
  if (value.integer()) return "int";
  if (value.real()) return "float";
  if (value.text()) return "str";
  if (const List* l = value.list()) return l->is_tuple ? "tuple" : "list";
  if (value.dict()) return "dict";
  if (value.name_space()) return "Namespace";
  if (value.loop()) return "LoopContext";
  return "function";
}

}  // namespace minillm::jinja
