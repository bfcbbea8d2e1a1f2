// json_text.h - JSON as one line. Keys keep the order they were written in; bytes that are not UTF-8 become U+FFFD.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace minillm::cli {

using Json = nlohmann::ordered_json;

inline std::string json_line(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

}  // namespace minillm::cli
