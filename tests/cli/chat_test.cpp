// chat_test.cpp - `minillm chat` from a pipe and in a terminal: turns, interruption, saved talks, a full context, mistakes.
#include <gtest/gtest.h>

#include <algorithm>

#include "pty_session.h"
#include "run_minillm.h"

namespace minillm {
namespace {

using test::ProgramResult;
using test::PtySession;

constexpr const char* kCtrlC = "\x03";
constexpr const char* kCtrlD = "\x04";
constexpr const char* kPrompt = "> ";

class Chat : public ::testing::Test {
 protected:
  /// Feeds `lines` from a pipe. Answers are on stdout, words about them on stderr.
  ProgramResult chat(const std::string& lines, std::vector<std::string> flags = {}) {
    flags.insert(flags.begin(), {"chat", "-m", model_});
    if (std::ranges::find(flags, "--temperature") == flags.end()) flags.insert(flags.end(), {"--temperature", "0"});
    if (std::ranges::find(flags, "-n") == flags.end()) flags.insert(flags.end(), {"-n", "20"});
    return test::run_minillm(flags, test::Reader::kReadsAll, "", folder_.write("input", lines));
  }
  std::vector<std::string> in_terminal(std::vector<std::string> flags = {}) {
    flags.insert(flags.begin(), {"chat", "-m", model_, "--temperature", "0"});
    return flags;
  }

  test::TempFolder folder_;
  std::string model_ = write_model(true);

  std::string write_model(bool with_template) const {
    test::TinyModel model = test::babbler();
    if (with_template)
      model.keys.set("tokenizer.chat_template", std::string("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
                                                            "{% if add_generation_prompt %}<assistant>{% endif %}"));
    else
      model.keys.erase("tokenizer.chat_template");
    return folder_.write("babbler.gguf", model.writer().image().bytes);
  }
};

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) lines.push_back(text.substr(at, text.find('\n', at) - at));
  return lines;
}

void expect_has(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << text << "' should hold '" << part << "'";
}

TEST_F(Chat, AnswersEachLineAndComputesOnlyWhatIsNew) {
  const ProgramResult result = chat("hello\nand again\n/stats\n");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(lines_of(result.out).size(), 2u) << result.out;
  // "<user>hello<assistant>" and an answer of 20 characters, then "<user>and again<assistant>". The last character of the answer was
  // never fed to the model, so it is new.
  expect_has(result.err, "4 messages");
  expect_has(result.err, "last turn: 68 tokens of prompt, 41 of them from the cache");
}

TEST_F(Chat, ASecondTurnGivesWhatAnEmptyCacheGives) {
  const ProgramResult two = chat("hello\nand again\n");
  ASSERT_EQ(lines_of(two.out).size(), 2u);
  const std::string talk = "<user>hello<assistant>" + lines_of(two.out)[0] + "<user>and again<assistant>";
  const ProgramResult whole = test::run_minillm({"generate", "-m", model_, "--temperature", "0", "-n", "20", "-p", talk});
  EXPECT_EQ(whole.out, lines_of(two.out)[1] + "\n");
}

TEST_F(Chat, ALoadedTalkGoesOnAsTheSavedOneDoes) {
  const std::string file = folder_ / "talk";
  const std::vector<std::string> drawn = {"--temperature", "1", "--seed", "5", "--ignore-eos"};
  const ProgramResult first = chat("one\ntwo\n/save " + file + "\nthree\n", drawn);
  ASSERT_EQ(lines_of(first.out).size(), 3u) << first.err;
  EXPECT_NE(lines_of(first.out)[0], lines_of(first.out)[1]);
  const ProgramResult second = chat("other\n/load " + file + "\nthree\n", drawn);
  ASSERT_EQ(lines_of(second.out).size(), 2u) << second.err;
  EXPECT_EQ(lines_of(second.out)[1], lines_of(first.out)[2]);
  std::vector<std::string> at_start = drawn;
  at_start.insert(at_start.end(), {"--load", file});
  EXPECT_EQ(chat("three\n", at_start).out, lines_of(first.out)[2] + "\n");
  EXPECT_NE(chat("three\n", drawn).out, lines_of(first.out)[2] + "\n");
}

TEST_F(Chat, ADamagedOrForeignTalkIsRefusedAndTheTalkGoesOn) {
  const std::string file = folder_ / "talk";
  ASSERT_EQ(chat("one\n/save " + file + "\n").exit_code, 0);
  std::string bytes = read_text_file(file, 1 << 20);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  folder_.write("damaged", bytes);
  const ProgramResult result = chat("one\n/load " + (folder_ / "damaged") + "\n/load " + (folder_ / "nothing") + "\ntwo\n/stats\n");
  EXPECT_EQ(result.exit_code, 0);
  expect_has(result.err, "the file is damaged");
  expect_has(result.err, "nothing: cannot open");
  expect_has(result.err, "4 messages");
  EXPECT_EQ(result.out, chat("one\ntwo\n").out);
  const ProgramResult other = chat("/load " + file + "\n", {"--dtype", "bf16"});
  expect_has(other.err, "saved from another model");
}

