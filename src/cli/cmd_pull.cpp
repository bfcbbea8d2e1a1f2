// cmd_pull.cpp - `minillm pull NAME`: fetches a model and prints where it is.
#include <filesystem>
#include <memory>

#include "commands.h"
#include "json_text.h"
#include "minillm/pull.h"
#include "terminal.h"

namespace minillm::cli {
namespace {

struct PullFlags {
  std::string name = kDefaultModel;
  bool json = false;
};

int run_pull(const PullFlags& flags) {
  std::string path;
  {
    Progress progress;  // Its line ends before the result is printed.
    path = pull(flags.name, [&](const std::string& what, uint64_t done, uint64_t total) { return progress(what, done, total); });
  }
  if (flags.json)
    print(json_line({{"name", flags.name}, {"path", path}}));
  else
    print(path + "\n");
  return kExitDone;
}

}  // namespace

Run add_pull(CLI::App& app) {
  auto flags = std::make_shared<PullFlags>();
  app.add_option("NAME", flags->name, "smollm2, gemma3-270m, or OWNER/REPO[:FILE] of the Hugging Face hub")->capture_default_str();
  app.add_flag("--json", flags->json, "print {\"name\", \"path\"}");
  app.footer("Models are kept in $MINILLM_HOME, else ~/.cache/minillm. HF_ENDPOINT and HF_TOKEN are honoured.");
  return [flags] { return run_pull(*flags); };
}

}  // namespace minillm::cli
