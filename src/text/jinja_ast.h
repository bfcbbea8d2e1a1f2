// jinja_ast.h - a parsed template.
// Nodes live in the program's deques and point at each other, so that neither destroying nor walking a long chain (a + b + c + ...)
// needs depth: `left` is what an operation is applied to, and evaluation walks down it in a loop.
#pragma once

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace minillm::jinja {

enum class ExprKind : uint8_t {
  kConstant,     // constant
  kName,         // symbol
  kList,         // args
  kTuple,        // args
  kDict,         // args: key, value, key, value, ...
  kConditional,  // args: condition, then, else or null
  // Applied to `left`:
  kAttribute,  // name
  kItem,       // args: key
  kSlice,      // args: start, stop, step; each may be null
  kCall,       // args, named, star, star_star
  kFilter,     // native, args, named
  kTest,       // native, args, named
  kBinary,     // name: the operator; args: right side
  kAnd,        // args: right side
  kOr,         // args: right side
  kNot,
  kNegate,
  kPlus,
  kCompare,  // operators, args: left op args[0] op args[1] ...
};

struct Expr {
  ExprKind kind = ExprKind::kConstant;
  int line = 0;
  int symbol = -1;
  const Expr* left = nullptr;
  const Native* native = nullptr;
  std::string name;
  Value constant;
  std::vector<const Expr*> args;
  std::vector<std::pair<std::string, const Expr*>> named;
  const Expr* star = nullptr;       ///< *args
  const Expr* star_star = nullptr;  ///< **kwargs
  std::vector<std::string> operators;
};

/// What is assigned to: a name, an attribute of a namespace, or a tuple of these.
struct Target {
  int symbol = -1;
  std::string name, attribute;
  std::vector<Target> parts;
};

enum class StmtKind : uint8_t {
  kData,        // text
  kPrint,       // expr
  kIf,          // branches, otherwise
  kFor,         // target, expr, condition or null, body, otherwise
  kSet,         // target, expr
  kSetBlock,    // target, filters applied to the placeholder, body
  kWith,        // assignments, body
  kMacro,       // name, symbol, parameters, body
  kCall,        // expr (a call), parameters, body
  kFilter,      // expr: filters applied to the placeholder, body
  kGeneration,  // body
  kBreak,
  kContinue,
};

using Block = std::vector<const Stmt*>;

struct Parameter {
  std::string name;
  int symbol = -1;
  const Expr* fallback = nullptr;
};

struct Stmt {
  StmtKind kind = StmtKind::kData;
  int line = 0;
  int symbol = -1;
  bool recursive = false;
  bool uses_varargs = false, uses_kwargs = false, uses_caller = false;
  std::string text;
  const Expr* expr = nullptr;
  const Expr* condition = nullptr;
  const Expr* placeholder = nullptr;  ///< Stands for the rendered body where filters are applied to it.
  Target target;
  Block body, otherwise;
  std::vector<std::pair<const Expr*, Block>> branches;
  std::vector<std::pair<Target, const Expr*>> assignments;
  std::vector<Parameter> parameters;
};

struct Program {
  std::deque<Expr> exprs;
  std::deque<Stmt> stmts;
  std::vector<std::string> symbols;  ///< Names of variables; Expr::symbol is an index.
  Block root;
};

}  // namespace minillm::jinja
