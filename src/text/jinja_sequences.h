// jinja_sequences.h - the filters on lists and dicts.
#pragma once

#include <string_view>

#include "text/jinja_value.h"

namespace minillm::jinja {

const Native* find_sequence_filter(std::string_view name);

}  // namespace minillm::jinja
