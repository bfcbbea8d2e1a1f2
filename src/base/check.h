// check.h - invariants of ours, on in every build. Bad input is never a CHECK: it throws Error with a fitting code.
#pragma once

#include "minillm/error.h"

/// Throws Error{kInternal} with file, line, the condition and the message parts.
#define MINILLM_CHECK(cond, ...)                                                                                      \
  do {                                                                                                                \
    if (!(cond)) [[unlikely]]                                                                                         \
      throw ::minillm::Error(::minillm::ErrorCode::kInternal, __FILE__, ":", __LINE__, ": " #cond ": ", __VA_ARGS__); \
  } while (0)
