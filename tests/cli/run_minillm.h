// run_minillm.h - runs the built program as a user would, and a tiny model for it.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <stdexcept>
#include <string>
#include <vector>

#include "io/mapped_file.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

extern char** environ;  // NOLINT: POSIX names it so.

namespace minillm::test {

struct ProgramResult {
  int exit_code = 0;  ///< -N where signal N ended it.
  std::string out, err;
};

/// What becomes of its standard output.
enum class Reader : uint8_t {
  kReadsAll,
  kInterrupts,  ///< Sends SIGINT after the first bytes, then reads on.
  kIsGone,      ///< Closed before the program starts.
};

/// Runs `minillm` with `arguments`; `out_path` takes standard output where it is given ("/dev/full"), `in_path` gives standard input.
inline ProgramResult run_minillm(const std::vector<std::string>& arguments, Reader reader = Reader::kReadsAll,
                                 const std::string& out_path = "", const std::string& in_path = "/dev/null") {
  const TempFolder folder;
  const std::string err_path = folder.write("err", "");
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, in_path.c_str(), O_RDONLY, 0);
  if (out_path.empty())
    posix_spawn_file_actions_adddup2(&actions, pipe[1], 1);
  else
    posix_spawn_file_actions_addopen(&actions, 1, out_path.c_str(), O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 2, err_path.c_str(), O_WRONLY, 0);
  std::vector<std::string> words{MINILLM_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  if (reader == Reader::kIsGone) ::close(pipe[0]);
  pid_t pid = 0;
  const int error = ::posix_spawn(&pid, MINILLM_PROGRAM, &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(pipe[1]);
  if (error != 0) throw std::runtime_error("cannot run " MINILLM_PROGRAM);
  ProgramResult result;
  if (reader != Reader::kIsGone) {
    std::array<char, 4096> buffer{};
    for (ssize_t n; (n = ::read(pipe[0], buffer.data(), buffer.size())) != 0;) {
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) break;
      if (result.out.empty() && reader == Reader::kInterrupts) ::kill(pid, SIGINT);
      result.out.append(buffer.data(), static_cast<size_t>(n));
    }
    ::close(pipe[0]);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  result.err = read_text_file(err_path, 1 << 20);
  return result;
}

/// A llama of random weights whose 96 tokens are the printable characters of ASCII and "<end>". It babbles.
inline TinyModel babbler() {
  TinyModel model = tiny_model("llama");
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  for (char c = ' '; c <= '~'; ++c) {
    tokens.push_back(c == ' ' ? "\xC4\xA0" : std::string(1, c));  // GPT-2 writes a space as U+0120.
    types.push_back(1);
  }
  tokens.push_back("<end>");
  types.push_back(3);
  model.keys.set("tokenizer.ggml.model", std::string("gpt2"));
  model.keys.set("tokenizer.ggml.pre", std::string("gpt-2"));
  model.keys.set("tokenizer.ggml.tokens", tokens);
  model.keys.set("tokenizer.ggml.token_type", types);
  model.keys.set("tokenizer.ggml.merges", std::vector<std::string>{});
  model.keys.set("tokenizer.ggml.eos_token_id", uint32_t{95});
  model.keys.set("tokenizer.chat_template", std::string("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}:"));
  return model;
}

inline std::string write_babbler(const TempFolder& folder) { return folder.write("babbler.gguf", babbler().writer().image().bytes); }

}  // namespace minillm::test
