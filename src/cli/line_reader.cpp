// line_reader.cpp - see line_reader.h.
#include "line_reader.h"

#include <histedit.h>
#include <langinfo.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstring>
#include <cwchar>
#include <string_view>
#include <system_error>

#include "minillm/error.h"
#include "terminal.h"

namespace minillm::cli {

namespace {

constexpr int kPollMillis = 50;  ///< How long a Ctrl-C may stay unseen that arrives between a look at the flag and the wait for a key.

/// One byte of standard input: 1, 0 at the end, -1 after an interrupt or with errno set.
int read_byte(char& byte) {
  for (;;) {
    if (interrupted()) return -1;
    pollfd waiting{STDIN_FILENO, POLLIN, 0};
    const int ready = ::poll(&waiting, 1, kPollMillis);
    if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    if (ready < 0) return -1;
    const ssize_t n = ::read(STDIN_FILENO, &byte, 1);
    if (n >= 0 || errno != EINTR) return static_cast<int>(n);
  }
}

/// libedit's way to ask for a character. Its own would block in read() when Ctrl-C comes a moment too early.
int read_character(EditLine*, wchar_t* character) {
  std::mbstate_t state{};
  for (;;) {
    char byte = 0;
    const int n = read_byte(byte);
    if (n != 1) return n;
    const size_t used = std::mbrtowc(character, &byte, 1, &state);
    if (used == static_cast<size_t>(-2)) continue;  // More bytes belong to it.
    if (used == static_cast<size_t>(-1)) *character = L'?';
    return 1;
  }
}

}  // namespace

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
    ::el_set(line, EL_GETCFN, &read_character);
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
  ::el_set(editor_->line, EL_PREP_TERM, 1);  // Before the prompt shows: keys pressed at once are then edited, too.
  const char* text = ::el_gets(editor_->line, &n);
  if (interrupted()) {  // read_character saw it; there is no line then.
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
