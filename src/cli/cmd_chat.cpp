// cmd_chat.cpp - `minillm chat`: a talk in the terminal. Each turn computes only what is new; answers stream; Ctrl-C stops an answer
// and keeps the talk. Lines that begin with / are commands. From a pipe the same, one message a line, answers on stdout.
#include <cstdio>
#include <memory>

#include "chat_session.h"
#include "commands.h"
#include "line_reader.h"
#include "minillm/error.h"
#include "model_flags.h"
#include "terminal.h"

namespace minillm::cli {
namespace {

constexpr const char* kHelp =
    "/help        this list\n"
    "/reset       forget the talk and begin anew\n"
    "/save FILE   write the talk and its cache to a file\n"
    "/load FILE   go on with a saved talk\n"
    "/stats       tokens, memory and speed\n"
    "/quit        leave (as Ctrl-D does)\n"
    "Ctrl-C stops an answer and keeps what has been said. A message that begins with / is written with two: //.";

struct ChatFlags {
  ModelFlags model;
  GenerationOptions options;
  std::string system, load;
};

class Chat {
 public:
  Chat(ChatSession& session, const MiniLLM& model) : session_(session), model_(model), lines_("> ") {}

  int run() {
    if (lines_.on_terminal())
      note("Context " + std::to_string(model_.config().context_length) + " tokens, " + model_.device_description() +
           ". /help lists the commands, Ctrl-D leaves.");
    std::string line;
    while (!leave_) {
      switch (lines_.read(line)) {
        case LineReader::Got::kEnd:
          if (lines_.on_terminal()) std::fputc('\n', stderr);
          return kExitDone;
        case LineReader::Got::kInterrupt:
          if (terminated() || !lines_.on_terminal()) return kExitInterrupted;
          clear_interrupt();
          note("(Ctrl-D leaves)");
          break;
        case LineReader::Got::kLine:
          if (!line.empty()) answer_or_refuse(line);
          break;
      }
      if (terminated()) return kExitInterrupted;
    }
    return kExitDone;
  }

 private:
  /// A mistake ends one command or message, not the talk.
  void answer_or_refuse(const std::string& line) {
    try {
      if (line[0] == '/' && line.rfind("//", 0) != 0)
        command(line);
      else
        say(line[0] == '/' ? line.substr(1) : line);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kCapacity)
        print_error(std::string(error.what()) + ". The message was not added. /reset begins anew; --ctx sets another limit.");
      else
        print_error(error.what());
    }
  }

  void say(const std::string& message) {
    bool ends_line = true;
    const FinishReason reason = session_.say(message, [&](const std::string& text) {
      if (!text.empty()) {
        print(text);
        flush();
        ends_line = text.back() == '\n';
      }
      return !interrupted();
    });
    if (!ends_line) print("\n");
    flush();
    if (reason == FinishReason::kCancelled) {
      clear_interrupt();
      note("(stopped)");
    } else if (reason == FinishReason::kLength) {
      note(context_is_full() ? "(the context of " + std::to_string(model_.config().context_length) +
                                   " tokens is full: the answer ends here. /reset begins anew; --ctx sets another limit)"
                             : std::string("(the answer reached its longest length: -n sets another)"));
    }
  }

  bool context_is_full() const { return session_.n_tokens() >= model_.config().context_length; }

  void command(const std::string& line) {
    const size_t space = std::min(line.find(' '), line.size()), rest = line.find_first_not_of(' ', space);
    const std::string name = line.substr(0, space), argument = rest == std::string::npos ? "" : line.substr(rest);
    const bool wants_file = name == "/save" || name == "/load";
    if (wants_file && argument.empty()) throw Error(ErrorCode::kInvalidArgument, name, ": expected a file name");
    if (name == "/help") {
      note(kHelp);
    } else if (name == "/reset") {
      session_.reset();
      note("(a new talk)");
    } else if (name == "/save") {
      session_.save(argument);
      note("(saved: " + counts() + ")");
    } else if (name == "/load") {
      session_.load(argument);
      note("(loaded: " + counts() + ")");
    } else if (name == "/stats") {
      stats();
    } else if (name == "/quit" || name == "/exit") {
      leave_ = true;
    } else {
      throw Error(ErrorCode::kInvalidArgument, "there is no command ", name, ": /help lists them");
    }
  }

  std::string counts() const {
    return std::to_string(session_.messages().size()) + " messages, " + std::to_string(session_.n_tokens()) + " tokens";
  }

  void stats() const {
    const TurnStats& turn = session_.last_turn();
    char line[240];
    std::snprintf(line, sizeof(line), "%s of %lld; cache %s, weights %s", counts().c_str(),
                  static_cast<long long>(model_.config().context_length),
                  readable_size(static_cast<uint64_t>(session_.cache_bytes())).c_str(),
                  readable_size(static_cast<uint64_t>(model_.weight_bytes())).c_str());
    note(line);
    if (turn.prompt_tokens == 0) return;
    std::snprintf(line, sizeof(line), "last turn: %lld tokens of prompt, %lld of them from the cache; %.1f tokens/s read, %.1f written",
                  static_cast<long long>(turn.prompt_tokens), static_cast<long long>(turn.reused_tokens), turn.timings.prefill_tok_s(),
                  turn.timings.decode_tok_s());
    note(line);
  }

  ChatSession& session_;
  const MiniLLM& model_;
  LineReader lines_;
  bool leave_ = false;
};

int run_chat(const ChatFlags& flags) {
  const std::string path = find_model(flags.model);
  const Tokenizer tokenizer = Tokenizer::load(path);
  MiniLLM model = MiniLLM::load(path, load_options(flags.model));
  const TextGeneratorOptions options{
      .use_flash_attention = !flags.model.no_flash_attention, .flash_block_size = flags.model.flash_block_size, .tokenizer = &tokenizer};
  ChatSession session(model, tokenizer, options, flags.options, flags.system);
  if (!flags.load.empty()) session.load(flags.load);
  return Chat(session, model).run();
}

}  // namespace

Run add_chat(CLI::App& app) {
  auto flags = std::make_shared<ChatFlags>();
  flags->options.max_new_tokens = 1024;
  flags->options.temperature = 0.6f;
  flags->options.top_p = 0.95f;
  app.add_option("--system", flags->system, "what the model is told before the talk");
  app.add_option("--load", flags->load, "go on with a talk that /save wrote");
  add_sampling_flags(app, flags->options);
  add_model_flag(app, flags->model);
  add_device_flags(app, flags->model);
  add_attention_flags(app, flags->model);
  app.footer(std::string("In the talk:\n") + kHelp);
  return [flags] { return run_chat(*flags); };
}

}  // namespace minillm::cli
