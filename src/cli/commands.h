// commands.h - the subcommands. Each add_X declares its flags on `app` and returns what to run once they are parsed; that
// returns the exit code. Only main catches: Error is exit code 1, UsageError and CLI11's own errors are 2.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <stdexcept>
#include <string>

namespace minillm::cli {

using Run = std::function<int()>;

Run add_analyze(CLI::App& app);
Run add_bench(CLI::App& app);
Run add_chat(CLI::App& app);
Run add_generate(CLI::App& app);
Run add_inspect(CLI::App& app);
Run add_pull(CLI::App& app);
Run add_score(CLI::App& app);
Run add_tokenize(CLI::App& app);

/// Flags that contradict each other or miss something, found after parsing.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

constexpr int kExitDone = 0, kExitFailed = 1, kExitUsage = 2, kExitInterrupted = 130, kExitBrokenPipe = 141;

}  // namespace minillm::cli
