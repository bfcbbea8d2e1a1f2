// jinja_parser.h - tokens to program: recursive descent, at most 64 deep, at most 100,000 nodes.
// Operators, loosest first: x if y else z; or; and; not; == != < <= > >= in, not in; + -; ~; * / // %; **; unary + -;
// then what follows a value: .name [key] (arguments) |filter is test. Source: jinja2 3.1, parser.py.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace minillm::jinja {

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize_template(source)) {}
  /// Throws Error{kUnsupported} naming a construct, filter or test it does not know and its line; Error{kInvalidArgument} for wrong
  /// syntax; Error{kCapacity} past the limits.
  Program run();

 private:
  // Tokens.
  const Token& now() const { return tokens_[at_]; }
  const Token& ahead(size_t n = 1) const { return tokens_[std::min(at_ + n, tokens_.size() - 1)]; }
  Token take() { return at_ + 1 < tokens_.size() ? tokens_[at_++] : tokens_[at_]; }
  bool is_operator(std::string_view text) const { return now().kind == TokenKind::kOperator && now().text == text; }
  bool is_name(std::string_view text) const { return now().kind == TokenKind::kName && now().text == text; }
  bool skip_operator(std::string_view text);
  bool skip_name(std::string_view text);
  void expect_operator(std::string_view text);
  void expect_name(std::string_view text);
  std::string expect_identifier();
  std::string dotted_name();
  void expect_block_end();
  [[noreturn]] void fail(std::string_view expected) const;
  [[noreturn]] void unsupported(std::string_view what, const std::string& name, int line) const;

  // Nodes.
  Expr& expr(ExprKind kind, const Expr* left = nullptr);
  Stmt& stmt(StmtKind kind);
  int symbol(const std::string& name);
  void count_node();

  // Operators: jinja_parser.cpp.
  const Expr* conditional();
  const Expr* conditional_or_tuple(bool allow_empty = false, bool with_condition = true);
  const Expr* binary(int level);
  const Expr* comparison(const Expr* left);
  const Expr* unary();

  // Operands: jinja_operands.cpp.
  const Expr* primary();
  const Expr* name_or_constant();
  const Expr* number();
  const Expr* list();
  const Expr* dict();
  const Expr* postfix(const Expr* left);
  const Expr* subscript(const Expr* left);
  const Expr* filters_and_tests(const Expr* left);
  const Expr* filter(const Expr* left);  ///< After the bar.
  const Expr* test(const Expr* left);
  const Expr* call(const Expr* left);
  void arguments(Expr& out);

  // Statements: jinja_statements.cpp.
  Block block(std::initializer_list<std::string_view> ends);
  void statement(Block& out);
  void if_statement(Stmt& out);
  void for_statement(Stmt& out);
  void set_statement(Block& out);
  void with_statement(Stmt& out);
  void macro_statement(Stmt& out);
  void call_statement(Stmt& out);
  void filter_statement(Stmt& out);
  void signature(Stmt& out);
  Target target(bool allow_attribute);
  Target single_target(bool allow_attribute);

  struct Depth {
    explicit Depth(Parser& parser);
    ~Depth() { --parser.depth_; }
    Parser& parser;
  };

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0, loops_ = 0, branches_ = 0;
  size_t n_nodes_ = 0;
  Program program_;
  std::unordered_map<std::string, int> symbols_;
  Stmt* macro_ = nullptr;  ///< The innermost macro or call block being parsed.
};

}  // namespace minillm::jinja
