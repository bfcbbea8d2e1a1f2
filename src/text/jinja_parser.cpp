// jinja_parser.cpp - tokens, nodes and operators by precedence; see jinja_parser.h.
#include "text/jinja_parser.h"

#include <algorithm>

#include "text/jinja_runtime.h"

namespace minillm::jinja {
namespace {

constexpr size_t kMaxNodes = 100'000;

/// How tightly binary operators bind, loosest first; unary signs and what follows a value bind tighter than all.
constexpr int kOr = 0, kAnd = 1, kNot = 2, kCompare = 3, kSum = 4, kConcat = 5, kProduct = 6, kPower = 7, kNoOperator = -1;

int level_of(const Token& token, const Token& next) {
  const std::string& t = token.text;
  if (token.kind == TokenKind::kName) {
    if (t == "or") return kOr;
    if (t == "and") return kAnd;
    return t == "in" || (t == "not" && next.kind == TokenKind::kName && next.text == "in") ? kCompare : kNoOperator;
  }
  if (token.kind != TokenKind::kOperator) return kNoOperator;
  if (t == "==" || t == "!=" || t == "<" || t == "<=" || t == ">" || t == ">=") return kCompare;
  if (t == "+" || t == "-") return kSum;
  if (t == "~") return kConcat;
  if (t == "*" || t == "/" || t == "//" || t == "%") return kProduct;
  return t == "**" ? kPower : kNoOperator;
}

}  // namespace

Parser::Depth::Depth(Parser& p) : parser(p) {
  if (++p.depth_ > kMaxDepth) {
    --p.depth_;
    throw Error(ErrorCode::kCapacity, "chat template, line ", p.now().line, ": nested more than ", kMaxDepth, " deep");
  }
}

bool Parser::skip_operator(std::string_view text) {
  if (!is_operator(text)) return false;
  ++at_;
  return true;
}
bool Parser::skip_name(std::string_view text) {
  if (!is_name(text)) return false;
  ++at_;
  return true;
}
void Parser::expect_operator(std::string_view text) {
  if (!skip_operator(text)) fail(text);
}
void Parser::expect_name(std::string_view text) {
  if (!skip_name(text)) fail(text);
}
std::string Parser::expect_identifier() {
  if (now().kind != TokenKind::kName) fail("a name");
  return take().text;
}
/// Filters and tests may have names like "a.b".
std::string Parser::dotted_name() {
  std::string name = expect_identifier();
  while (skip_operator(".")) {
    name += '.';
    name += expect_identifier();
  }
  return name;
}
void Parser::expect_block_end() {
  if (now().kind != TokenKind::kBlockEnd) fail("%}");
  ++at_;
}

void Parser::fail(std::string_view expected) const {
  const Token& token = now();
  const bool ends_tag = token.kind == TokenKind::kBlockEnd || token.kind == TokenKind::kVariableEnd;
  const bool is_text = token.kind == TokenKind::kData || token.kind == TokenKind::kBlockBegin || token.kind == TokenKind::kVariableBegin;
  const std::string met = token.kind == TokenKind::kEnd ? "the end of the template"
                          : ends_tag                    ? "the end of the tag"
                          : is_text                     ? "text"
                                                        : token.text.substr(0, 60);
  throw Error(ErrorCode::kInvalidArgument, "chat template, line ", token.line, ": met ", met, ", expected ", expected);
}
void Parser::unsupported(std::string_view what, const std::string& name, int line) const {
  throw Error(ErrorCode::kUnsupported, "chat template, line ", line, ": unknown ", what, " '", name.substr(0, 60), "'");
}

void Parser::count_node() {
  if (++n_nodes_ > kMaxNodes) throw Error(ErrorCode::kCapacity, "chat template: more than ", kMaxNodes, " parts");
}
Expr& Parser::expr(ExprKind kind, const Expr* left) {
  count_node();
  Expr& node = program_.exprs.emplace_back();
  node.kind = kind;
  node.line = now().line;
  node.left = left;
  return node;
}
int Parser::symbol(const std::string& name) {
  const auto [found, is_new] = symbols_.try_emplace(name, static_cast<int>(program_.symbols.size()));
  if (is_new) program_.symbols.push_back(name);
  return found->second;
}

const Expr* Parser::conditional() {
  const Depth depth(*this);
  const Expr* value = binary(kOr);
  while (skip_name("if")) {
    Expr& node = expr(ExprKind::kConditional);
    const Expr* condition = binary(kOr);
    const Expr* otherwise = skip_name("else") ? conditional() : nullptr;
    node.args = {condition, value, otherwise};
    value = &node;
  }
  return value;
}

/// `a` or `a, b, c`. `with_condition` is off where a following "if" belongs to the statement.
const Expr* Parser::conditional_or_tuple(bool allow_empty, bool with_condition) {
  std::vector<const Expr*> items;
  bool is_tuple = false;
  const auto at_end = [&] {
    return now().kind == TokenKind::kVariableEnd || now().kind == TokenKind::kBlockEnd || is_operator(")") || is_name("in");
  };
  while (!at_end()) {
    items.push_back(with_condition ? conditional() : binary(kOr));
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && items.size() == 1) return items[0];
  if (items.empty() && !allow_empty) fail("an expression");
  Expr& node = expr(ExprKind::kTuple);
  node.args = std::move(items);
  return &node;
}

/// Precedence climbing: operators that bind at least as tightly as `level`, from left to right. One call for each right side, not
/// one for each level of precedence, as calls are stack.
const Expr* Parser::binary(int level) {
  const Expr* left = nullptr;
  if (level <= kNot && is_name("not")) {
    int n = 0;
    while (skip_name("not")) ++n;
    left = binary(kCompare);
    for (; n > 0; --n) left = &expr(ExprKind::kNot, left);
  } else {
    left = unary();
  }
  while (true) {
    const int found = level_of(now(), ahead());
    if (found == kNoOperator || found < level) return left;
    if (found == kCompare) {
      left = comparison(left);
      continue;
    }
    Expr& node = expr(found == kOr ? ExprKind::kOr : found == kAnd ? ExprKind::kAnd : ExprKind::kBinary, left);
    node.name = take().text;
    node.args = {binary(found + 1)};
    left = &node;
  }
}

/// left < a <= b in ...: one node, whatever its length.
const Expr* Parser::comparison(const Expr* left) {
  Expr& node = expr(ExprKind::kCompare, left);
  while (level_of(now(), ahead()) == kCompare) {
    std::string op = take().text;
    if (op == "not") op.append(" ").append(take().text);
    node.operators.push_back(std::move(op));
    node.args.push_back(binary(kSum));
  }
  return &node;
}

const Expr* Parser::unary() {
  std::string signs;
  while (is_operator("-") || is_operator("+")) signs += take().text;
  const Expr* value = postfix(primary());
  // A sign binds tighter than a filter: -1|abs is 1.
  for (auto sign = signs.rbegin(); sign != signs.rend(); ++sign) value = &expr(*sign == '-' ? ExprKind::kNegate : ExprKind::kPlus, value);
  return filters_and_tests(value);
}

}  // namespace minillm::jinja
