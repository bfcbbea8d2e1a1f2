// jinja_render.cpp - statements, variables and scopes; see jinja_render.h.
#include "text/jinja_render.h"

#include <algorithm>

namespace minillm::jinja {

Renderer::Depth::Depth(Renderer& r) : renderer(r) {
  if (++r.depth_ > kMaxDepth) {
    --r.depth_;
    throw Error(ErrorCode::kCapacity, "chat template, line ", r.line, ": nested more than ", kMaxDepth, " deep while rendering");
  }
}

Renderer::Scope::Scope(Renderer& r, size_t parent) : renderer(r), outer(r.frame_) { r.push_frame(parent); }
Renderer::Scope::~Scope() {
  renderer.frames_.pop_back();
  renderer.frame_ = outer;
}

void Renderer::push_frame(size_t parent) {
  budget.spend(32);  // With the loop's two variables.
  frames_.push_back({parent, next_frame_id_++, {}});
  frame_ = frames_.size() - 1;
}

void Renderer::define(std::string_view name, Value value) {
  const auto found = std::find(program_.symbols.begin(), program_.symbols.end(), name);
  if (found != program_.symbols.end()) assign(static_cast<int>(found - program_.symbols.begin()), std::move(value));
}

std::string Renderer::run() {
  std::string out;
  out_ = &out;
  execute(program_.root);
  return out;
}

Value Renderer::look_up(const Expr& name) {
  for (size_t at = frame_; at != kNoParent; at = frames_[at].parent) {
    budget.spend(static_cast<int64_t>(frames_[at].variables.size() / 8) + 1);
    for (const auto& [symbol, value] : frames_[at].variables)
      if (symbol == name.symbol) return value;
  }
  if (const Native* global = find_global(name.name))
    return Value(std::make_shared<const Function>(Function{name.name, global, {}, nullptr, 0, 0}));
  return undefined("'", name.name, "' is undefined");
}

void Renderer::assign(int symbol, Value value) {
  auto& variables = frames_[frame_].variables;
  budget.spend(static_cast<int64_t>(variables.size() / 8) + 1);
  const auto found = std::find_if(variables.begin(), variables.end(), [symbol](const auto& v) { return v.first == symbol; });
  if (found != variables.end())
    found->second = std::move(value);
  else
    variables.emplace_back(symbol, std::move(value));
}

void Renderer::assign(const Target& target, const Value& value) {
  if (!target.attribute.empty()) return assign_attribute(target, value);
  if (target.parts.empty()) return assign(target.symbol, value);
  const std::vector<Value> items = iterate(*this, value);
  if (items.size() != target.parts.size()) fail("expected ", target.parts.size(), " values to unpack, met ", items.size());
  for (size_t i = 0; i < items.size(); ++i) assign(target.parts[i], items[i]);
}

void Renderer::assign_attribute(const Target& target, const Value& value) {
  Expr name;
  name.name = target.name;
  name.symbol = target.symbol;
  Namespace* space = look_up(name).name_space();
  if (!space) fail("cannot assign attribute '", target.attribute, "': '", target.name, "' is no namespace");
  if (target.attribute.starts_with('_'))
    fail("a namespace cannot hold '", target.attribute, "': names that start with an underscore are refused");
  budget.spend(static_cast<int64_t>(space->items.size() / 8) + 1);
  const auto found =
      std::find_if(space->items.begin(), space->items.end(), [&](const auto& item) { return item.first == target.attribute; });
  if (found != space->items.end())
    found->second = value;
  else
    space->items.emplace_back(target.attribute, value);
}

void Renderer::emit(std::string_view text) {
  const auto n = static_cast<int64_t>(text.size());
  if (buffered_ + n > kMaxText)
    throw Error(ErrorCode::kCapacity, "chat template, line ", line, ": more than ", kMaxText, " bytes of output");
  budget.spend(n / 16);
  buffered_ += n;
  *out_ += text;
}

std::string Renderer::capture(const Block& block) {
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  {
    const Scope scope(*this, frame_);
    execute(block);
  }
  out_ = outer;
  buffered_ -= static_cast<int64_t>(text.size());
  return text;
}

Renderer::Flow Renderer::execute(const Block& block) {
  const Depth depth(*this);
  for (const Stmt* stmt : block) {
    const Flow flow = execute(*stmt);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Renderer::Flow Renderer::execute(const Stmt& stmt) {
  budget.spend(8);
  line = stmt.line;
  switch (stmt.kind) {
    case StmtKind::kData:
      emit(stmt.text);
      break;
    case StmtKind::kPrint: {
      const Value value = eval(stmt.expr);
      if (value.text())
        emit(*value.text());
      else
        emit(to_text(*this, value));
      break;
    }
    case StmtKind::kIf:
      return if_statement(stmt);
    case StmtKind::kFor:
      for_statement(stmt, eval(stmt.expr), 1);
      break;
    case StmtKind::kSet:
      assign(stmt.target, eval(stmt.expr));
      break;
    case StmtKind::kSetBlock:
      set_block(stmt);
      break;
    case StmtKind::kWith:
      with_block(stmt);
      break;
    case StmtKind::kMacro:
      assign(stmt.symbol, macro_value(stmt));
      break;
    case StmtKind::kCall: {
      const Value caller = macro_value(stmt);
      emit(to_text(*this, apply_call(*stmt.expr, eval(stmt.expr->left), &caller)));
      break;
    }
    case StmtKind::kFilter:
      emit(to_text(*this, filtered(stmt, stmt.expr, text(capture(stmt.body)))));
      break;
    case StmtKind::kGeneration:
      emit(capture(stmt.body));
      break;
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

Renderer::Flow Renderer::if_statement(const Stmt& stmt) {
  for (const auto& [condition, body] : stmt.branches)
    if (eval(condition).truthy()) return execute(body);
  return execute(stmt.otherwise);
}

/// Items that a loop visits: those for which its condition holds.
std::vector<Value> Renderer::loop_items(const Stmt& stmt, const Value& iterable) {
  std::vector<Value> items = iterate(*this, iterable);
  if (!stmt.condition) return items;
  std::vector<Value> kept;
  for (Value& item : items) {
    const Scope scope(*this, frame_);
    assign(stmt.target, item);
    if (eval(stmt.condition).truthy()) kept.push_back(std::move(item));
  }
  return kept;
}

void Renderer::for_statement(const Stmt& stmt, const Value& iterable, int64_t depth) {
  auto loop = std::make_shared<LoopState>();
  loop->items = loop_items(stmt, iterable);
  loop->depth = depth;
  loop->statement = stmt.recursive ? &stmt : nullptr;
  const Charge charge(budget, static_cast<int64_t>(loop->items.size() * sizeof(Value)) + 64);
  // loop.changed(loop) would make the loop hold itself.
  const std::shared_ptr<LoopState> untie(loop.get(), [](LoopState* state) { state->last_changed.clear(); });
  for (; loop->index < static_cast<int64_t>(loop->items.size()); ++loop->index) {
    const Scope scope(*this, frame_);
    assign(stmt.symbol, Value(loop));
    assign(stmt.target, loop->items[static_cast<size_t>(loop->index)]);
    if (execute(stmt.body) == Flow::kBreak) return;
  }
  if (loop->items.empty()) execute(stmt.otherwise);
}

void Renderer::set_block(const Stmt& stmt) { assign(stmt.target, filtered(stmt, stmt.expr, text(capture(stmt.body)))); }

Value Renderer::filtered(const Stmt& stmt, const Expr* filters, Value text) {
  const Expr* const outer = std::exchange(placeholder_, stmt.placeholder);
  Value outer_value = std::exchange(placeholder_value_, std::move(text));
  Value out = eval(filters);
  placeholder_ = outer;
  placeholder_value_ = std::move(outer_value);
  return out;
}

void Renderer::with_block(const Stmt& stmt) {
  std::vector<Value> values;  // All are computed outside the new scope.
  for (const auto& [target, value] : stmt.assignments) values.push_back(eval(value));
  const Scope scope(*this, frame_);
  for (size_t i = 0; i < values.size(); ++i) assign(stmt.assignments[i].first, values[i]);
  execute(stmt.body);
}

Value Renderer::macro_value(const Stmt& stmt) {
  budget.spend(8);
  return Value(std::make_shared<const Function>(Function{stmt.text, nullptr, {}, &stmt, frame_, frames_[frame_].id}));
}

}  // namespace minillm::jinja
