// terminal.h - results on stdout, progress and words about the run on stderr, and Ctrl-C.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "minillm/pull.h"

namespace minillm::cli {

/// The reader of our output went away: end quietly.
struct BrokenPipe : std::runtime_error {
  BrokenPipe() : std::runtime_error("broken pipe") {}
};

/// Goes to stdout, at the latest with flush(). Throws BrokenPipe, or Error{kDevice} with the reason (disk full).
void print(std::string_view text);
/// What print() gave is on its way to the reader. Throws as print().
void flush();
/// A line to stderr, for people.
void note(const std::string& line);
/// "error: ..." to stderr, red on a terminal.
void print_error(const std::string& message);

/// True where stderr is a terminal and NO_COLOR is not set.
bool stderr_is_lively();

/// From now on the first Ctrl-C (or SIGTERM) sets a flag that interrupted() reads; a later one ends the program.
void watch_for_interrupts();
bool interrupted() noexcept;
/// True if it was SIGTERM: not "stop what you do", but "end".
bool terminated() noexcept;
/// The interrupt has been dealt with: the next Ctrl-C is a first one again. SIGTERM stays.
void clear_interrupt() noexcept;

/// Progress on stderr: a line that rewrites itself on a terminal, otherwise a line for each tenth.
class Progress {
 public:
  ~Progress();
  /// For pull(): false after Ctrl-C.
  bool operator()(const std::string& what, uint64_t done, uint64_t total);

 private:
  std::string what_;
  int64_t shown_ = -1;
  bool open_line_ = false;
};

/// "1.2 MB": decimal, as speeds and network rates are.
std::string readable_size(uint64_t bytes);

}  // namespace minillm::cli
