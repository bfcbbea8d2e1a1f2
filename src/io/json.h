// json.h - strict JSON for small files, and typed reads of its objects. What the parser of nlohmann-json lets pass is refused here.
//   Refused beyond its own checks (syntax, UTF-8): a key twice in an object (it keeps the last), a zero byte (it ends the text there),
//   nesting deeper than limits::kJsonDepth.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "minillm/error.h"

namespace minillm {

/// Throws Error{kCorruptFile} naming `what` and the place.
nlohmann::json parse_json(std::string_view text, const std::string& what);

/// An object of a JSON file with typed reads; `where` names file and path in messages. Null fields are absent.
class JsonObject {
 public:
  JsonObject(const nlohmann::json& object, std::string where) : object_(&object), where_(std::move(where)) {
    if (!object.is_object()) throw Error(ErrorCode::kCorruptFile, where_, ": met ", object.type_name(), ", expected an object");
  }

  /// Null if absent.
  const nlohmann::json* find(const char* name) const {
    const auto found = object_->find(name);
    return found == object_->end() || found->is_null() ? nullptr : &*found;
  }
  bool has(const char* name) const { return find(name) != nullptr; }
  std::optional<JsonObject> object(const char* name) const {
    const nlohmann::json* value = find(name);
    if (value == nullptr) return std::nullopt;
    return JsonObject(*value, where_ + ": " + name);
  }

  std::optional<int64_t> integer(const char* name) const {
    const nlohmann::json* value = find(name);
    if (value == nullptr) return std::nullopt;
    return to_integer(*value, name);
  }
  int64_t need_integer(const char* name) const { return need(integer(name), name); }
  std::optional<double> number(const char* name) const {
    const nlohmann::json* value = find(name);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number()) wrong(name, *value, "a number");
    return value->get<double>();  // Finite: the parser refuses what does not fit.
  }
  double need_number(const char* name) const { return need(number(name), name); }
  std::optional<bool> boolean(const char* name) const {
    const nlohmann::json* value = find(name);
    if (value == nullptr) return std::nullopt;
    if (!value->is_boolean()) wrong(name, *value, "a boolean");
    return value->get<bool>();
  }
  std::optional<std::string> text(const char* name) const {
    const nlohmann::json* value = find(name);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) wrong(name, *value, "a string");
    return value->get<std::string>();
  }
  /// One integer or an array of them, as eos_token_id.
  std::vector<int64_t> integers(const char* name) const {
    const nlohmann::json* value = find(name);
    std::vector<int64_t> values;
    if (value == nullptr) return values;
    if (!value->is_array()) return {to_integer(*value, name)};
    for (const nlohmann::json& element : *value) values.push_back(to_integer(element, name));
    return values;
  }

  template <typename T>
  [[noreturn]] void unsupported(const char* name, const T& value, std::string_view expected) const {
    throw Error(ErrorCode::kUnsupported, where_, ": ", name, ": met ", value, ", expected ", expected);
  }
  [[noreturn]] void wrong(const char* name, const nlohmann::json& met, std::string_view expected) const {
    throw Error(ErrorCode::kCorruptFile, where_, ": ", name, ": met ", met.type_name(), ", expected ", expected);
  }
  template <typename... Parts>
  [[noreturn]] void corrupt(const Parts&... parts) const {
    throw Error(ErrorCode::kCorruptFile, where_, ": ", parts...);
  }
  const std::string& where() const noexcept { return where_; }

 private:
  template <typename T>
  T need(std::optional<T> value, const char* name) const {
    if (!value) corrupt(name, " is missing");
    return *value;
  }
  int64_t to_integer(const nlohmann::json& value, const char* name) const {
    if (!value.is_number_integer()) wrong(name, value, "an integer");
    if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) wrong(name, value, "an integer below 2^63");
    return value.get<int64_t>();
  }

  const nlohmann::json* object_;
  std::string where_;
};

}  // namespace minillm
