// jinja_operands.cpp - the parser's operands: literals, names, and what follows a value (.name, [key], (arguments), |filter, is test);
// see jinja_parser.h.
#include <charconv>
#include <cstdlib>

#include "text/jinja_parser.h"
#include "text/jinja_runtime.h"

namespace minillm::jinja {

const Expr* Parser::primary() {
  const Token& token = now();
  switch (token.kind) {
    case TokenKind::kName:
      return name_or_constant();
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return number();
    case TokenKind::kString: {
      Expr& node = expr(ExprKind::kConstant);
      auto text = std::make_shared<Text>();
      while (now().kind == TokenKind::kString) text->bytes += take().text;
      node.constant = Value(std::shared_ptr<const Text>(std::move(text)));
      return &node;
    }
    case TokenKind::kOperator: {
      if (token.text == "[") return list();
      if (token.text == "{") return dict();
      if (!skip_operator("(")) break;
      const Depth depth(*this);
      const Expr* value = conditional_or_tuple(/*allow_empty=*/true);
      expect_operator(")");
      return value;
    }
    default:
      break;
  }
  fail("an expression");
}

const Expr* Parser::name_or_constant() {
  Expr& node = expr(ExprKind::kConstant);
  const std::string name = take().text;
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    node.constant = Value(name[0] == 't' || name[0] == 'T');
  } else if (name == "none" || name == "None") {
    node.constant = Value(None{});
  } else {
    node.kind = ExprKind::kName;
    node.name = name;
    node.symbol = symbol(name);
    if (macro_) {
      macro_->uses_varargs = macro_->uses_varargs || name == "varargs";
      macro_->uses_kwargs = macro_->uses_kwargs || name == "kwargs";
      macro_->uses_caller = macro_->uses_caller || name == "caller";
    }
  }
  return &node;
}

const Expr* Parser::number() {
  Expr& node = expr(ExprKind::kConstant);
  const Token token = take();
  if (token.kind == TokenKind::kFloat) {
    node.constant = Value(std::strtod(token.text.c_str(), nullptr));
    return &node;
  }
  const char prefix = token.text.size() > 2 && token.text[0] == '0' ? static_cast<char>(token.text[1] | 0x20) : ' ';
  const int base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 10;
  int64_t value = 0;
  const char* begin = token.text.data() + (base == 10 ? 0 : 2);
  const char* end = token.text.data() + token.text.size();
  if (std::from_chars(begin, end, value, base).ec != std::errc())
    throw Error(ErrorCode::kUnsupported, "chat template, line ", token.line, ": the integer ", token.text.substr(0, 60),
                " has more than 64 bits");
  node.constant = Value(value);
  return &node;
}

const Expr* Parser::list() {
  Expr& node = expr(ExprKind::kList);
  expect_operator("[");
  while (!is_operator("]")) {
    node.args.push_back(conditional());
    if (!skip_operator(",")) break;
  }
  expect_operator("]");
  return &node;
}

const Expr* Parser::dict() {
  Expr& node = expr(ExprKind::kDict);
  expect_operator("{");
  while (!is_operator("}")) {
    node.args.push_back(conditional());
    expect_operator(":");
    node.args.push_back(conditional());
    if (!skip_operator(",")) break;
  }
  expect_operator("}");
  return &node;
}

const Expr* Parser::postfix(const Expr* left) {
  while (true) {
    if (is_operator("[")) {
      left = subscript(left);
    } else if (is_operator("(")) {
      left = call(left);
    } else if (skip_operator(".")) {
      if (now().kind == TokenKind::kInteger) {
        Expr& node = expr(ExprKind::kItem, left);
        node.args = {number()};
        left = &node;
      } else {
        Expr& node = expr(ExprKind::kAttribute, left);
        node.name = expect_identifier();
        left = &node;
      }
    } else {
      return left;
    }
  }
}

const Expr* Parser::subscript(const Expr* left) {
  const Depth depth(*this);
  expect_operator("[");
  Expr& node = expr(ExprKind::kItem, left);
  const auto part = [&]() -> const Expr* { return is_operator(":") || is_operator("]") ? nullptr : conditional(); };
  const Expr* first = part();
  if (skip_operator(":")) {
    node.kind = ExprKind::kSlice;
    const Expr* stop = part();
    const Expr* step = skip_operator(":") ? part() : nullptr;
    node.args = {first, stop, step};
  } else {
    if (!first) fail("an index");
    node.args = {first};
  }
  expect_operator("]");
  return &node;
}

const Expr* Parser::filters_and_tests(const Expr* left) {
  while (true) {
    if (skip_operator("|"))
      left = filter(left);
    else if (is_name("is"))
      left = test(left);
    else if (is_operator("("))
      left = call(left);
    else
      return left;
  }
}

const Expr* Parser::filter(const Expr* left) {
  Expr& node = expr(ExprKind::kFilter, left);
  const int line = now().line;
  node.name = dotted_name();
  node.native = find_filter(node.name);
  if (!node.native && branches_ == 0) unsupported("filter", node.name, line);
  if (is_operator("(")) arguments(node);
  return &node;
}

const Expr* Parser::test(const Expr* left) {
  expect_name("is");
  const bool negated = skip_name("not");
  Expr& node = expr(ExprKind::kTest, left);
  const int line = now().line;
  node.name = dotted_name();
  node.native = find_test(node.name);
  if (!node.native && branches_ == 0) unsupported("test", node.name, line);
  if (is_operator("(")) {
    arguments(node);
  } else if ((now().kind == TokenKind::kName && !is_name("else") && !is_name("or") && !is_name("and") && !is_name("if") && !is_name("in") &&
              !is_name("not")) ||
             now().kind == TokenKind::kString || now().kind == TokenKind::kInteger || now().kind == TokenKind::kFloat || is_operator("[") ||
             is_operator("{")) {
    if (is_name("is")) fail("no second test: tests cannot be chained");
    node.args = {postfix(primary())};
  }
  if (!negated) return &node;
  return &expr(ExprKind::kNot, &node);
}

const Expr* Parser::call(const Expr* left) {
  Expr& node = expr(ExprKind::kCall, left);
  arguments(node);
  return &node;
}

void Parser::arguments(Expr& out) {
  const Depth depth(*this);
  expect_operator("(");
  while (!is_operator(")")) {
    if (skip_operator("**")) {
      out.star_star = conditional();
    } else if (skip_operator("*")) {
      out.star = conditional();
    } else if (now().kind == TokenKind::kName && ahead().kind == TokenKind::kOperator && ahead().text == "=") {
      std::string name = take().text;
      expect_operator("=");
      const Expr* value = conditional();
      out.named.emplace_back(std::move(name), value);
    } else {
      if (!out.named.empty() || out.star_star) fail("a named argument: a positional one cannot follow it");
      const Expr* value = conditional();
      out.args.push_back(value);
    }
    if (!skip_operator(",")) break;
  }
  expect_operator(")");
}

}  // namespace minillm::jinja