TEST_F(Chat, AFullContextIsSaidAndNothingIsCut) {
  const ProgramResult result = chat("hello\nmore\n/stats\n/reset\nhello\n", {"--ctx", "40", "-n", "1000", "--ignore-eos"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  expect_has(result.err, "(the context of 40 tokens is full: the answer ends here.");
  expect_has(result.err, "The message was not added. /reset begins anew");
  expect_has(result.err, "2 messages, 40 tokens of 40");
  ASSERT_EQ(lines_of(result.out).size(), 2u);
  EXPECT_EQ(lines_of(result.out)[0], lines_of(result.out)[1]);
}

TEST_F(Chat, CommandsAndMistakesAreAnsweredOnStderr) {
  const ProgramResult result = chat("/help\n/nope\n/save\n/stats\n//not a command\n\n/quit\nnever read\n", {"--system", "Be brief."});
  EXPECT_EQ(result.exit_code, 0);
  for (const char* words : {"/load FILE", "there is no command /nope", "/save: expected a file name", "1 messages, 0 tokens of 512"})
    expect_has(result.err, words);
  EXPECT_EQ(lines_of(result.out).size(), 1u);
  EXPECT_EQ(result.out, test::run_minillm({"generate", "-m", model_, "--temperature", "0", "-n", "20", "-p",
                                           "<system>Be brief.<user>/not a command<assistant>"})
                            .out);
}

TEST_F(Chat, AModelWithoutATemplateIsRefused) {
  const ProgramResult result = test::run_minillm({"chat", "-m", write_model(false)});
  EXPECT_EQ(result.exit_code, 1);
  expect_has(result.err, "no chat template");
}

TEST_F(Chat, InATerminalLinesAreEditedAndCtrlDLeaves) {
  PtySession session(in_terminal({"-n", "20"}));
  session.until("Ctrl-D leaves");
  session.until(kPrompt);
  const std::string answer = chat("hello\n").out, line = answer.substr(0, answer.size() - 1) + "\r\n";
  session.press("helpo\x1b[D\x7fl\r");  // Left, backspace: "hello".
  expect_has(session.until(line), line);
  session.press("\x1b[A");  // Up: the same line again.
  expect_has(session.until("hello"), "hello");
  session.press("\r");
  session.until("longest length");
  session.press("/stats\r");
  expect_has(session.until("written"), "4 messages");
  session.until(kPrompt);
  session.press(kCtrlD);
  EXPECT_EQ(session.wait(), 0);
}

TEST_F(Chat, InATerminalCtrlCStopsTheAnswerAndKeepsTheTalk) {
  const std::string file = folder_ / "talk";
  std::string third;
  {
    PtySession session(in_terminal({"--ctx", "1000000", "-n", "1000000", "--ignore-eos"}));
    session.until(kPrompt);
    for (const char* message : {"one\r", "two\r"}) {
      session.press(message);
      session.until("\r\n");  // The line itself; then the answer, which would take minutes.
      session.skip(100);
      session.press(kCtrlC);
      expect_has(session.until("(stopped)"), "(stopped)");
      session.until(kPrompt);
    }
    session.press("half a line");
    expect_has(session.until("half a line"), "half a line");
    session.press(kCtrlC);
    expect_has(session.until("(Ctrl-D leaves)"), "(Ctrl-D leaves)");
    session.press("/stats\r/save " + file + "\r");
    expect_has(session.until("(saved: 4 messages"), "last turn:");
    session.until(kPrompt);
    session.press(kCtrlD);
    EXPECT_EQ(session.wait(), 0);
  }
  // From the file on, in new processes: the same answer each time.
  const ProgramResult again = chat("three\n", {"--ctx", "1000000", "--load", file});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_FALSE(again.out.empty());
  PtySession session(in_terminal({"--ctx", "1000000", "-n", "20", "--load", file}));
  session.until(kPrompt);
  session.press("three\r");
  session.until("three\r\n");
  third = session.until("\r\n");
  EXPECT_EQ(third, again.out.substr(0, again.out.size() - 1) + "\r\n");
}

TEST_F(Chat, SigtermEndsIt) {
  PtySession session(in_terminal());
  session.until(kPrompt);
  session.signal(SIGTERM);
  EXPECT_EQ(session.wait(), 130);
}

}  // namespace
}  // namespace minillm
