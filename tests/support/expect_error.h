// expect_error.h - a call must be refused with an Error of one code whose message says the right thing.
#pragma once

#include <gtest/gtest.h>

#include <exception>
#include <string>
#include <string_view>

#include "minillm/error.h"

namespace minillm::test {

/// Fails the test unless f() throws Error{code} with `part` in its message, and the message holds printable ASCII only (a hostile
/// name must not reach a terminal as it is). Returns the message.
template <typename F>
std::string expect_error(ErrorCode code, std::string_view part, F&& f) {
  try {
    f();
    ADD_FAILURE() << "no error; expected one with '" << part << "'";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << message;
    EXPECT_NE(message.find(part), std::string::npos) << "'" << message << "' should hold '" << part << "'";
    for (const char c : message) EXPECT_TRUE(c >= 0x20 && c < 0x7F) << "byte " << static_cast<int>(c) << " in '" << message << "'";
    return message;
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another exception than Error: " << error.what();
  }
  return "";
}

}  // namespace minillm::test
