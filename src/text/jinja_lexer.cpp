// jinja_lexer.cpp - see jinja_lexer.h. The rules are those of jinja2 3.1's Lexer, whose regular expressions are written out here.
#include "text/jinja_lexer.h"

#include <algorithm>
#include <cstdlib>

#include "minillm/error.h"
#include "text/jinja_text.h"

namespace minillm::jinja {
namespace {

constexpr size_t kMaxSource = size_t{1} << 20;
constexpr size_t kMaxTokens = 200'000;

/// Newlines of every kind become \n, and the last one is dropped.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & '\x80') != 0; }
bool is_name_part(char c) { return is_name_start(c) || is_digit(c); }

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) text();
    push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  bool next_is(std::string_view what) const { return rest().starts_with(what); }
  template <typename... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    throw Error(ErrorCode::kInvalidArgument, "chat template, line ", line_, ": ", parts...);
  }

  void push(TokenKind kind, std::string text) {
    if (tokens_.size() >= kMaxTokens) throw Error(ErrorCode::kCapacity, "chat template: more than ", kMaxTokens, " tokens");
    tokens_.push_back({kind, line_, std::move(text)});
  }
  /// Moves on by `n` bytes, counting lines.
  void advance(size_t n) {
    line_ += static_cast<int>(
        std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_), source_.begin() + static_cast<std::ptrdiff_t>(at_ + n), '\n'));
    at_ += n;
  }
  void skip_whitespace() { advance(rest().size() - strip_left(rest()).size()); }

  /// Text up to the next tag, and the tag.
  void text() {
    size_t tag = at_;
    do {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size())
        tag = source_.size();
      else if (source_[tag + 1] == '%' || source_[tag + 1] == '{' || source_[tag + 1] == '#')
        break;
      else
        ++tag;
    } while (tag < source_.size());
    if (tag == source_.size()) {
      push(TokenKind::kData, std::string(rest()));
      advance(source_.size() - at_);
      return;
    }
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
    data(tag, sign, /*may_strip_line=*/kind != '{');
    advance(sign == '-' || sign == '+' ? 3 : 2);
    line_starting_ = false;
    if (kind == '#')
      comment();
    else if (kind == '{')
      expression(TokenKind::kVariableBegin, TokenKind::kVariableEnd, "}}");
    else if (!raw())
      expression(TokenKind::kBlockBegin, TokenKind::kBlockEnd, "%}");
  }

  /// The text from here to `end`, where a tag with `sign` begins.
  void data(size_t end, char sign, bool may_strip_line) {
    std::string_view piece = rest().substr(0, end - at_);
    if (sign == '-') {
      piece = strip_right(piece);
    } else if (sign != '+' && may_strip_line) {
      const size_t newline = piece.rfind('\n');
      const size_t start = newline == std::string_view::npos ? 0 : newline + 1;
      if ((start > 0 || line_starting_) && strip_left(piece.substr(start)).empty()) piece = piece.substr(0, start);
    }
    if (!piece.empty()) push(TokenKind::kData, std::string(piece));
    advance(end - at_);
  }

  /// The end of a block or comment tag, `close` with its sign, if it stands here: takes it and the whitespace it swallows.
  bool tag_end(std::string_view close, bool trims_newline) {
    const char sign = rest().empty() ? ' ' : rest()[0];
    const bool has_sign = sign == '-' || (sign == '+' && trims_newline);
    if (!rest().substr(has_sign ? 1 : 0).starts_with(close)) return false;
    advance(close.size() + (has_sign ? 1 : 0));
    if (sign == '-')
      skip_whitespace();
    else if (!has_sign && trims_newline && next_is("\n"))
      advance(1);
    line_starting_ = source_[at_ - 1] == '\n';
    return true;
  }

  void comment() {
    for (; at_ < source_.size(); advance(1))
      if (tag_end("#}", true)) return;
    fail("comment without an end");
  }

  /// {% raw %}text{% endraw %}, if that is what stands here, after "{%".
  bool raw() {
    const size_t start = at_;
    const int line = line_;
    skip_whitespace();
    const bool is_raw = next_is("raw");
    if (is_raw) {
      advance(3);
      skip_whitespace();
    }
    if (!is_raw || !(next_is("%}") || next_is("-%}"))) {
      at_ = start;
      line_ = line;
      return false;
    }
    tag_end("%}", false);
    for (size_t tag = source_.find("{%", at_); tag != std::string::npos; tag = source_.find("{%", tag + 2)) {
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
      std::string_view after = std::string_view(source_).substr(std::min(source_.size(), tag + (sign == '-' || sign == '+' ? 3 : 2)));
      after = strip_left(after);
      if (!after.starts_with("endraw")) continue;
      after = strip_left(after.substr(6));
      const std::string_view close = after.substr(after.starts_with("-") || after.starts_with("+") ? 1 : 0);
      if (!close.starts_with("%}")) continue;
      data(tag, sign, true);
      advance(static_cast<size_t>(after.data() - source_.data()) - at_);
      return tag_end("%}", true);
    }
    fail("{% raw %} without {% endraw %}");
  }

  void expression(TokenKind begin, TokenKind end, std::string_view close) {
    push(begin, "");
    std::string brackets;  // Closing ones that are due.
    const bool trims_newline = end == TokenKind::kBlockEnd;
    while (at_ < source_.size()) {
      const int line = line_;
      if (brackets.empty() && tag_end(close, trims_newline)) {
        push(end, "");
        tokens_.back().line = line;
        return;
      }
      const size_t before = at_;
      skip_whitespace();
      if (at_ == before) token(brackets);
    }
    fail("tag without its end ", close);
  }

  void token(std::string& brackets) {
    const char c = source_[at_];
    if (is_digit(c)) return number();
    if (is_name_start(c)) {
      size_t n = 1;
      while (n < rest().size() && is_name_part(rest()[n])) ++n;
      push(TokenKind::kName, std::string(rest().substr(0, n)));
      return advance(n);
    }
    if (c == '\'' || c == '"') return string(c);
    for (const std::string_view op : {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                      "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"}) {
      if (!next_is(op)) continue;
      balance(op[0], brackets);
      push(TokenKind::kOperator, std::string(op));
      return advance(op.size());
    }
    fail("unexpected character '", rest().substr(0, 1), "'");
  }

  void balance(char c, std::string& brackets) {
    if (c == '(') brackets += ')';
    if (c == '[') brackets += ']';
    if (c == '{') brackets += '}';
    if (c != ')' && c != ']' && c != '}') return;
    if (brackets.empty() || brackets.back() != c) fail("unexpected '", c, "'");
    brackets.pop_back();
  }

  /// Digits of `base` with single underscores between them.
  size_t digits(size_t from, int base) const {
    const auto is_one = [base](char c) {
      return base == 16 ? std::isxdigit(static_cast<unsigned char>(c)) != 0 : c >= '0' && c < '0' + base;
    };
    size_t i = from;
    while (i < rest().size() && (is_one(rest()[i]) || (rest()[i] == '_' && i > from && i + 1 < rest().size() && is_one(rest()[i + 1]))))
      ++i;
    return i;
  }

  void number() {
    const std::string_view all = rest();
    size_t n = 0;
    bool real = false;
    const char prefix = all.size() > 2 && all[0] == '0' ? static_cast<char>(all[1] | 0x20) : ' ';
    if (prefix == 'x' || prefix == 'o' || prefix == 'b') {
      n = digits(2, prefix == 'x' ? 16 : prefix == 'o' ? 8 : 2);
      if (n == 2) n = 1;
    } else {
      n = digits(0, 10);
      if (n + 1 < all.size() && all[n] == '.' && is_digit(all[n + 1])) {
        n = digits(n + 1, 10);
        real = true;
      }
      if (n < all.size() && (all[n] | 0x20) == 'e') {
        const size_t sign = n + 1 < all.size() && (all[n + 1] == '+' || all[n + 1] == '-') ? 1 : 0;
        const size_t end = digits(n + 1 + sign, 10);
        if (end > n + 1 + sign) {
          n = end;
          real = true;
        }
      }
    }
    std::string text(all.substr(0, n));
    std::erase(text, '_');
    push(real ? TokenKind::kFloat : TokenKind::kInteger, std::move(text));
    advance(n);
  }

  void string(char quote) {
    size_t end = 1;
    while (end < rest().size() && rest()[end] != quote) end += rest()[end] == '\\' ? 2 : 1;
    if (end >= rest().size()) fail("string without its closing ", quote);
    std::string value;
    if (!unescape(rest().substr(1, end - 1), value)) fail("wrong escape sequence in ", rest().substr(0, std::min<size_t>(end + 1, 80)));
    push(TokenKind::kString, std::move(value));
    advance(end + 1);
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize_template(std::string_view source) {
  if (source.size() > kMaxSource) throw Error(ErrorCode::kCapacity, "chat template: ", source.size(), " bytes, at most ", kMaxSource);
  return Lexer(normalized(source)).run();
}

}  // namespace minillm::jinja
