// terminal.cpp - see terminal.h.
#include "terminal.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <system_error>
#include <utility>

#include "minillm/error.h"

namespace minillm::cli {
namespace {

std::atomic<bool> interrupt_seen{false}, termination_seen{false};
std::atomic<time_t> first_interrupt{0};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<time_t>::is_always_lock_free, "a signal handler may touch them");

/// The first asks to stop; one that comes a second or more later means it. (Some senders signal both us and our group at once.)
extern "C" void on_interrupt(int signal) {
  if (signal == SIGTERM) termination_seen.store(true);
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  if (!interrupt_seen.exchange(true))
    first_interrupt.store(now.tv_sec);
  else if (now.tv_sec - first_interrupt.load() >= 2)
    ::_exit(128 + SIGINT);
}

constexpr size_t kMostPending = 1 << 16;

/// What print() was given and flush() has not written. Not stdio's buffer: that drops its bytes when Ctrl-C interrupts a write.
std::string& pending() {
  static std::string bytes;
  return bytes;
}

}  // namespace

void print(std::string_view text) {
  pending() += text;
  if (pending().size() >= kMostPending) flush();
}

void flush() {
  const std::string bytes = std::exchange(pending(), {});
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t n = ::write(STDOUT_FILENO, bytes.data() + done, bytes.size() - done);
    if (n >= 0) {
      done += static_cast<size_t>(n);
    } else if (errno == EPIPE) {
      throw BrokenPipe();
    } else if (errno != EINTR) {
      throw Error(ErrorCode::kDevice, "cannot write to standard output: ", std::generic_category().message(errno));
    }
  }
}

void note(const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); }

bool stderr_is_lively() {
  const char* no_color = std::getenv("NO_COLOR");
  return ::isatty(STDERR_FILENO) != 0 && (no_color == nullptr || *no_color == '\0');
}

void print_error(const std::string& message) {
  const bool lively = stderr_is_lively();
  std::fprintf(stderr, "%serror:%s %s\n", lively ? "\033[31m" : "", lively ? "\033[0m" : "", message.c_str());
}

void watch_for_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);  // A lost reader is an error of a write, here and in downloads.
}

bool interrupted() noexcept { return interrupt_seen.load(); }
bool terminated() noexcept { return termination_seen.load(); }
void clear_interrupt() noexcept {
  if (!terminated()) interrupt_seen.store(false);
}

std::string readable_size(uint64_t bytes) {
  std::array<char, 32> text{};
  if (bytes < 1'000'000)
    std::snprintf(text.data(), text.size(), "%.1f kB", static_cast<double>(bytes) / 1e3);
  else if (bytes < 1'000'000'000)
    std::snprintf(text.data(), text.size(), "%.1f MB", static_cast<double>(bytes) / 1e6);
  else
    std::snprintf(text.data(), text.size(), "%.2f GB", static_cast<double>(bytes) / 1e9);
  return text.data();
}

Progress::~Progress() {
  if (open_line_) std::fputc('\n', stderr);
}

bool Progress::operator()(const std::string& what, uint64_t done, uint64_t total) {
  const bool lively = stderr_is_lively();
  if (what != what_) {
    if (open_line_) std::fputc('\n', stderr);
    what_ = what;
    shown_ = -1;
    open_line_ = false;
    if (!lively) note(what + (total > 0 ? " (" + readable_size(total) + ")" : ""));
  }
  const double share = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 0;
  if (lively) {
    constexpr int kWidth = 30;
    const int filled = static_cast<int>(share * kWidth);
    const std::string bar = std::string(static_cast<size_t>(filled), '#') + std::string(static_cast<size_t>(kWidth - filled), '.');
    std::fprintf(stderr, "\r%s [%s] %3.0f%% of %s \033[K", what.c_str(), bar.c_str(), share * 100, readable_size(total).c_str());
    std::fflush(stderr);
    open_line_ = true;
  } else if (const int64_t tenth = static_cast<int64_t>(share * 10); total > 0 && done > 0 && tenth > shown_) {
    std::fprintf(stderr, "  %3lld%%  %s\n", static_cast<long long>(tenth) * 10, readable_size(done).c_str());
    shown_ = tenth;
  }
  return !interrupted();
}

}  // namespace minillm::cli
