// jinja_json.cpp - JSON text to values, event by event: no recursion, nested at most 64 deep.
#include <cmath>
#include <nlohmann/json.hpp>

#include "text/jinja_runtime.h"

namespace minillm::jinja {
namespace {

class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  Builder(Runtime& runtime, std::string_view what) : runtime_(runtime), what_(what) {}
  Value result;

  bool null() override { return add(Value(None{})); }
  bool boolean(bool value) override { return add(Value(value)); }
  bool number_integer(number_integer_t value) override { return add(Value(static_cast<int64_t>(value))); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value <= INT64_MAX) return add(Value(static_cast<int64_t>(value)));
    return add(Value(static_cast<double>(value)));
  }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return add(Value(value)); }
  bool string(string_t& value) override { return add(runtime_.text(std::move(value))); }
  bool binary(binary_t& /*value*/) override { return false; }
  bool start_object(size_t /*n*/) override { return open(false); }
  bool start_array(size_t /*n*/) override { return open(true); }
  bool key(string_t& value) override {
    open_.back().keys.push_back(runtime_.text(std::move(value)));
    return true;
  }
  bool end_array() override {
    std::vector<Value> items = std::move(open_.back().items);
    open_.pop_back();
    return add(runtime_.list(std::move(items)));
  }
  bool end_object() override {
    Level level = std::move(open_.back());
    open_.pop_back();
    std::vector<std::pair<Value, Value>> items;
    for (size_t i = 0; i < level.items.size(); ++i) items.emplace_back(std::move(level.keys[i]), std::move(level.items[i]));
    return add(runtime_.dict(std::move(items)));
  }
  bool parse_error(size_t position, const std::string& /*token*/, const nlohmann::detail::exception& error) override {
    throw Error(ErrorCode::kInvalidArgument, what_, ": not JSON at byte ", position, ": ", error.what());
  }

 private:
  struct Level {
    bool is_array;
    std::vector<Value> keys, items;
  };

  bool open(bool is_array) {
    if (open_.size() >= static_cast<size_t>(kMaxDepth))
      throw Error(ErrorCode::kCapacity, what_, ": JSON nested more than ", kMaxDepth, " deep");
    open_.push_back({is_array, {}, {}});
    return true;
  }
  bool add(Value value) {
    if (open_.empty())
      result = std::move(value);
    else
      open_.back().items.push_back(std::move(value));
    return true;
  }

  Runtime& runtime_;
  std::string_view what_;
  std::vector<Level> open_;
};

}  // namespace

Value from_json(Runtime& runtime, std::string_view json, std::string_view what) {
  Builder builder(runtime, what);
  nlohmann::json::sax_parse(json.begin(), json.end(), &builder);
  return builder.result;
}

}  // namespace minillm::jinja
