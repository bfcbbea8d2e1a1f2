// process.h - runs another program and waits for it.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace minillm {

struct ProcessResult {
  int exit_code = 0;       ///< 128 + signal where one ended it.
  std::string last_words;  ///< The end of its standard error.
};

/// Runs `arguments` (the program is looked up in PATH) with `variables` added to the environment, nothing on standard input
/// and standard output thrown away. Calls `tick` five times a second; if it returns false the program, with all that it
/// started, is ended, and Error{kCancelled} thrown. Throws Error{kNotFound} if there is no such program.
ProcessResult run_process(const std::vector<std::string>& arguments, const std::vector<std::pair<std::string, std::string>>& variables,
                          const std::function<bool()>& tick);

}  // namespace minillm
