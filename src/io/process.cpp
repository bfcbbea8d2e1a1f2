// process.cpp - posix_spawn, a pipe for the error output, and a group of its own so that it can be ended as a whole.
#include "io/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <system_error>

#include "minillm/error.h"

extern char** environ;  // NOLINT: POSIX names it so.

namespace minillm {
namespace {

constexpr size_t kLastWords = 16 << 10;
constexpr int kTickMs = 200;

struct Pipe {
  std::array<int, 2> ends{-1, -1};
  Pipe() {
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error(ErrorCode::kDevice, "pipe: ", std::generic_category().message(errno));
  }
  ~Pipe() {
    close(0);
    close(1);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close(size_t end) {
    if (ends[end] >= 0) ::close(ends[end]);
    ends[end] = -1;
  }
};

/// The environment with `variables` in place of those of the same name.
std::vector<std::string> environment_with(const std::vector<std::pair<std::string, std::string>>& variables) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    bool replaced = false;
    for (const auto& [name, value] : variables) replaced = replaced || text.compare(0, name.size() + 1, name + "=") == 0;
    if (!replaced) result.push_back(text);
  }
  for (const auto& [name, value] : variables) result.push_back(name + "=" + value);
  return result;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

pid_t spawn(std::vector<std::string> arguments, std::vector<std::string> environment, int error_end) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, error_end, STDERR_FILENO);
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&attributes, 0);
  pid_t pid = 0;
  const int error =
      ::posix_spawnp(&pid, arguments[0].c_str(), &actions, &attributes, pointers(arguments).data(), pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) throw Error(ErrorCode::kNotFound, arguments[0], ": cannot run it: ", std::generic_category().message(error));
  return pid;
}

/// Ends the group of `pid` and waits for its first process, unless that has been done.
struct Child {
  pid_t pid;
  ~Child() {
    if (pid <= 0) return;
    ::kill(-pid, SIGKILL);
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) continue;
  }
};

}  // namespace

ProcessResult run_process(const std::vector<std::string>& arguments, const std::vector<std::pair<std::string, std::string>>& variables,
                          const std::function<bool()>& tick) {
  Pipe pipe;
  Child child{spawn(arguments, environment_with(variables), pipe.ends[1])};
  pipe.close(1);
  ProcessResult result;
  std::array<char, 4096> buffer;
  auto next_tick = std::chrono::steady_clock::now();
  for (;;) {
    if (const auto now = std::chrono::steady_clock::now(); now >= next_tick) {
      if (!tick()) throw Error(ErrorCode::kCancelled, arguments[0], ": cancelled");
      next_tick = now + std::chrono::milliseconds(kTickMs);
    }
    pollfd wait{pipe.ends[0], POLLIN, 0};
    if (::poll(&wait, 1, kTickMs) <= 0) continue;  // Time for a tick, or interrupted.
    const ssize_t n = ::read(pipe.ends[0], buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;  // Every writer is gone.
    result.last_words.append(buffer.data(), static_cast<size_t>(n));
    if (result.last_words.size() > 2 * kLastWords) result.last_words.erase(0, result.last_words.size() - kLastWords);
  }
  int status = 0;
  while (::waitpid(child.pid, &status, 0) < 0)
    if (errno != EINTR) throw Error(ErrorCode::kDevice, arguments[0], ": wait: ", std::generic_category().message(errno));
  child.pid = 0;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace minillm
