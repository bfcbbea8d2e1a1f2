// jinja_lexer.h - cuts a template into text and tokens, with jinja2's whitespace rules.
// Settings are those of transformers: trim_blocks (the newline after a block or comment tag goes), lstrip_blocks (blanks before a
// block or comment tag that starts a line go), and the last newline of the template goes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace minillm::jinja {

enum class TokenKind : uint8_t {
  kData,
  kBlockBegin,
  kBlockEnd,
  kVariableBegin,
  kVariableEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string text;  ///< Strings are unescaped.
};

/// Throws Error{kInvalidArgument} with the line for text that is no template, Error{kCapacity} for one over 1 MiB or 200,000 tokens.
std::vector<Token> tokenize_template(std::string_view source);

}  // namespace minillm::jinja
