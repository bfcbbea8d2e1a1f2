// main.cpp - the minillm command: picks the subcommand and turns what goes wrong into an exit code.
// 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 when the reader of our output went away.
#include <new>
#include <utility>
#include <vector>

#include "commands.h"
#include "minillm/error.h"
#include "terminal.h"

namespace minillm::cli {
namespace {

struct Subcommand {
  const char* name;
  const char* help;
  Run (*add)(CLI::App&);
};

constexpr Subcommand kSubcommands[] = {
    {"generate", "continue a text, or answer a question (--chat)", add_generate},
    {"chat", "talk with a model; what has been said stays computed", add_chat},
    {"score", "how likely the model finds a text, token by token", add_score},
    {"tokenize", "a text's token ids, or the text of ids", add_tokenize},
    {"inspect", "what is in a model file, and the memory it needs", add_inspect},
    {"bench", "speed of prefill and decode, beside what this machine can do", add_bench},
    {"analyze", "memory and speed of attention, the cache and generation on this machine", add_analyze},
    {"pull", "fetch a model into the model folder", add_pull},
};

/// CLI11 would only say that a subcommand is missing.
void check_name(const std::string& name) {
  std::string names;
  for (const Subcommand& subcommand : kSubcommands) {
    if (name == subcommand.name) return;
    names += (names.empty() ? "" : ", ") + std::string(subcommand.name);
  }
  if (name.rfind('-', 0) != 0) throw UsageError("there is no command '" + name + "'; there are " + names);
}

int run_parsed(const std::vector<std::pair<CLI::App*, Run>>& commands) {
  for (const auto& [app, run] : commands) {
    if (!app->parsed()) continue;
    const int exit_code = run();
    flush();
    return interrupted() ? kExitInterrupted : exit_code;
  }
  return kExitUsage;
}

int run(int argc, char** argv) {
  CLI::App app("MiniLLM: a language-model engine around FlashAttention and a paged KV cache.", "minillm");
  app.set_version_flag("--version", std::string("minillm ") + MINILLM_VERSION);
  app.require_subcommand(1);
  app.footer("minillm COMMAND --help shows a command's options.");
  std::vector<std::pair<CLI::App*, Run>> commands;
  for (const Subcommand& subcommand : kSubcommands) {
    CLI::App* sub = app.add_subcommand(subcommand.name, subcommand.help);
    commands.emplace_back(sub, subcommand.add(*sub));
  }
  try {
    if (argc > 1) check_name(argv[1]);
    app.parse(argc, argv);
    return run_parsed(commands);
  } catch (const CLI::ParseError& error) {
    // CLI11 prints --help and --version on stdout and mistakes on stderr; its own codes are above 100.
    return app.exit(error) == 0 ? kExitDone : kExitUsage;
  } catch (const UsageError& error) {
    print_error(error.what());
    note("Run with --help for more information.");
    return kExitUsage;
  }
}

}  // namespace
}  // namespace minillm::cli

int main(int argc, char** argv) {
  using namespace minillm::cli;
  watch_for_interrupts();
  try {
    try {
      return run(argc, argv);
    } catch (const BrokenPipe&) {
      throw;
    } catch (...) {
      flush();  // What was printed before it went wrong.
      throw;
    }
  } catch (const BrokenPipe&) {
    return kExitBrokenPipe;
  } catch (const minillm::Error& error) {
    if (error.code() == minillm::ErrorCode::kCancelled && interrupted()) return kExitInterrupted;
    print_error(error.what());
  } catch (const std::bad_alloc&) {
    print_error("out of memory");
  } catch (const std::exception& error) {
    print_error(std::string("unexpected: ") + error.what());
  }
  return kExitFailed;
}
