// jinja_eval.cpp - expressions; see jinja_render.h. A chain of operations (a.b.c, a + b + c) is walked down in a loop and applied on
// the way back, so that only right sides, arguments and elements take depth.
#include <algorithm>

#include "text/jinja_render.h"

namespace minillm::jinja {

Value Renderer::eval(const Expr* expr) {
  const Depth depth(*this);
  const size_t base = spine_.size();
  for (; expr->left; expr = expr->left) spine_.push_back(expr);
  Value value = eval_leaf(*expr);
  while (spine_.size() > base) {
    const Expr* operation = spine_.back();
    spine_.pop_back();
    budget.spend(8);
    line = operation->line;
    value = apply(*operation, std::move(value));
  }
  return value;
}

Value Renderer::eval_leaf(const Expr& expr) {
  budget.spend(8);
  line = expr.line;
  switch (expr.kind) {
    case ExprKind::kName:
      return look_up(expr);
    case ExprKind::kList:
    case ExprKind::kTuple: {
      std::vector<Value> items;
      for (const Expr* item : expr.args) items.push_back(eval(item));
      return list(std::move(items), expr.kind == ExprKind::kTuple);
    }
    case ExprKind::kDict: {
      std::vector<std::pair<Value, Value>> items;
      for (size_t i = 0; i < expr.args.size(); i += 2) {
        Value key = eval(expr.args[i]);
        items.emplace_back(std::move(key), eval(expr.args[i + 1]));
      }
      return dict(std::move(items));
    }
    case ExprKind::kConditional:
      if (eval(expr.args[0]).truthy()) return eval(expr.args[1]);
      if (expr.args[2]) return eval(expr.args[2]);
      return undefined("the inline if-expression on line ", expr.line, " evaluated to false and no else section was defined");
    default:
      return &expr == placeholder_ ? placeholder_value_ : expr.constant;
  }
}

Value Renderer::apply(const Expr& expr, Value left) {
  switch (expr.kind) {
    case ExprKind::kAttribute:
      return attribute(*this, left, expr.name);
    case ExprKind::kItem: {
      const Value key = eval(expr.args[0]);
      return item(*this, left, key);
    }
    case ExprKind::kSlice: {
      const Value start = eval_or_none(expr.args[0]), stop = eval_or_none(expr.args[1]), step = eval_or_none(expr.args[2]);
      return slice(*this, left, start, stop, step);
    }
    case ExprKind::kCall:
      return apply_call(expr, left, nullptr);
    case ExprKind::kFilter:
    case ExprKind::kTest: {
      if (!expr.native)
        throw Error(ErrorCode::kUnsupported, "chat template, line ", expr.line, ": unknown filter or test '", expr.name.substr(0, 60), "'");
      Arguments args = eval_arguments(expr);
      line = expr.line;
      return call_native(*this, *expr.native, left, std::move(args));
    }
    case ExprKind::kBinary: {
      const Value right = eval(expr.args[0]);
      line = expr.line;
      return arithmetic(*this, expr.name, left, right);
    }
    case ExprKind::kAnd:
      return left.truthy() ? eval(expr.args[0]) : left;
    case ExprKind::kOr:
      return left.truthy() ? left : eval(expr.args[0]);
    case ExprKind::kNot:
      return Value(!left.truthy());
    case ExprKind::kNegate:
      return negate(*this, left);
    case ExprKind::kPlus:
      return negate(*this, negate(*this, left));
    case ExprKind::kCompare:
      return apply_compare(expr, std::move(left));
    default:
      return left;
  }
}

/// left < a <= b: every neighbouring pair must hold, and nothing after the first that does not is computed.
Value Renderer::apply_compare(const Expr& expr, Value left) {
  for (size_t i = 0; i < expr.operators.size(); ++i) {
    Value right = eval(expr.args[i]);
    line = expr.line;
    const std::string& op = expr.operators[i];
    const bool holds = op == "=="       ? equal(*this, left, right)
                       : op == "!="     ? !equal(*this, left, right)
                       : op == "in"     ? contains(*this, right, left)
                       : op == "not in" ? !contains(*this, right, left)
                       : op == "<"      ? compare(*this, left, right) < 0
                       : op == "<="     ? compare(*this, left, right) <= 0
                       : op == ">"      ? compare(*this, left, right) > 0
                                        : compare(*this, left, right) >= 0;
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Arguments Renderer::eval_arguments(const Expr& expr) {
  Arguments args;
  for (const Expr* arg : expr.args) args.push(eval(arg));
  if (expr.star) {
    for (Value& v : iterate(*this, eval(expr.star))) args.push(std::move(v));
  }
  for (const auto& [name, value] : expr.named) args.named.emplace_back(name, eval(value));
  if (expr.star_star) {
    const Value more = eval(expr.star_star);
    if (!more.dict()) fail("** needs a dict, not ", type_name(more));
    for (const auto& [name, value] : more.dict()->items) args.named.emplace_back(to_text(*this, name), value);
  }
  return args;
}

Value Renderer::apply_call(const Expr& expr, const Value& callee, const Value* caller) {
  Arguments args = eval_arguments(expr);
  line = expr.line;
  require_defined(callee);
  if (callee.loop()) return call_loop(callee, args);
  const Function* function = callee.function();
  if (!function) fail("'", type_name(callee), "' cannot be called");
  if (function->macro) return call_macro(*function, std::move(args), caller);
  return call_native(*this, *function->native, function->self, std::move(args));
}

Value Renderer::call_macro(const Function& function, Arguments args, const Value* caller) {
  const Depth depth(*this);
  if (function.frame >= frames_.size() || frames_[function.frame].id != function.frame_id)
    fail("macro '", function.name, "' is called after its scope has ended");
  const Scope scope(*this, function.frame);
  bind_parameters(*function.macro, std::move(args), caller);
  return text(capture(function.macro->body));
}

/// Puts a macro's arguments into the current frame. Apart from call_macro, so that nested calls do not keep its locals on the stack.
void Renderer::bind_parameters(const Stmt& macro, Arguments args, const Value* caller) {
  const std::string& name_of_macro = macro.text;
  std::vector<std::pair<Value, Value>> extra;
  for (const auto& [name, value] : args.named) {
    const auto known =
        std::find_if(macro.parameters.begin(), macro.parameters.end(), [&n = name](const Parameter& p) { return p.name == n; });
    if (known != macro.parameters.end()) {
      if (static_cast<size_t>(known - macro.parameters.begin()) < args.positional.size())
        fail("macro '", name_of_macro, "' got two values for '", name, "'");
      assign(known->symbol, value);
    } else if (macro.uses_kwargs) {
      extra.emplace_back(text(name), value);
    } else if (name == "caller") {
      caller = &value;
    } else {
      fail("macro '", name_of_macro, "' takes no argument '", name, "'");
    }
  }
  if (args.positional.size() > macro.parameters.size() && !macro.uses_varargs)
    fail("macro '", name_of_macro, "' takes not more than ", macro.parameters.size(), " arguments, met ", args.positional.size());
  std::vector<Value> rest;
  for (size_t i = 0; i < args.positional.size(); ++i) {
    if (i < macro.parameters.size())
      assign(macro.parameters[i].symbol, args.positional[i].value);
    else
      rest.push_back(args.positional[i].value);
  }
  for (size_t i = args.positional.size(); i < macro.parameters.size(); ++i) {
    const Parameter& p = macro.parameters[i];
    const bool given = std::any_of(args.named.begin(), args.named.end(), [&p](const auto& named) { return named.first == p.name; });
    if (!given) assign(p.symbol, p.fallback ? eval(p.fallback) : undefined("parameter '", p.name, "' was not provided"));
  }
  if (macro.uses_varargs) define("varargs", list(std::move(rest), true));
  if (macro.uses_kwargs) define("kwargs", dict(std::move(extra)));
  if (macro.uses_caller) define("caller", caller ? *caller : undefined("no caller defined"));
}

/// loop(items) inside a recursive loop: its body again, one level deeper.
Value Renderer::call_loop(const Value& loop, const Arguments& args) {
  const LoopState& state = *loop.loop();
  if (!state.statement) fail("the loop must have the 'recursive' marker to be called");
  if (!args.at(0)) fail("loop() needs what to visit");
  std::string body;
  std::string* const outer = std::exchange(out_, &body);
  for_statement(*state.statement, *args.at(0), state.depth + 1);
  out_ = outer;
  buffered_ -= static_cast<int64_t>(body.size());
  return text(std::move(body));
}

}  // namespace minillm::jinja
