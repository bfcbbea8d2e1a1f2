// pty_session.h - the built program in a pseudo-terminal: keys go in as a person would press them, what it shows comes out.
#pragma once

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

namespace minillm::test {

class PtySession {
 public:
  explicit PtySession(const std::vector<std::string>& arguments) {
    std::vector<std::string> words{MINILLM_PROGRAM};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    winsize size{.ws_row = 50, .ws_col = 200, .ws_xpixel = 0, .ws_ypixel = 0};
    pid_ = ::forkpty(&fd_, nullptr, nullptr, &size);
    if (pid_ < 0) throw std::runtime_error("forkpty");
    if (pid_ == 0) {
      ::setenv("TERM", "xterm", 1);
      ::execv(MINILLM_PROGRAM, argv.data());
      ::_exit(127);
    }
  }
  ~PtySession() {
    if (pid_ > 0) ::kill(pid_, SIGKILL), wait();
    ::close(fd_);
  }
  PtySession(const PtySession&) = delete;
  PtySession& operator=(const PtySession&) = delete;

  void press(const std::string& keys) {
    for (size_t done = 0; done < keys.size();) {
      const ssize_t n = ::write(fd_, keys.data() + done, keys.size() - done);
      if (n < 0 && errno != EINTR) throw std::runtime_error("the terminal is gone");
      if (n > 0) done += static_cast<size_t>(n);
    }
  }

  /// What is shown up to and with `words`, from where the last call stopped. Throws with what is shown if they do not come in time.
  std::string until(const std::string& words, int seconds = 20) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    for (;;) {
      const size_t found = shown_.find(words);
      if (found != std::string::npos) {
        std::string part = shown_.substr(0, found + words.size());
        shown_.erase(0, found + words.size());
        return part;
      }
      if (std::chrono::steady_clock::now() > end || !read_some())
        throw std::runtime_error("'" + words + "' is not in: " + shown_.substr(0, 1000));
    }
  }

  /// Waits until at least `n` more bytes are shown, and takes them.
  void skip(size_t n) {
    while (shown_.size() < n && read_some()) continue;
    shown_.clear();
  }

  /// Exit code, or -N where signal N ended it. Reads what is still shown.
  int wait() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (read_some() && std::chrono::steady_clock::now() < end) continue;
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) == 0 && std::chrono::steady_clock::now() >= end) ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) continue;
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  void signal(int number) { ::kill(pid_, number); }

 private:
  /// False at the end of the program's output, or after 20 seconds of silence.
  bool read_some() {
    pollfd waiting{fd_, POLLIN, 0};
    if (::poll(&waiting, 1, 20'000) <= 0) return false;
    std::array<char, 4096> buffer{};
    const ssize_t n = ::read(fd_, buffer.data(), buffer.size());
    if (n <= 0) return n < 0 && errno == EINTR;
    shown_.append(buffer.data(), static_cast<size_t>(n));
    return true;
  }

  int fd_ = -1;
  pid_t pid_ = -1;
  std::string shown_;
};

}  // namespace minillm::test
