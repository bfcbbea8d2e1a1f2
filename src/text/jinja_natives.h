// jinja_natives.h - small tools for writing filters, tests, methods and globals.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "text/jinja_runtime.h"
#include "text/jinja_text.h"

namespace minillm::jinja {

/// Argument `i` as text, int, ...; the fallback where it was not given. A wrong type fails, naming `what`.
inline std::string text_argument(Runtime& runtime, const Arguments& args, size_t i, std::string_view fallback, std::string_view what) {
  const Value* value = args.at(i);
  if (!value || value->is_none()) return std::string(fallback);
  if (!value->text()) runtime.fail(what, " must be a str, not ", type_name(*value));
  return *value->text();
}
inline int64_t integer_argument(Runtime& runtime, const Arguments& args, size_t i, int64_t fallback, std::string_view what) {
  const Value* value = args.at(i);
  if (!value || value->is_none()) return fallback;
  int64_t n = 0;
  if (!value->as_integer(n)) runtime.fail(what, " must be an int, not ", type_name(*value));
  return n;
}
inline bool flag_argument(const Arguments& args, size_t i, bool fallback) { return args.at(i) ? args.at(i)->truthy() : fallback; }

inline const Native* find_native(std::span<const Native> table, std::string_view name) {
  const auto found = std::find_if(table.begin(), table.end(), [name](const Native& native) { return native.name == name; });
  return found == table.end() ? nullptr : &*found;
}

/// Text being put together, watched while it grows.
class TextBuilder {
 public:
  explicit TextBuilder(Runtime& runtime) : runtime_(runtime) {}
  TextBuilder& operator+=(std::string_view piece) {
    runtime_.expect(static_cast<int64_t>(text_.size() + piece.size()));
    runtime_.budget.spend(static_cast<int64_t>(piece.size() / 16) + 8);
    text_ += piece;
    return *this;
  }
  void fill(int64_t n, char c) {
    if (n <= 0) return;
    runtime_.expect(n);
    runtime_.expect(static_cast<int64_t>(text_.size()) + n);
    text_.append(static_cast<size_t>(n), c);
  }
  Value value() { return runtime_.text(std::move(text_)); }

 private:
  Runtime& runtime_;
  std::string text_;
};

/// text.replace(old, new[, count]).
Value replace_text(Runtime& runtime, const std::string& text, const std::string& old, const std::string& replacement, int64_t count);
/// str.center, ljust and rjust: how much of the padding stands left.
enum class Align : uint8_t { kLeft, kCenter, kRight };
Value pad_text(Runtime& runtime, const std::string& text, int64_t width, Align align, char fill);
/// value.a.b.0, as filters with attribute= read it.
Value attribute_path(Runtime& runtime, Value value, const Value& path);

}  // namespace minillm::jinja
