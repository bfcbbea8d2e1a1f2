// build_info.h - what a report must say about where it comes from: program, compiler, machine, day.
#pragma once

#include <string>

#include "json_text.h"

namespace minillm::cli {

/// Commit of the sources, "+" behind it where files have changed: cmake/commit.cmake writes it.
extern const char* const commit_text;

/// {"minillm", "commit", "compiler", "date"}: the date in UTC, ISO 8601.
Json build_json();

/// Name of this machine's processor, or "unknown".
std::string processor_name();

/// Bytes of main memory, 0 where that cannot be told.
int64_t main_memory_bytes();

}  // namespace minillm::cli
