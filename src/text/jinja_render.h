// jinja_render.h - runs a parsed template: statements in jinja_render.cpp, expressions in jinja_eval.cpp.
// Scopes:  a frame of variables each for the template, a loop's pass, a macro's call, a with, call, filter or set block. A frame
//          points to the one around it in the text; a macro's points to where the macro was defined.
// Limits:  64 nested bodies, calls and arguments at once; work, memory and output as in jinja_runtime.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_runtime.h"

namespace minillm::jinja {

class Renderer : public Runtime {
 public:
  explicit Renderer(const Program& program) : program_(program) { push_frame(kNoParent); }

  /// Sets a variable of the template; ignored if it never mentions it.
  void define(std::string_view name, Value value);
  std::string run();

 private:
  static constexpr size_t kNoParent = static_cast<size_t>(-1);
  struct Frame {
    size_t parent = kNoParent;
    uint64_t id = 0;
    std::vector<std::pair<int, Value>> variables;
  };
  enum class Flow : uint8_t { kNormal, kBreak, kContinue };

  /// One more level of nesting while it lives. Throws Error{kCapacity} past 64.
  struct Depth {
    explicit Depth(Renderer& renderer);
    ~Depth() { --renderer.depth_; }
    Renderer& renderer;
  };
  /// A frame while it lives; it becomes the current one.
  struct Scope {
    Scope(Renderer& renderer, size_t parent);
    ~Scope();
    Renderer& renderer;
    size_t outer;
  };

  // Statements.
  Flow execute(const Block& block);
  Flow execute(const Stmt& stmt);
  Flow if_statement(const Stmt& stmt);
  void for_statement(const Stmt& stmt, const Value& iterable, int64_t depth);
  std::vector<Value> loop_items(const Stmt& stmt, const Value& iterable);
  void set_block(const Stmt& stmt);
  void with_block(const Stmt& stmt);
  Value macro_value(const Stmt& stmt);
  void emit(std::string_view text);
  /// What `block` prints, in a frame of its own.
  std::string capture(const Block& block);
  /// `filters` applied to `text`, which stands at its placeholder.
  Value filtered(const Stmt& stmt, const Expr* filters, Value text);

  // Variables.
  void push_frame(size_t parent);
  Value look_up(const Expr& name);
  void assign(int symbol, Value value);
  void assign(const Target& target, const Value& value);
  void assign_attribute(const Target& target, const Value& value);

  // Expressions.
  Value eval(const Expr* expr);
  Value eval_leaf(const Expr& expr);
  Value apply(const Expr& expr, Value left);
  Value apply_compare(const Expr& expr, Value left);
  Value apply_call(const Expr& expr, const Value& callee, const Value* caller);
  Value eval_or_none(const Expr* expr) { return expr ? eval(expr) : Value(None{}); }
  Arguments eval_arguments(const Expr& expr);
  Value call_macro(const Function& function, Arguments args, const Value* caller);
  void bind_parameters(const Stmt& macro, Arguments args, const Value* caller);
  Value call_loop(const Value& loop, const Arguments& args);

  const Program& program_;
  std::vector<Frame> frames_;
  size_t frame_ = 0;
  uint64_t next_frame_id_ = 0;
  int depth_ = 0;
  std::string* out_ = nullptr;  ///< Where printing goes.
  int64_t buffered_ = 0;        ///< Bytes in all texts under construction.
  std::vector<const Expr*> spine_;
  const Expr* placeholder_ = nullptr;
  Value placeholder_value_;
};

}  // namespace minillm::jinja
