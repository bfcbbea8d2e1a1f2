// line_reader.cpp - see line_reader.h.
#include "line_reader.h"

#include <histedit.h>
#include <langinfo.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <system_error>

#include "minillm/error.h"
#include "terminal.h"

namespace minillm::cli {

struct LineReader::Editor {
  explicit Editor(const std::string& prompt_in) : prompt(prompt_in) {
    // Characters of several bytes are edited as one only in a UTF-8 locale.
    if (std::setlocale(LC_CTYPE, "") == nullptr || std::strcmp(::nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
    line = ::el_init("minillm", stdin, stderr, stderr);
    past = ::history_init();
    if (line == nullptr || past == nullptr) throw Error(ErrorCode::kDevice, "cannot edit lines on this terminal");
    HistEvent event;
    ::history(past, &event, H_SETSIZE, 1000);
    ::history(past, &event, H_SETUNIQUE, 1);
    ::el_set(line, EL_CLIENTDATA, this);
    ::el_set(line, EL_PROMPT, &Editor::prompt_of);
    ::el_set(line, EL_EDITOR, "emacs");
    ::el_set(line, EL_HIST, &::history, past);
    ::el_source(line, nullptr);  // The user's ~/.editrc.
  }
  ~Editor() {
    if (line != nullptr) ::el_end(line);
    if (past != nullptr) ::history_end(past);
  }
  Editor(const Editor&) = delete;
  Editor& operator=(const Editor&) = delete;

  static char* prompt_of(EditLine* line) {
    void* self = nullptr;
    ::el_get(line, EL_CLIENTDATA, &self);
    return static_cast<Editor*>(self)->prompt.data();
  }

  std::string prompt;
  EditLine* line = nullptr;
  History* past = nullptr;
};

LineReader::LineReader(std::string prompt) : prompt_(std::move(prompt)) {
  if (::isatty(STDIN_FILENO) != 0 && ::isatty(STDERR_FILENO) != 0) editor_ = std::make_unique<Editor>(prompt_);
}

LineReader::~LineReader() = default;

bool LineReader::on_terminal() const noexcept { return editor_ != nullptr; }

LineReader::Got LineReader::read(std::string& line) {
  if (!editor_) return read_plain(line);
  int n = 0;
  const char* text = ::el_gets(editor_->line, &n);
  if (interrupted()) {
    ::el_reset(editor_->line);
    std::fputc('\n', stderr);
    return Got::kInterrupt;
  }
  if (text == nullptr || n <= 0) return Got::kEnd;
  line.assign(text, static_cast<size_t>(n));
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  HistEvent event;
  if (!line.empty()) ::history(editor_->past, &event, H_ENTER, text);
  return Got::kLine;
}

LineReader::Got LineReader::read_plain(std::string& line) {
  line.clear();
  for (;;) {
    const int c = std::getc(stdin);
    if (c == '\n') break;
    if (c != EOF) {
      line += static_cast<char>(c);
      continue;
    }
    if (interrupted()) return Got::kInterrupt;
    if (std::ferror(stdin) != 0)
      throw Error(ErrorCode::kDevice, "cannot read from standard input: ", std::generic_category().message(errno));
    if (line.empty()) return Got::kEnd;
    break;  // A last line without an end.
  }
  if (!line.empty() && line.back() == '\r') line.pop_back();
  return Got::kLine;
}

}  // namespace minillm::cli
