// line_reader.h - lines from a person or a pipe. On a terminal libedit edits them (arrows, history, Emacs or vi keys as ~/.editrc says);
// elsewhere they are read as they are. The prompt goes to stderr: stdout holds answers only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace minillm::cli {

class LineReader {
 public:
  enum class Got : uint8_t { kLine, kEnd, kInterrupt };

  explicit LineReader(std::string prompt);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  /// `line` without its line end. kInterrupt after Ctrl-C or SIGTERM.
  Got read(std::string& line);
  bool on_terminal() const noexcept;

 private:
  struct Editor;
  Got read_plain(std::string& line);
  std::string prompt_;
  std::unique_ptr<Editor> editor_;  ///< Null where stdin or stderr is no terminal.
};

}  // namespace minillm::cli
