// json.cpp - nlohmann-json with the checks that json.h lists.
#include "io/json.h"

#include <unordered_set>
#include <vector>

#include "io/limits.h"
#include "io/printable.h"
#include "minillm/error.h"

namespace minillm {

nlohmann::json parse_json(std::string_view text, const std::string& what) {
  using Event = nlohmann::json::parse_event_t;
  if (const size_t zero = text.find('\0'); zero != std::string_view::npos)
    throw Error(ErrorCode::kCorruptFile, what, ": a zero byte at offset ", zero);
  std::vector<std::unordered_set<std::string>> keys;  // Of the objects that are open.
  const auto check = [&](int depth, Event event, const nlohmann::json& parsed) {
    if (depth > limits::kJsonDepth) throw Error(ErrorCode::kCorruptFile, what, ": nested deeper than ", limits::kJsonDepth, " levels");
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second)
        throw Error(ErrorCode::kCorruptFile, what, ": key ", printable(key), " occurs twice in an object");
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text.begin(), text.end(), check);
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::kCorruptFile, what, ": not JSON: ", printable(error.what()));
  }
}

}  // namespace minillm
