// models.h - real models in tests: the path of one that has been pulled, or a skip that says how to get it.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "minillm/error.h"
#include "minillm/pull.h"

namespace minillm::test {

/// Path of a pulled model ("smollm2", "gemma3-270m"), or empty.
inline std::string pulled_model(const std::string& name) {
  try {
    return resolve_model(name);
  } catch (const Error&) {
    return "";
  }
}

}  // namespace minillm::test

/// Declares `path`, or skips the test where the model has not been pulled.
#define MINILLM_NEEDS_MODEL(path, name)                         \
  const std::string path = ::minillm::test::pulled_model(name); \
  if (path.empty()) GTEST_SKIP() << "needs: minillm pull " << name
