// jinja_statements.cpp - the parser's statements: {% ... %}; see jinja_parser.h.
#include <algorithm>

#include "text/jinja_parser.h"
#include "text/jinja_runtime.h"

namespace minillm::jinja {

Program Parser::run() {
  program_.root = block({});
  return std::move(program_);
}

Stmt& Parser::stmt(StmtKind kind) {
  count_node();
  Stmt& node = program_.stmts.emplace_back();
  node.kind = kind;
  node.line = now().line;
  return node;
}

/// Statements up to a tag that starts with one of `ends`, whose name is next then; to the end of the template if there are none.
Block Parser::block(std::initializer_list<std::string_view> ends) {
  const Depth depth(*this);
  Block out;
  while (true) {
    switch (now().kind) {
      case TokenKind::kEnd:
        if (ends.size() != 0) fail(*(ends.end() - 1));
        return out;
      case TokenKind::kData: {
        Stmt& node = stmt(StmtKind::kData);
        node.text = take().text;
        out.push_back(&node);
        break;
      }
      case TokenKind::kVariableBegin: {
        ++at_;
        Stmt& node = stmt(StmtKind::kPrint);
        node.expr = conditional_or_tuple();
        if (now().kind != TokenKind::kVariableEnd) fail("}}");
        ++at_;
        out.push_back(&node);
        break;
      }
      default:
        ++at_;
        if (now().kind == TokenKind::kName && std::find(ends.begin(), ends.end(), now().text) != ends.end()) return out;
        statement(out);
    }
  }
}

void Parser::statement(Block& out) {
  const Depth depth(*this);  // With its block's, a statement inside a statement counts twice: it takes twice the stack of an expression.
  if (now().kind != TokenKind::kName) fail("a statement");
  const std::string name = now().text;
  const auto with = [&](StmtKind kind, void (Parser::*parse)(Stmt&)) {
    Stmt& node = stmt(kind);
    ++at_;
    (this->*parse)(node);
    out.push_back(&node);
  };
  if (name == "if") return with(StmtKind::kIf, &Parser::if_statement);
  if (name == "for") return with(StmtKind::kFor, &Parser::for_statement);
  if (name == "set") return set_statement(out);
  if (name == "with") return with(StmtKind::kWith, &Parser::with_statement);
  if (name == "macro") return with(StmtKind::kMacro, &Parser::macro_statement);
  if (name == "call") return with(StmtKind::kCall, &Parser::call_statement);
  if (name == "filter") return with(StmtKind::kFilter, &Parser::filter_statement);
  if (name == "break" || name == "continue") {
    if (loops_ == 0) fail("a loop around it");
    out.push_back(&stmt(name == "break" ? StmtKind::kBreak : StmtKind::kContinue));
    ++at_;
    return expect_block_end();
  }
  if (name == "generation") {
    Stmt& node = stmt(StmtKind::kGeneration);
    ++at_;
    expect_block_end();
    node.body = block({"endgeneration"});
    ++at_;
    out.push_back(&node);
    return expect_block_end();
  }
  if (name.starts_with("end") || name == "else" || name == "elif") fail("a tag that was opened");
  unsupported("statement", name, now().line);
}

void Parser::if_statement(Stmt& out) {
  ++branches_;  // As in jinja2, a filter that nobody knows is an error only if its branch is taken.
  while (true) {
    const Expr* condition = conditional_or_tuple(false, /*with_condition=*/false);
    expect_block_end();
    out.branches.emplace_back(condition, block({"elif", "else", "endif"}));
    if (!skip_name("elif")) break;
  }
  if (skip_name("else")) {
    expect_block_end();
    out.otherwise = block({"endif"});
  }
  expect_name("endif");
  --branches_;
  expect_block_end();
}

void Parser::for_statement(Stmt& out) {
  out.target = target(/*allow_attribute=*/false);
  expect_name("in");
  out.expr = conditional_or_tuple(false, /*with_condition=*/false);
  if (skip_name("if")) out.condition = conditional();
  out.recursive = skip_name("recursive");
  out.symbol = symbol("loop");
  expect_block_end();
  ++loops_;
  out.body = block({"else", "endfor"});
  --loops_;
  if (skip_name("else")) {
    expect_block_end();
    out.otherwise = block({"endfor"});
  }
  expect_name("endfor");
  expect_block_end();
}

void Parser::set_statement(Block& out) {
  Stmt& node = stmt(StmtKind::kSet);
  ++at_;
  node.target = target(/*allow_attribute=*/true);
  if (skip_operator("=")) {
    node.expr = conditional_or_tuple();
    expect_block_end();
  } else {
    node.kind = StmtKind::kSetBlock;
    node.placeholder = &expr(ExprKind::kConstant);
    node.expr = filters_and_tests(node.placeholder);
    expect_block_end();
    node.body = block({"endset"});
    ++at_;
    expect_block_end();
  }
  out.push_back(&node);
}

void Parser::with_statement(Stmt& out) {
  while (now().kind != TokenKind::kBlockEnd) {
    if (!out.assignments.empty()) expect_operator(",");
    Target name = target(/*allow_attribute=*/false);
    expect_operator("=");
    const Expr* value = conditional();
    out.assignments.emplace_back(std::move(name), value);
  }
  expect_block_end();
  out.body = block({"endwith"});
  ++at_;
  expect_block_end();
}

/// Parameters of a macro or call block: (a, b=1).
void Parser::signature(Stmt& out) {
  expect_operator("(");
  while (!is_operator(")")) {
    Parameter parameter;
    parameter.name = expect_identifier();
    parameter.symbol = symbol(parameter.name);
    if (skip_operator("="))
      parameter.fallback = conditional();
    else if (!out.parameters.empty() && out.parameters.back().fallback)
      fail("a default, as the parameter before has one");
    out.parameters.push_back(std::move(parameter));
    if (!skip_operator(",")) break;
  }
  expect_operator(")");
}

void Parser::macro_statement(Stmt& out) {
  out.text = expect_identifier();
  out.symbol = symbol(out.text);
  Stmt* const outer = std::exchange(macro_, &out);
  const int loops = std::exchange(loops_, 0);
  signature(out);
  expect_block_end();
  out.body = block({"endmacro"});
  ++at_;
  macro_ = outer;
  loops_ = loops;
  expect_block_end();
}

void Parser::call_statement(Stmt& out) {
  Stmt* const outer = std::exchange(macro_, &out);
  if (is_operator("(")) signature(out);
  macro_ = outer;
  out.text = "caller";
  const Expr* value = postfix(primary());
  if (value->kind != ExprKind::kCall) fail("a call");
  out.expr = value;
  expect_block_end();
  macro_ = &out;
  const int loops = std::exchange(loops_, 0);
  out.body = block({"endcall"});
  ++at_;
  macro_ = outer;
  loops_ = loops;
  expect_block_end();
}

void Parser::filter_statement(Stmt& out) {
  out.placeholder = &expr(ExprKind::kConstant);
  out.expr = filters_and_tests(filter(out.placeholder));  // {% filter upper|trim %}: the first has no bar.
  expect_block_end();
  out.body = block({"endfilter"});
  ++at_;
  expect_block_end();
}

Target Parser::target(bool allow_attribute) {
  Target first = single_target(allow_attribute);
  if (!is_operator(",")) return first;
  Target tuple;
  tuple.parts.push_back(std::move(first));
  while (skip_operator(",")) {
    if (is_name("in") || is_operator("=") || is_operator(")")) break;
    tuple.parts.push_back(single_target(allow_attribute));
  }
  return tuple;
}

Target Parser::single_target(bool allow_attribute) {
  const Depth depth(*this);
  if (skip_operator("(")) {
    Target inner = target(allow_attribute);
    expect_operator(")");
    return inner;
  }
  Target out;
  out.name = expect_identifier();
  if (out.name == "true" || out.name == "false" || out.name == "none") fail("a name that can be assigned to");
  out.symbol = symbol(out.name);
  if (allow_attribute && skip_operator(".")) out.attribute = expect_identifier();
  return out;
}

}  // namespace minillm::jinja
